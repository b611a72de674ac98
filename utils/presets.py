"""presets.yaml: the paper's tables and figures, as runs and as what a report shows of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from utils.config import PROJECT
from utils.errors import Fault, UserError
from utils.typed import mistakes, read_as
from utils.yaml_files import read_yaml

PRESETS = PROJECT / "experiments" / "presets.yaml"

FigureKind = Literal["curves", "scatter", "bars", "grid"]


@dataclass(frozen=True)
class PresetReport:
    """What the paper shows of a table or figure.

    columns: keys of the measures (``training.metrics.Measure``) in the paper's order. figure: what is drawn, None for a
    table. published: which of the paper's tables print numbers of these rows. also: tables whose rows,
    of other models, stand beside.
    """

    columns: list[str] = field(default_factory=lambda: ["acc", "auc", "f1"])
    figure: FigureKind | None = None
    published: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Preset:
    """One of presets.yaml. about: what it varies. runs: {label of the row: options}. options: its own values of
    options, which a grid may replace. Values are as YAML has them."""

    about: str
    runs: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    report: PresetReport = field(default_factory=PresetReport)

    def values(self, option: str) -> list[str]:
        """The preset's own values of an option, in the paper's order."""
        value = self.options.get(option, [])
        return value if isinstance(value, list) else [value]

    def place_of(self, label: str) -> int:
        """The place of a row in the paper's order. A label may go on behind that of presets.yaml, with the values of
        options that vary (", lr 0.1"); those of other rows come last."""
        rows = list(self.runs)
        own = next((row for row in sorted(rows, key=len, reverse=True) if f"{label}, ".startswith(f"{row}, ")), None)
        return len(rows) if own is None else rows.index(own)


def read_preset_file(path: Path = PRESETS) -> dict[str, Preset]:
    """The presets by name, in the file's order. Raises UserError where the file is not of that form."""
    content = read_yaml(path)
    if wrong := mistakes(dict[str, Preset], content):
        raise UserError(
            Fault("preset.form", str(path), f"not a table of presets ({wrong[0]})", "about, runs, options, report")
        )
    return {name: preset for name, told in content.items() if (preset := read_as(Preset, told))}
