"""A run's config.json, read again by the scripts that use its checkpoints."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields
from pathlib import Path
from typing import Any

from utils.config import CIRCUMSTANCES, TRAINING_ONLY, Config
from utils.errors import UserError
from utils.files import read_json

# what may differ from the run that made the checkpoint
FREE = CIRCUMSTANCES | TRAINING_ONLY | {"task", "precision"}


def read_record(
    checkpoint: Path, given: Mapping[str, Any], without_effect: Callable[[Config], AbstractSet[str]]
) -> dict[str, Any] | None:
    """The config.json beside the checkpoint; None beside a bare one.

    without_effect: the options that a run's model does not read. Raises UserError where another option given differs
    from the run's, and may not (``FREE``).
    """
    file = checkpoint.with_name("config.json")
    if not file.exists():
        return None
    record = read_json(file)
    if not isinstance(record, dict) or not {"options", "class_names", "descriptions", "inputs"} <= set(record):
        raise UserError(f"{file}: not a config.json of main.py; move it away to use the checkpoint without it")
    options = record["options"]
    unknown = sorted(set(options) - {item.name for item in fields(Config)})
    if unknown:
        raise UserError(f"{file}: unknown options {', '.join(unknown)}; it was written by another version")
    free = FREE | without_effect(Config(**options))
    faults = [
        f"--{name} {value}: the checkpoint was trained with {options.get(name)!r} ({file})"
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
        raise UserError(f"{' and '.join(absent)} missing: needed with a checkpoint that has no config.json beside it")
    return config
