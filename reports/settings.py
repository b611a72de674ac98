"""Which runs make one cell of a table of results, and which cells make a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from reports.finished_runs import DEFAULTS, Entry, Fold, Run
from utils.effects import CIRCUMSTANCES, NAMED
from utils.errors import Faults

# options that say in which column a run stands, or which of a setting's repeats it is
PLACE = CIRCUMSTANCES | NAMED

Column = tuple[str, int]
"""Task and shots."""


@dataclass(frozen=True)
class Setting:
    """One cell of a table: the runs, one a seed, of one label on one task with some shots and feature extractor."""

    label: str
    task: str
    feature_extractor: str
    shots: int
    runs: tuple[Run, ...]

    @cached_property
    def folds(self) -> dict[tuple[int, int], Fold]:
        """All finished folds by (seed, fold)."""
        return {(run.seed, number): fold for run in self.runs for number, fold in run.folds.items()}

    @property
    def expected(self) -> int:
        """Folds when all are finished."""
        return sum(run.options["k"] for run in self.runs)

    @property
    def is_complete(self) -> bool:
        return len(self.folds) == self.expected

    @property
    def class_names(self) -> list[str]:
        return self.runs[0].class_names

    @property
    def place(self) -> str:
        return f"{self.task}, {self.feature_extractor}, {self.shots} shots"

    @property
    def title(self) -> str:
        return f"{self.label}: {self.place}"

    def values(self, metric: str) -> np.ndarray:
        """A number of FoldResult over the finished folds."""
        return np.array([getattr(fold.result, metric) for fold in self.folds.values()], dtype=np.float64)

    def test_predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (N,) and probabilities (N, K) of all finished folds; a slide is there as often as it was tested."""
        folds = self.folds.values()
        return np.concatenate([fold.labels for fold in folds]), np.concatenate([fold.probabilities for fold in folds])


@dataclass(frozen=True)
class ResultsTable:
    """rows: labels in order; columns: task and shots; cells: the settings there are."""

    preset: str | None
    feature_extractor: str
    rows: list[str]
    columns: list[Column]
    cells: dict[tuple[str, Column], Setting]

    @property
    def name(self) -> str:
        return f"{self.preset or 'results'}_{self.feature_extractor}"

    def column(self, column: Column) -> list[Setting]:
        """The settings of a column, row by row."""
        return [self.cells[row, column] for row in self.rows if (row, column) in self.cells]


def build_tables(runs: Mapping[Path, Run], entries: Mapping[Path, Sequence[Entry]]) -> list[ResultsTable]:
    """A table for each preset and feature extractor, whatever the order of the runs.

    A run without an entry is labelled by its model, and by the options in which the runs of that model differ. Raises
    UserError where two runs of one cell have one seed, or differ in more than the seed.
    """
    unlisted = [run for path, run in runs.items() if not entries.get(path)]
    found: dict[tuple[str, str], dict[tuple[str, Column], list[Run]]] = {}
    places: dict[tuple[str, str, str], int] = {}
    for path, run in sorted(runs.items()):
        options = run.options
        for entry in entries.get(path) or [Entry(_label(run, unlisted), None, len(runs))]:
            key = entry.preset or "", options["feature_extractor"]
            cells = found.setdefault(key, {})
            cells.setdefault((entry.label, (options["task"], options["few_shot_num"])), []).append(run)
            places[*key, entry.label] = min(entry.place, places.get((*key, entry.label), entry.place))
    faults = Faults()
    tables = []
    for key, cells in sorted(found.items()):
        settings = {}
        for (label, (task, shots)), members in cells.items():
            members.sort(key=lambda run: run.seed)
            for fault in _cell_faults(label, members):
                faults.add(fault)
            settings[label, (task, shots)] = Setting(label, task, key[1], shots, tuple(members))
        rows = sorted({label for label, _ in cells}, key=lambda label: (places[*key, label], label))
        tables.append(ResultsTable(key[0] or None, key[1], rows, sorted({column for _, column in cells}), settings))
    faults.raise_any()
    return tables


def _label(run: Run, runs: Sequence[Run]) -> str:
    model = run.options["model_type"]
    others = [other.options for other in runs if other.options["model_type"] == model]
    special = [
        f"{name} {value}"
        for name, value in own_options(run).items()
        if any(other.get(name) != value for other in others)
    ]
    return f"{model} ({', '.join(special)})" if special else model


def _cell_faults(label: str, runs: Sequence[Run]) -> list[str]:
    faults = []
    for before, run in pairwise(runs):
        names = f"{before.folder.path} and {run.folder.path}"
        mend = "give them labels of their own in experiment.json, or name fewer folders"
        names_of_both = sorted((run.options.keys() | before.options.keys()) - PLACE)
        different = [name for name in names_of_both if run.options.get(name) != before.options.get(name)]
        if before.seed == run.seed:
            faults.append(f"{names}: found two runs labelled {label!r} with seed {run.seed}, expected one; {mend}")
        elif different or before.class_names != run.class_names:
            what = ", ".join(different) or "class names"
            faults.append(f"{names}: both are labelled {label!r}, but differ in {what}, not in the seed alone; {mend}")
    return faults


def own_options(run: Run) -> dict[str, Any]:
    """A run's options, other than the defaults, and than what its place tells."""
    return {name: value for name, value in run.options.items() if name not in PLACE and value != DEFAULTS.get(name)}


def shared_options(runs: Sequence[Run]) -> dict[str, Any]:
    """The options, other than the defaults, that all runs have in common."""
    first = own_options(runs[0]).items()
    return {name: value for name, value in first if all(run.options.get(name) == value for run in runs)}
