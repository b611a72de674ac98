"""Checkpoints of a run's folds, and the settings that lie beside them."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.folders import FeatureFolders
from datasets.model_texts import text_paths
from datasets.splits import read_split_ids
from training.run_reader import RunReader
from training.run_record import RunRecord, config_of, replaced
from utils.commands import options_text
from utils.config import Config
from utils.effects import FREE, missing_options, of_nature, options_without_effect
from utils.errors import Attempt, Fault, Faults, UserError
from utils.interface import SlideModel
from utils.options import Nature
from utils.tensors import read_state
from utils.words import listed

CHECKPOINT = re.compile(r"s_(\d+)_checkpoint\.pt")


def fold_names(checkpoints: Sequence[Path]) -> list[str]:
    """What the checkpoints are called: "fold 0", or the name of a file that does not tell its fold. Raises UserError
    where a checkpoint is missing, or where they are not of different folds of one run."""
    absent = [file for file in checkpoints if not file.is_file()]
    if absent:
        expected = "s_<fold>_checkpoint.pt, which main.py writes"
        raise UserError([Fault("checkpoint.missing", str(file), "no such checkpoint", expected) for file in absent])
    names = [f"fold {match[1]}" if (match := CHECKPOINT.fullmatch(file.name)) else file.stem for file in checkpoints]
    if len({file.parent.resolve() for file in checkpoints}) > 1 or len(set(names)) < len(names):
        where = options_text({"checkpoint": list(checkpoints)})
        found = "files of several folders, or one fold twice"
        raise UserError(Fault("checkpoint.several_runs", where, found, "different folds of one run's folder"))
    return names


def read_settings(checkpoint: Path, given: Mapping[str, Any]) -> tuple[RunRecord | None, Config]:
    """The config.json beside a checkpoint (None beside a bare one), and the run's options with those given in place.

    The run's table of slides serves the run's task only; options of the call that trained (``Nature.CALL``) serve that
    call only. Raises UserError where config.json cannot be used, where an option given differs from the run's and may
    not (``FREE``), and where an option that is needed is missing.
    """
    run = RunReader(checkpoint.parent)
    record = run.record() if run.config.exists() else None
    if record:
        refuse_other_options(run.config, record.options, given, FREE)
    own = record.options if record else {}
    options = {name: value for name, value in own.items() if name not in of_nature(Nature.CALL)}
    if given.get("task", options.get("task")) != options.get("task"):
        options |= {"dataset_csv": None, "features_from": None}
    config = Config(**replaced(options, given))
    if absent := missing_options(config):
        found = "no value, and no config.json beside the checkpoint"
        raise UserError([Fault("option.missing", name, found, mend=f"give {name}") for name in absent])
    return record, config


def input_paths(checkpoints: Sequence[Path], given: Mapping[str, Any]) -> list[Path]:
    """The files that a call with these checkpoints reads, and the folders whose files it reads; not all need be there.
    Raises UserError as ``fold_names`` and ``read_settings`` do."""
    fold_names(checkpoints)
    _, config = read_settings(checkpoints[0], given)
    own = RunReader(checkpoints[0].parent).own_files()
    return [*checkpoints, *own, config.csv_path(), *text_paths(config), FeatureFolders.of(config).place]


def check_checkpoints(checkpoints: Mapping[str, Path]) -> list[str]:
    """Check the checkpoints of a run, by the names of their folds, against the results of these folds, and the split
    files with them.

    Returns what the user should know, a line each. Raises UserError with every file that is not the one that the result
    of its fold names, and for every result that is damaged or of another run. Bare checkpoints are passed over.
    """
    run = RunReader(next(iter(checkpoints.values())).parent)
    if not run.config.exists():
        return []
    faults, unknown, folds = Faults(), [], []
    for name, file in checkpoints.items():
        match = CHECKPOINT.fullmatch(file.name)
        result = faults.attempt(run.finished, int(match[1])) if match else Attempt(None)
        if match and result and result.value:
            folds.append(int(match[1]))
            faults.attempt(run.check_files, folds[-1], run.training(folds[-1]).checkpoint, run.split(folds[-1]))
        elif result:
            unknown.append(name)
    faults.raise_any()
    notes = run.notes(folds)
    if unknown:
        notes.append(
            f"no fold_<k>.json tells whether the checkpoint of {listed(unknown, quote=False)} is as main.py wrote it"
        )
    return [f"note: {run.path}: {note}" for note in notes]


def refuse_other_options(
    file: Path, options: Mapping[str, Any], given: Mapping[str, Any], free: Collection[str]
) -> None:
    """Raises UserError where an option given differs from a run's, has an effect on its model, and is not free.

    file: the config.json that holds the run's options.
    """
    trained = config_of(options, file)
    may_differ = options_without_effect(trained).union(free)
    faults = [
        Fault(
            "run.other_settings", f"--{name} {value}", f"the run was trained with {getattr(trained, name)!r} ({file})",
            mend=f"leave --{name} out",
        )
        for name, value in given.items()
        if name not in may_differ and value != getattr(trained, name)
    ]  # fmt: skip
    if faults:
        raise UserError(faults)


def load_weights(model: SlideModel, file: Path, config: Config) -> SlideModel:
    """The model with a checkpoint's weights, in evaluation mode. Raises UserError where they do not fit."""
    saved = read_state(file)
    try:
        model.load_checkpoint(saved)
    except ValueError as error:
        expected = f"the tensors of --model_type {config.model_type} --variant {config.variant} with its options"
        raise UserError(Fault("checkpoint.mismatch", str(file), str(error), expected)) from error
    return model.eval()


def parts_of(checkpoint: Path, fold_name: str) -> dict[str, str] | None:
    """{slide_id: train, val or test} by the split file beside a checkpoint; None where there is none."""
    file = checkpoint.with_name(f"splits_{fold_name.removeprefix('fold ')}.csv")
    if not file.is_file():
        return None
    return {slide_id: part for part, ids in read_split_ids(file).items() for slide_id in ids}
