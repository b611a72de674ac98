"""A run's config.json, read again by the scripts that use its checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.config import Config
from utils.effects import FREE, options_without_effect
from utils.errors import UserError
from utils.files import read_json


def read_record(checkpoint: Path, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config.json beside the checkpoint; None beside a bare one.

    Raises UserError where an option given differs from the run's, though the model reads it and it is not ``FREE``.
    """
    file = checkpoint.with_name("config.json")
    if not file.exists():
        return None
    record = read_json(file)
    if not isinstance(record, dict) or not {"options", "class_names", "descriptions", "inputs"} <= set(record):
        raise UserError(f"{file}: not a config.json of main.py; move it away to use the checkpoint without it")
    trained = Config.from_record(record["options"], file)
    options = asdict(trained)
    free = FREE | options_without_effect(trained)
    faults = [
        f"--{name} {value}: the checkpoint was trained with {options[name]!r} ({file})"
        for name, value in given.items()
        if name not in free and value != options[name]
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
