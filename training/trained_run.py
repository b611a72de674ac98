"""A run that was trained: what it reads, together with the models of its folds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.bag_cache import BagCache
from datasets.checks import CheckedFeatures
from datasets.descriptions import Descriptions
from datasets.model_texts import arrange_texts, in_class_order
from datasets.task import NO_LABEL, Slide, labels_told, other_labels, read_labels, read_slides, read_table
from models.vlms.registry import Source
from training.checkpoints import check_checkpoints, fold_names, load_weights, parts_of, read_settings
from training.inputs import InputReader, RunInputs, tokens_sha256
from training.run_record import RunRecord
from utils.config import Config
from utils.effects import effect_notes
from utils.errors import Attempt, Fault, Faults, UserError
from utils.interface import SlideModel
from utils.model_identity import ModelIdentity
from utils.options import Stage
from utils.words import listed


@dataclass(frozen=True, kw_only=True)
class TrainedRun(RunInputs):
    """name: of the run's folder. models: by the name of their fold, in evaluation mode on the device. parts: fold ->
    {slide_id: train, val or test}, of the folds whose split file lies beside the checkpoint."""

    name: str
    models: Mapping[str, SlideModel]
    parts: Mapping[str, Mapping[str, str]]


def load_run(
    checkpoints: Sequence[Path],
    given: Mapping[str, Any],
    slide_ids: Sequence[str] | None = None,
    check: bool = True,
    stage: Stage = "prediction",
    labels_optional: bool = False,
) -> TrainedRun:
    """Load checkpoints of a run's folds, with all that they need to be used on the same slides or on others.

    given: options of main.py, in place of those in the config.json beside the checkpoints or, for bare ones, all there
    are. slide_ids: the slides to use; those that are not in the table have no label. By default all of the table or,
    where a task has none, all with features. check: read and check the slides' features. stage: what the run is loaded
    for; options without effect on it are noted. labels_optional: a label that is no class of the run counts as none.

    Raises UserError with all faults: a checkpoint that is missing, does not fit or is not the one of its fold's result,
    an option or an input other than the run's, slides that are faulty.
    """
    files = dict(zip(fold_names(checkpoints), checkpoints, strict=True))
    record, config = read_settings(checkpoints[0], given)
    faults = Faults()
    told = faults.attempt(check_checkpoints, files)
    notes = [*effect_notes(config, given.keys(), stage), *(told.value if told else [])]
    reader = InputReader(config, faults)
    faults.attempt(_check_tower, reader, record)
    texts = faults.attempt(_texts_of_run, reader, record, given)
    faults.attempt(lambda: _check_tokenizer(reader, record, texts.value))
    class_names = faults.attempt(_classes_of_run, config, record, texts)
    slides = faults.attempt(lambda: _slides_of_run(reader, class_names.value, slide_ids, labels_optional, notes))
    chosen = list(slides.value.values()) if slides else []
    cache = reader.open_cache(chosen, record.feature_dim if record else None)
    trained_with = record.features_model if record else None
    found = faults.attempt(_look_at_features, reader, cache, chosen, trained_with, check, notes)
    faults.raise_any()
    if changed := record.changed_slides(found.value.digests) if record else []:
        notes.append(
            f"warning: the features of {len(changed)} slides are not those that the run read ({listed(changed)}); the "
            "run's own predictions for them are of other features"
        )
    inputs = RunInputs(
        config=config,
        class_names=class_names.value,
        descriptions=texts.value,
        slides=slides.value,
        tower=reader.tower.value,
        cache=cache,
        digests=found.value.digests,
        features_model=trained_with,
        device=reader.device.value,
        notes=notes,
    )
    return TrainedRun(
        **vars(inputs),
        name=checkpoints[0].parent.resolve().name,
        models={name: load_weights(inputs.build_model(), file, config) for name, file in files.items()},
        parts={name: parts for name, file in files.items() if (parts := parts_of(file, name)) is not None},
    )


def _look_at_features(
    reader: InputReader,
    cache: BagCache,
    slides: Sequence[Slide],
    trained_with: ModelIdentity | None,
    check: bool,
    notes: list[str],
) -> CheckedFeatures:
    """Check features or, without ``check``, of which model they are alone; what is no fault is noted. Raises
    UserError."""

    def warn(fault: Fault) -> None:
        notes.append(f"warning: {fault}")

    if check:
        return reader.check_features(cache, slides, warn, trained_with=trained_with)
    reader.check_model(cache, slides, warn, trained_with)
    return CheckedFeatures()


def _check_tower(reader: InputReader, record: RunRecord | None) -> None:
    """Raises UserError where the run was trained with another text tower."""
    tower = reader.tower.value
    if record and tower and tower.fingerprint() != record.inputs["text_tower"]:
        found = f"{tower.origin} is not the vision-language model that the run was trained with"
        then = Source(record.options["feature_extractor"], record.options["vlm_path"])
        expected = str(record.features_model or then)
        raise UserError(Fault("run.other_settings", f"--vlm_path {reader.config.vlm_path}", found, expected))


def _check_tokenizer(reader: InputReader, record: RunRecord | None, texts: Descriptions) -> None:
    """Raises UserError where the tokenizer reads the run's texts otherwise than in training."""
    tower = reader.tower.value
    told = record.inputs.get("tokenizer") if record else None
    if told and tower and tokens_sha256(tower, texts) != told:
        found = "its tokenizer gives the run's texts other tokens than in training"
        mend = "put the tokenizer's files of then back"
        raise UserError(Fault("run.other_settings", f"--vlm_path {reader.config.vlm_path}", found, mend=mend))


