"""The way into a run: what training, prediction and explanation read is loaded and checked here, all faults at once."""

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch

from datasets.bag_cache import BagCache
from datasets.bags import feature_width
from datasets.checks import check_features, check_root
from datasets.descriptions import Descriptions
from datasets.folders import FeatureFolders
from datasets.model_texts import read_texts, text_source
from datasets.splits import Split, build_split, patient_audit, read_split_ids
from datasets.task import Slide, read_slides
from models.build import KINDS, build_model
from models.text_length import room_for
from models.vlms import TextSide, load_text_side
from training.fold import choose_slides
from training.run_reader import RunRecord
from utils.config import Config
from utils.effects import effect_notes, has_effect
from utils.errors import Attempt, Fault, Faults, UserError
from utils.files import file_sha256, text_sha256
from utils.interface import SlideModel
from utils.memory import cache_bytes
from utils.reproducibility import choose_device, make_deterministic, versions
from utils.sealed import json_sha256

Table = tuple[list[str], dict[str, Slide]]  # class names, slides by slide_id
SplitIds = dict[str, list[str]]  # slide ids of train, val and test


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """What a run reads, checked.

    class_names: a label is an index into them. descriptions: texts of the classes; none where the model reads no texts,
    and then no tower either. slides: by slide_id, in the order of the table. cache: the features, as far as memory
    holds them. digests: of the features that were checked, by slide_id. splits: the folds to train; none of a trained
    run. notes: what the user should know, a line each.
    """

    config: Config
    class_names: list[str]
    descriptions: Descriptions
    slides: Mapping[str, Slide]
    tower: TextSide | None
    cache: BagCache
    digests: Mapping[str, str]
    device: torch.device
    splits: Sequence[Split] = ()
    notes: list[str] = field(default_factory=list)

    def build_model(self) -> SlideModel:
        """The model on the device, newly initialised from the global generator."""
        texts = self.descriptions.low_texts, self.descriptions.high_texts
        model = build_model(self.config, self.tower, *texts, len(self.class_names), self.cache.feature_dim)
        return model.to(self.device)

    def record(self) -> RunRecord:
        """What config.json holds: options, classes, descriptions, fingerprints of what the folds read, versions and
        threads."""
        config = self.config
        read = {"dataset_csv": file_sha256(config.csv_path())}
        if self.tower is not None:
            read["text_prompt"] = text_sha256(json.dumps(self.descriptions.by_class))
            read["text_tower"] = self.tower.fingerprint()
            read["tokenizer"] = tokens_sha256(self.tower, self.descriptions)
        for split in self.splits:
            read[f"splits_{split.fold}"] = file_sha256(config.split_path(split.fold))
            slide_ids = sorted(slide.slide_id for _, slides in split.parts() for slide in slides)
            lines = [f"{slide_id} {self.digests[slide_id]}" for slide_id in slide_ids]
            read[f"features_{split.fold}"] = text_sha256("\n".join(lines))
        return RunRecord(
            options=config.to_dict(),
            class_names=self.class_names,
            feature_dim=self.cache.feature_dim,
            descriptions=self.descriptions.by_class,
            inputs=read,
            versions={**versions(), **self._revision()},
            num_threads=torch.get_num_threads(),
        )

    def _revision(self) -> dict[str, str]:
        """The commit of a vision-language model that is from the hub, by its hub id."""
        origin = self.tower.origin if self.tower is not None else None
        return {origin.told: origin.revision} if origin and origin.revision else {}


def tokens_sha256(tower: TextSide, descriptions: Descriptions) -> str:
    """A digest over what a tower's tokenizer makes of the texts of a run, and over its special tokens."""
    tokens = tower.tokenize([*descriptions.low_texts, *descriptions.high_texts])
    return json_sha256([list(tower.special_tokens), tokens])


class InputReader:
    """The steps that a run to be trained and a trained one share.

    device, tower: attempts; the tower is on the device, and None where the model reads no texts. What is wrong is
    gathered in ``faults``.
    """

    def __init__(self, config: Config, faults: Faults):
        make_deterministic()
        self.config, self.faults = config, faults
        self.form = KINDS[config.model_type].form(config)
        self.folders = FeatureFolders.of(config)
        self.device = faults.check("device", choose_device, config.device)
        self.tower: Attempt[TextSide | None] = Attempt(None)
        if config.text_form:
            self.tower = faults.check("vision-language model", self._load_tower)

    def _load_tower(self) -> TextSide | None:
        return load_text_side(self.config.feature_extractor, self.config.vlm_path).to(self.device.value)

    def read_texts(self, class_names: Sequence[str] | None) -> Descriptions:
        """The texts of some classes (None: of all in the file), in the form of the model. Raises UserError."""
        tower = self.tower.value if self.tower else None
        has_context = has_effect(self.config, "num_context_tokens")
        fits = room_for(tower, self.config.num_context_tokens) if tower and has_context else None
        return read_texts(self.config, self.config.text_form, class_names, fits)

    def open_cache(self, slides: Sequence[Slide], known_width: int | None = None) -> BagCache:
        """An empty cache of features as wide as the text tower reads them or, without one, as ``known_width`` or the
        files of the slides say. Another ``--feature_dim`` is a fault."""
        tower, given = self.tower.value if self.tower else None, self.config.feature_dim
        width = tower.output_dim if tower else known_width or feature_width(self.folders, slides, self.form)
        if width and given not in (None, width):
            source = "text features of this model" if tower else "features"
            expected = f"{width}, the width of the {source}"
            self.faults.add(Fault("option.value", f"--feature_dim {given}", "another width", expected))
        capacity = cache_bytes(self.config.cache_gb)
        return BagCache(self.folders, width or given, capacity, self.config.cache_half, self.form)


