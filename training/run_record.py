"""A run's config.json, read again by the scripts that use its checkpoints."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from training.run_reader import RunReader
from utils.config import CIRCUMSTANCES, TRAINING_ONLY, Config
from utils.errors import Fault, UserError

# what may differ from the run that made the checkpoint
FREE = CIRCUMSTANCES | TRAINING_ONLY | {"task", "precision"}


def read_record(
    checkpoint: Path, given: Mapping[str, Any], without_effect: Callable[[Config], AbstractSet[str]]
) -> dict[str, Any] | None:
    """The config.json beside the checkpoint; None beside a bare one.

    without_effect: the options that a run's model does not read. Raises UserError where another option given differs
    from the run's, and may not (``FREE``).
    """
    folder = RunReader(checkpoint.parent)
    if not folder.config.exists():
        return None
    file, record = folder.config, asdict(folder.record())
    options = record["options"]
    unknown = sorted(set(options) - {item.name for item in fields(Config)})
    if unknown:
        found = f"unknown options {', '.join(unknown)}; another version wrote the file"
        raise UserError(Fault("run.unknown_option", str(file), found))
    free = FREE | without_effect(Config(**options))
    faults = [
        Fault(
            "run.other_settings",
            f"--{name} {value}",
            f"the checkpoint was trained with {options.get(name)!r} ({file})",
            mend=f"leave --{name} out",
        )
        for name, value in given.items()
        if name not in free and value != options.get(name)
    ]
    if faults:
        raise UserError(faults)
    return record


def config_of(record: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Config:
    """The run's options with those given in place of its own. The run's table of slides serves its own task only."""
    options = dict(record["options"]) if record else {}
    if given.get("task", options.get("task")) != options.get("task"):
        options["dataset_csv"] = None
    config = Config(**{**options, **given})
    absent = [f"--{name}" for name in ("task", "data_root_dir") if not getattr(config, name)]
    if absent:
        found = f"{' and '.join(absent)} missing: needed with a checkpoint that has no config.json beside it"
        raise UserError(Fault("option.missing", "", found))
    return config
