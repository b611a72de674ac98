"""Grids of training runs: rows of tables (presets) times options with several values."""

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from reprlib import repr as short
from typing import Any

from utils.arguments import add_options
from utils.config import OPTIONS, PATHS, Config
from utils.effects import NAMED, missing_options, of_nature, options_without_effect
from utils.errors import Fault, Faults, UserError
from utils.options import Nature
from utils.presets import PRESETS, read_preset_file
from utils.yaml_files import read_yaml

# options that run_experiments.py gives to every fold itself
OWN = of_nature(Nature.CALL)

Values = dict[str, list[str]]  # an option's values, as the command line would spell them


@dataclass(frozen=True)
class Rows:
    """The rows of a table: their options by label, and the table's own, which a grid may replace. preset: the table's
    name in presets.yaml."""

    runs: Mapping[str, Values]
    preset: str | None = None
    options: Mapping[str, list[str]] | None = None


@dataclass(frozen=True)
class GridRun:
    """One call of main.py over all folds."""

    label: str
    preset: str | None
    config: Config

    def argv(self) -> list[str]:
        """main.py's options, as far as they differ from its defaults."""
        return [f"--{name}={value}" for name, value in differing(self.config).items()]

    def record(self, results: Path) -> dict[str, Any]:
        """The run as experiment.json lists it. path: relative to ``results``; options: those of its setting."""
        config = self.config
        return {
            "label": self.label,
            "preset": self.preset,
            "path": config.run_path().relative_to(results).as_posix(),
            "task": config.task,
            "feature_extractor": config.feature_extractor,
            "model_type": config.model_type,
            "shots": config.few_shot_num,
            "seed": config.seed,
            "options": setting(config),
        }


def differing(config: Config) -> dict[str, Any]:
    """The options that differ from main.py's defaults."""
    defaults = asdict(Config())
    return {name: value for name, value in asdict(config).items() if value != defaults[name]}


def setting(config: Config) -> dict[str, Any]:
    """Of the options that differ from the defaults, those that change what is computed and that the name of the run's
    own folder does not tell."""
    settings = of_nature(Nature.SETTING)
    return {name: value for name, value in differing(config).items() if name in settings}


def setting_folder(config: Config) -> str:
    """The folder of a setting, '' for main.py's defaults: {"htcl": "none", "early_stopping": True} ->
    early_stopping,htcl=none"""
    words = [name if value is True else f"{name}={value}" for name, value in sorted(setting(config).items())]
    return ",".join(words)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_grid(path: Path) -> tuple[Values, list[str], Rows | None]:
    """A grid file: main.py's options with one or several values, ``preset`` (names), ``runs`` ({label: options}).

    Returns the options, the names of presets and the file's own rows. Raises UserError with all faults.
    """
    content = _read_yaml(path)
    faults = Faults()
    presets = _values(content.pop("preset", []), f"{path}: preset", faults)
    rows = Rows(_rows(content.pop("runs"), f"{path}: runs", faults)) if "runs" in content else None
    options = _options(content, str(path), faults)
    faults.raise_any()
    return options, presets, rows


def read_presets(names: Sequence[str]) -> list[Rows]:
    """Tables of presets.yaml by name, in the order asked for. Raises UserError where one is not there."""
    known = read_preset_file() if names else {}
    faults = Faults()
    found = []
    for name in dict.fromkeys(names):
        if name not in known:
            faults.add(Fault("preset.unknown", f"--preset {name}", f"not in {PRESETS}", f"some of {', '.join(known)}"))
            continue
        source = f"{PRESETS}: {name}"
        options = _options(known[name].options, source, faults)
        found.append(Rows(_rows(known[name].runs, source, faults), name, options))
    faults.raise_any()
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(Fault("grid.missing", str(path), "file not found", "YAML", "see experiments/README.md"))
    content = read_yaml(path)
    if not isinstance(content, dict):
        found = f"found a {type(content).__name__}"
        raise UserError(Fault("grid.form", str(path), found, "lines of the form option: value"))
    return content


def _rows(value: Any, source: str, faults: Faults) -> dict[str, Values]:
    if not isinstance(value, dict) or not value:
        faults.add(Fault("grid.form", source, f"found {short(value)}", "rows of the form label: {option: value}"))
        return {}
    return {label: _options(row, f"{source}: {label}", faults) for label, row in value.items()}


