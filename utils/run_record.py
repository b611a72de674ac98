"""A run's config.json, read again by the scripts that use its checkpoints."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from utils.config import CIRCUMSTANCES, TRAINING_ONLY, Config
from utils.errors import UserError
from utils.files import read_json

# what may differ from the run that made the checkpoint
FREE = CIRCUMSTANCES | TRAINING_ONLY | {"task", "precision"}


def read_record(checkpoint: Path, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config.json beside the checkpoint; None beside a bare one. Raises UserError where an option given differs
    from it and may not."""
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
    faults = [
        f"--{name} {value}: the checkpoint was trained with {options.get(name)!r} ({file})"
        for name, value in given.items()
        if name not in FREE and value != options.get(name)
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
