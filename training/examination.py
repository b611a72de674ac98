"""The checks of all that a run needs to be trained, one by one: ``main.py`` starts with them,
``main.py --dry_run`` ends with them, and ``doctor.py`` shows what each of them found."""

import json
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from datasets.bag_cache import BagCache
from datasets.checks import CheckedFeatures, check_root
from datasets.descriptions import Descriptions
from datasets.model_texts import in_class_order, text_source
from datasets.splits import Split, build_split, patient_audit, read_split_ids
from datasets.task import Slide, read_slides
from models.text_length import token_limit
from training.fold import choose_slides
from training.inputs import InputReader, RunInputs
from utils.commands import command
from utils.config import Config
from utils.effects import effect_notes, has_effect, missing_options
from utils.errors import Attempt, Fault, Faults, UserError
from utils.interface import SlideModel
from utils.words import listed

Table = tuple[list[str], dict[str, Slide]]  # class names, slides by slide_id
SplitIds = dict[str, list[str]]  # slide ids of train, val and test


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
        print("\n".join(first_lines(config)))
        inputs = faults.attempt(load_inputs, config, given, faults)
        if inputs and compare:
            faults.check("inputs of the repeated run", compare, inputs.value)
    notes = inputs.value.notes if inputs else [f"warning: {warning}" for warning in faults.warnings]
    if as_json:
        print(json.dumps({**faults.to_dict(), "notes": notes}, indent=2))
    elif notes:
        print("\n".join(notes))
    faults.raise_any()
    if config.dry_run and not as_json:
        print("dry run: all checks passed")
    return inputs.value


def first_lines(config: Config) -> list[str]:
    """What is computed and from which descriptions: the first lines of every run."""
    folds = config.folds()
    of_variant = f", variant {config.variant}" if has_effect(config, "variant") else ""
    span = f"fold {folds[0]}" if len(folds) == 1 else f"folds {folds[0]} to {folds[-1]}" if folds else "no folds"
    lines = [f"{config.model_type}{of_variant}: {span} of task {config.task}, {config.few_shot_num} slides a class"]
    if config.text_form:
        author = "" if config.text_prompt else f" of {config.language_model()}"
        lines.append(f"descriptions{author}: {text_source(config, config.text_form)}")
    return lines


def load_inputs(config: Config, given: Collection[str], faults: Faults, sample: int | None = None) -> RunInputs:
    """Read and check everything that a run needs to be trained.

    given: names of the options on the command line. faults: gathers the checks, what they found and what is wrong, for
    the caller to raise. sample: check the features of so many slides, spread over the table, in place of all; such
    inputs are not for training. Raises UserError without a fault of its own where an input is missing whose fault
    stands in ``faults``.
    """
    config = faults.check("options", check_options, config).value
    reader = InputReader(config, faults)
    table = faults.check("table of slides", _read_table, config, faults)
    texts = faults.check("descriptions", _read_texts, reader, table)
    ids: dict[int, SplitIds] = {}
    splits = [
        faults.check(f"splits of fold {fold}", _read_split, config, fold, table, ids, faults) for fold in config.folds()
    ]
    _warn_of_splits(config, splits, faults)
    chosen = faults.attempt(_slides_of_splits, table, ids.values())
    cache = faults.attempt(reader.open_cache, chosen.value if chosen else []).value
    if not chosen:
        faults.attempt(check_root, cache.folders, cache.form)
    found = faults.check("features", lambda: _check_features(reader, cache, chosen.value, sample))
    every = [split.value for split in splits]
    inputs = RunInputs(
        config=config,
        class_names=table.value[0],
        descriptions=texts.value,
        slides=table.value[1],
        tower=reader.tower.value,
        cache=cache,
        digests=found.value.digests,
        features_model=found.value.model.identity,
        device=reader.device.value,
        splits=choose_slides(config, every),
    )
    faults.check("model", _build_model, inputs, faults)
    warnings = [f"warning: {warning}" for warning in faults.warnings]
    inputs.notes.extend([*effect_notes(config, given, "training"), *warnings, *_notes(inputs)])
    return inputs


def check_options(config: Config) -> Config:
    """The same options. Raises UserError where one is missing or lies outside its range."""
    faults = Faults()
    for name in missing_options(config):
        faults.add(Fault("option.missing", name, "no value", mend=f"give {name}"))
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


# ---- the steps: each reads one input, and tells what it found --------------------------------------------------------