def _options(value: Any, source: str, faults: Faults) -> Values:
    if not isinstance(value, dict):
        faults.add(Fault("grid.form", source, f"found {short(value)}", "{option: value}"))
        return {}
    spelt = {name.replace("-", "_"): given for name, given in value.items()}
    if len(spelt) < len(value):
        faults.add(Fault("grid.repeated_option", source, "an option stands there twice, with - and with _"))
    for name in sorted(spelt.keys() - OPTIONS):
        faults.add(Fault("option.unknown", source, f"{name} is no option of main.py"))
    for name in sorted(spelt.keys() & OWN):
        found = f"{name} cannot stand in a grid, run_experiments.py sets it for every fold"
        faults.add(Fault("grid.own_option", source, found, mend=f"remove {name}"))
    return {name: _values(given, f"{source}: {name}", faults) for name, given in spelt.items()}


def _values(value: Any, source: str, faults: Faults) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if any(item is None or isinstance(item, list | dict) for item in values):
        faults.add(Fault("grid.form", source, f"found {short(value)}", "one value or a list of values"))
        return []
    return [str(item) for item in values]


def replaced_by_rows(given: Collection[str], tables: Iterable[Rows]) -> list[str]:
    """What is said of given options that rows of tables set themselves."""
    rows_of = {
        (name, table.preset or "runs"): [label for label, row in table.runs.items() if name in row]
        for table in tables
        for name in given
    }
    return [
        f"{name}: the value given is not that of {table}: {', '.join(labels)}"
        for (name, table), labels in rows_of.items()
        if labels
    ]


# ---- expanding -------------------------------------------------------------------------------------------------------


def expand(options: Mapping[str, list[str]], tables: Iterable[Rows], results: Path) -> list[GridRun]:
    """Every row of every table, with every combination of the options' values; a row's own options take precedence
    over the grid's, these over the table's. Rows that are the same run, of two tables or with other values of options
    without effect, share a folder.

    Raises UserError with all faults: values that main.py refuses, two different runs in one folder.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_options(parser)
    faults = Faults()
    runs: dict[GridRun, None] = {}
    for table in tables:
        for label, row in table.runs.items():
            merged = {**(table.options or {}), **options, **row}
            varied = [name for name, values in merged.items() if len(values) > 1 and name not in NAMED]
            for values in product(*merged.values()):
                given = dict(zip(merged, values, strict=True))
                if read := faults.attempt(_config, parser, given):
                    useless = options_without_effect(read.value)
                    config = replace(read.value, **{name: getattr(Config(), name) for name in useless})
                    config = replace(config, results_dir=str(results / setting_folder(config)))
                    words = [label or config.model_type, *(f"{name} {given[name]}" for name in varied)]
                    runs[GridRun(", ".join(words), table.preset, config)] = None
    there: dict[Path, Config] = {}
    for run in runs:
        path = run.config.run_path()
        if (other := there.setdefault(path, run.config)) != run.config:
            names = sorted(name for name in asdict(other) if getattr(other, name) != getattr(run.config, name))
            found = f"two runs that differ in {', '.join(names)} would share this folder"
            faults.add(Fault("grid.shared_folder", str(path), found, mend="run them apart"))
    if faults.found:
        raise UserError(list(dict.fromkeys(faults.found)))
    return list(runs)


def _config(parser: argparse.ArgumentParser, given: Mapping[str, str]) -> Config:
    known = {**{name: str(value) for name, value in asdict(Config()).items()}, **given}
    filled = {name: _fill(name, text, known) if name in PATHS else text for name, text in given.items()}
    try:
        config = Config(**vars(parser.parse_args([f"--{name}={text}" for name, text in filled.items()])))
    except argparse.ArgumentError as error:
        raise UserError(Fault("option.value", error.argument_name or "", error.message)) from error
    if absent := missing_options(config):
        mend = "give it, or name it in the grid"
        raise UserError([Fault("option.missing", name, "no value", mend=mend) for name in absent])
    return config


def _fill(name: str, text: str, known: Mapping[str, str]) -> str:
    """A path with the values of other options in place of their names in braces."""
    try:
        return text.format_map(known)
    except (KeyError, ValueError, IndexError) as error:
        expected = "the name of an option in braces, as {task}"
        raise UserError(Fault("grid.pattern", f"--{name} {text}", str(error), expected)) from error