def _texts_of_run(reader: InputReader, record: RunRecord | None, given: Mapping[str, Any]) -> Descriptions:
    """The run's own; for a bare checkpoint those of all classes of the file, since a table may lack some, or, where the
    file cannot be read without knowing the classes, those of the labels of the table."""
    if record is None:
        try:
            texts = reader.read_texts(None)
            return reader.read_texts(in_class_order(reader.config, list(texts.by_class)))
        except UserError:
            labels = _labels(reader.config)
            if len(labels) < 2:
                raise
            return reader.read_texts(in_class_order(reader.config, labels))
    own = arrange_texts(reader.config, reader.config.text_form, vars(record))
    if "text_prompt" in given and reader.read_texts(record.class_names) != own:
        found = "not the descriptions that the run was trained with"
        where = f"--text_prompt {reader.config.text_prompt}"
        raise UserError(Fault("run.other_settings", where, found, mend="leave --text_prompt out"))
    return own


def _classes_of_run(config: Config, record: RunRecord | None, texts: Attempt[Descriptions]) -> list[str]:
    """The run's; for a bare checkpoint those of the descriptions, or of a table with at least two."""
    if record:
        return list(record.class_names)
    if texts and texts.value.by_class:
        return list(texts.value.by_class)
    labels = _labels(config)
    if len(labels) < 2:
        found = f"the labels {labels}, which are the classes of a checkpoint without config.json"
        few = Fault("table.classes", str(config.csv_path()), found, "at least two labels")
        raise UserError([few] if texts else [])  # what is wrong with the texts is told already
    return labels


def _labels(config: Config) -> list[str]:
    """Those of the table; none where there is no table and none was named."""
    return read_labels(config.csv_path()) if config.dataset_csv or config.csv_path().exists() else []


def _slides_of_run(
    reader: InputReader,
    class_names: list[str],
    slide_ids: Sequence[str] | None,
    labels_optional: bool,
    notes: list[str],
) -> dict[str, Slide]:
    """The slides of the table, or those named; without a table all that have features, which is noted, as are labels
    that are passed over."""
    path = reader.config.csv_path()
    table: dict[str, Slide] = {}
    if reader.config.dataset_csv or path.exists():
        table = read_slides(path, class_names, labels_optional)[1]
        notes += _unlabelled_notes(path, class_names, table.values())
    elif slide_ids is None:
        slide_ids = reader.folders.slide_ids(reader.form)
        notes.append(f"note: {path} is not there; all {len(slide_ids)} slides with features are taken, without labels")
    if slide_ids is None:
        return table
    return {slide_id: table.get(slide_id) or Slide(slide_id, slide_id) for slide_id in slide_ids}


def _unlabelled_notes(path: Path, class_names: Sequence[str], slides: Collection[Slide]) -> list[str]:
    """A line where some slides of a table have a label and others count as unlabelled: how many, and why."""
    unlabelled = sum(slide.label == NO_LABEL for slide in slides)
    others = other_labels(read_table(path), class_names)
    if not others and unlabelled in (0, len(slides)):
        return []
    blank = unlabelled - sum(map(len, others.values()))
    told = [*([f"a blank of {blank}"] if blank else []), *([labels_told(others)] if others else [])]
    return [f"note: {unlabelled} of {len(slides)} slides count as unlabelled; their labels: {', '.join(told)}"]