def _read_table(config: Config, faults: Faults) -> Table:
    class_names, slides = read_slides(config.csv_path())
    ordered = in_class_order(config, class_names)
    if ordered != class_names:
        class_names, slides = read_slides(config.csv_path(), ordered)
    faults.tell(f"{len(slides)} slides of {len({slide.patient for slide in slides.values()})} patients")
    faults.tell(f"classes {listed(class_names)}, in {config.csv_path()}")
    return class_names, slides


def _read_texts(reader: InputReader, table: Attempt[Table]) -> Descriptions:
    """The descriptions of the table's classes; without a table those of all classes of the file."""
    texts = reader.read_texts(table.value[0] if table else None)
    config, tower = reader.config, reader.tower.value if reader.tower else None
    if not config.text_form:
        reader.faults.tell(f"none: {config.model_type} reads no texts")
        return texts
    reader.faults.tell(f"{len(texts.low_texts)} low and {len(texts.high_texts)} high ones")
    if tower and has_effect(config, "num_context_tokens"):
        count, room = token_limit(tower, config.num_context_tokens)
        longest = max(map(count, [*texts.low_texts, *texts.high_texts]))
        reader.faults.tell(f"the longest of {longest} tokens, {room} are read")
    return texts


def _read_split(config: Config, fold: int, table: Attempt[Table], ids: dict[int, SplitIds], faults: Faults) -> Split:
    """A fold; ``ids`` gets the slides that its file names, even where the fold is faulty."""
    make = command("create_splits.py", task=config.task, k=config.k, few_shot_num=config.few_shot_num)
    path = config.split_path(fold)
    ids[fold] = read_split_ids(path, make)
    class_names, slides = table.value
    split = build_split(path, fold, ids[fold], slides, class_names, make)
    faults.tell(", ".join(f"{len(part)} {name}" for name, part in split.parts()))
    return split


def _warn_of_splits(config: Config, splits: Sequence[Attempt[Split]], faults: Faults) -> None:
    """Of another number of shots than the run's name says, and of patients in two parts of a fold."""
    every = [split.value for split in splits if split]
    if len(every) < len(splits):
        return
    shots = {count for split in every for count in split.shots()} - {config.few_shot_num}
    if shots:
        others = listed(sorted(shots))
        found = f"--few_shot_num is {config.few_shot_num}, but classes with {others} training slides were found"
        mend = f"the run's folder carries the former: give --few_shot_num {max(shots)}, or name other splits"
        faults.warn(Fault("split.shots", "", found, mend=mend))
    if audit := patient_audit(choose_slides(config, every)):
        faults.warn(audit)


def _slides_of_splits(table: Attempt[Table], ids: Collection[SplitIds]) -> list[Slide]:
    """The slides of all splits that could be read, in the order of the table."""
    slides = table.value[1]
    wanted = {slide_id for split in ids for part in split.values() for slide_id in part}
    if not wanted:
        raise UserError([])
    return [slide for slide in slides.values() if slide.slide_id in wanted]


def _check_features(
    reader: InputReader, cache: BagCache, slides: Sequence[Slide], sample: int | None
) -> CheckedFeatures:
    config, faults = reader.config, reader.faults
    memory = Path(config.results_dir) / config.task / config.feature_extractor / "checked_features.json"
    chosen = slides if sample is None else slides[:: max(1, -(-len(slides) // sample))]
    found = reader.check_features(cache, chosen, faults.warn, memory, config.verify)
    of = "" if len(chosen) == len(slides) else f", a sample of {len(slides)}"
    by = f", of {found.model.identity}" if found.model.identity else ""
    faults.tell(f"{len(chosen)} slides{of}, {cache.feature_dim} wide, in {cache.folders.place}{by}")
    return found


def _build_model(inputs: RunInputs, faults: Faults) -> SlideModel:
    model = inputs.build_model()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    faults.tell(f"{inputs.config.model_type} ({inputs.config.variant}), {trained:,} numbers to train")
    mend = "write shorter descriptions, or give a smaller --num_context_tokens"
    for note in model.notes():
        faults.warn(Fault("prompt.cut", "", note, mend=mend))
    return model


def _notes(inputs: RunInputs) -> list[str]:
    config, form = inputs.config, inputs.config.text_form
    folds = ", ".join(str(split.fold) for split in inputs.splits)
    return [
        *([f"texts of {config.model_type}: {text_source(config, form)}"] if form and form != "HiVE_MIL" else []),
        f"task {config.task}: classes {listed(inputs.class_names, 10, quote=False)}; {len(inputs.slides)} slides; "
        f"folds {folds}; {config.model_type} ({config.variant}) on {inputs.device}",
    ]