# ---- a run to be trained ---------------------------------------------------------------------------------------------


def checked_inputs(
    config: Config, given: Collection[str], as_json: bool = False, compare: Callable[[RunInputs], None] | None = None
) -> RunInputs:
    """Read and check everything that a run needs to be trained, and print what the user should know.

    given: names of the options on the command line. as_json: print one JSON object {faults, passed, notes} in place of
    the notes; what the checks say goes to standard error. compare: one more check, of the inputs of a repeated run.
    Raises UserError with all faults.
    """
    faults = Faults()
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        inputs = faults.attempt(load_inputs, config, given, faults)
        if inputs and compare:
            faults.check("inputs of the repeated run", compare, inputs.value)
    if as_json:
        print(json.dumps({**faults.to_dict(), "notes": inputs.value.notes if inputs else []}, indent=2))
    faults.raise_any()
    if not as_json:
        print("\n".join([*inputs.value.notes, *(["dry run: all checks passed"] if config.dry_run else [])]))
    return inputs.value


def load_inputs(config: Config, given: Collection[str], faults: Faults) -> RunInputs:
    """Read and check everything that a run needs to be trained.

    given: names of the options on the command line. faults: gathers what is wrong, for the caller to raise, and the
    names of the checks that passed. Raises UserError without a fault of its own where an input is missing whose fault
    stands in ``faults``.
    """
    config = faults.check("options", check_options, config).value
    reader = InputReader(config, faults)
    table = faults.check("table of slides", read_slides, config.csv_path())
    texts = faults.check("descriptions", reader.read_texts, table.value[0] if table else None)
    command = f"python create_splits.py --task {config.task} --k {config.k} --few_shot_num {config.few_shot_num}"
    ids = {fold: faults.attempt(read_split_ids, config.split_path(fold), command) for fold in config.folds()}
    splits = [
        faults.check(f"splits of fold {fold}", _build_split, config, fold, members, table)
        for fold, members in ids.items()
    ]
    chosen = faults.attempt(_slides_of_splits, table, list(ids.values()))
    cache = reader.open_cache(chosen.value if chosen else [])
    if not chosen:
        faults.attempt(check_root, cache.folders, cache.form)
    memory = Path(config.results_dir) / config.task / config.feature_extractor / "checked_features.json"
    digests = faults.check("features", lambda: check_features(cache, chosen.value, memory, config.verify))
    every = [split.value for split in splits]
    inputs = RunInputs(
        config=config,
        class_names=table.value[0],
        descriptions=texts.value,
        slides=table.value[1],
        tower=reader.tower.value,
        cache=cache,
        digests=digests.value,
        device=reader.device.value,
        splits=choose_slides(config, every),
    )
    model = faults.check("model", inputs.build_model)
    inputs.notes.extend(
        [*effect_notes(config, given, "training"), *_shot_notes(config, every), *_notes(inputs, model.value)]
    )
    return inputs


def check_options(config: Config) -> Config:
    """The same options. Raises UserError where one is missing or lies outside its range."""
    faults = Faults()
    for name in ("task", "data_root_dir"):
        if not getattr(config, name):
            faults.add(Fault("option.missing", f"--{name}", "no value", mend=f"give --{name}"))
    if Path(config.results_dir).is_file():
        faults.add(Fault("output.file", f"--results_dir {config.results_dir}", "is a file", "a folder"))
    if not config.folds() or config.k_end > config.k:
        where = f"--k_start {config.k_start} --k_end {config.k_end}"
        faults.add(Fault("option.value", where, f"not among the folds of --k {config.k}", f"0 up to {config.k}"))
    if not 0 < config.label_frac <= 1:
        where = f"--label_frac {config.label_frac}"
        faults.add(Fault("option.value", where, "not a share of the slides", "a number above 0, at most 1"))
    faults.raise_any()
    return config


def _build_split(config: Config, fold: int, ids: Attempt[SplitIds], table: Attempt[Table]) -> Split:
    class_names, slides = table.value
    return build_split(config.split_path(fold), fold, ids.value, slides, class_names)


def _slides_of_splits(table: Attempt[Table], splits: Sequence[Attempt[SplitIds]]) -> list[Slide]:
    """The slides of all splits that could be read, in the order of the table."""
    slides = table.value[1]
    wanted = {slide_id for ids in splits if ids for part in ids.value.values() for slide_id in part}
    if not wanted:
        raise UserError([])
    return [slide for slide in slides.values() if slide.slide_id in wanted]


def _shot_notes(config: Config, splits: Sequence[Split]) -> list[str]:
    shots = {count for split in splits for count in split.shots()} - {config.few_shot_num}
    if not shots:
        return []
    return [
        f"warning: --few_shot_num is {config.few_shot_num}, but classes with {', '.join(map(str, sorted(shots)))} "
        "training slides were found; the run's folder carries the former"
    ]


def _notes(inputs: RunInputs, model: SlideModel) -> list[str]:
    config, form = inputs.config, inputs.config.text_form
    warnings = [patient_audit(inputs.splits), *model.notes()]
    folds = ", ".join(str(split.fold) for split in inputs.splits)
    return [
        *(f"warning: {sentence}" for sentence in warnings if sentence),
        *([f"texts of {config.model_type}: {text_source(config, form)}"] if form and form != "HiVE_MIL" else []),
        f"task {config.task}: classes {', '.join(inputs.class_names)}; {len(inputs.slides)} slides; folds {folds}; "
        f"{config.model_type} ({config.variant}) on {inputs.device}",
    ]
