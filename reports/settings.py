"""Which runs make one cell of a table of results, and which cells make a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from reports.finished_runs import ExperimentEntry, FinishedFold, FinishedRun
from training.metrics import CLASSIFICATION, GRAPH, Measure
from utils.config import Config
from utils.effects import CIRCUMSTANCES, NAMED
from utils.errors import Fault, Faults

# options that say in which column a run stands, or which of a setting's repeats it is
PLACE = CIRCUMSTANCES | NAMED

TESTED = {measure.key: measure for measure in (*CLASSIFICATION, *GRAPH)}
"""The measures of the test slides that a fold's result has, by key."""

Column = tuple[str, int]
"""Task and shots."""


@dataclass(frozen=True)
class Setting:
    """One cell of a table: the runs, one a seed, of one label on one task with some shots and feature extractor."""

    label: str
    task: str
    feature_extractor: str
    shots: int
    runs: tuple[FinishedRun, ...]

    @cached_property
    def folds(self) -> dict[tuple[int, int], FinishedFold]:
        """All finished folds by (seed, fold)."""
        return {(run.seed, number): fold for run in self.runs for number, fold in run.folds.items()}

    @property
    def expected(self) -> int:
        """Folds when all are finished."""
        return sum(run.num_folds for run in self.runs)

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

    def values(self, measure: Measure) -> np.ndarray:
        """A measure of the test slides in each finished fold: (F,)."""
        return np.array([getattr(fold.result, f"test_{measure.key}") for fold in self.folds.values()], dtype=np.float64)

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


def build_tables(
    runs: Mapping[Path, FinishedRun], entries: Mapping[Path, Sequence[ExperimentEntry]]
) -> list[ResultsTable]:
    """A table for each preset and feature extractor, whatever the order of the runs.

    A run without an entry is labelled by its model, and by the options in which the runs of that model differ. Raises
    UserError where two runs of one cell have one seed, or differ in more than the seed.
    """
    unlisted = [run for path, run in runs.items() if not entries.get(path)]
    found: dict[tuple[str, str], dict[tuple[str, Column], list[FinishedRun]]] = {}
    places: dict[tuple[str, str, str], int] = {}
    for path, run in sorted(runs.items()):
        options = run.options
        for entry in entries.get(path) or [ExperimentEntry(_label(run, unlisted), None, len(runs))]:
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
            faults.found += _cell_faults(label, members)
            settings[label, (task, shots)] = Setting(label, task, key[1], shots, tuple(members))
        rows = sorted({label for label, _ in cells}, key=lambda label: (places[*key, label], label))
        tables.append(ResultsTable(key[0] or None, key[1], rows, sorted({column for _, column in cells}), settings))
    faults.raise_any()
    return tables


def _label(run: FinishedRun, runs: Sequence[FinishedRun]) -> str:
    model = run.options["model_type"]
    others = [other.options for other in runs if other.options["model_type"] == model]
    special = [
        f"{name} {value}"
        for name, value in own_options(run).items()
        if any(other.get(name) != value for other in others)
    ]
    return f"{model} ({', '.join(special)})" if special else model


def _cell_faults(label: str, runs: Sequence[FinishedRun]) -> list[Fault]:
    faults = []
    for before, run in pairwise(runs):
        names = f"{before.folder.path} and {run.folder.path}"
        mend = "give them labels of their own in experiment.json, or name fewer folders"
        names_of_both = sorted((run.options.keys() | before.options.keys()) - PLACE)
        different = [name for name in names_of_both if run.options.get(name) != before.options.get(name)]
        if before.seed == run.seed:
            found = f"found two runs labelled {label!r} with seed {run.seed}"
            faults.append(Fault("run.same_seed", names, found, expected="one", mend=mend))
        elif different or before.class_names != run.class_names:
            what = ", ".join(different) or "class names"
            found = f"both are labelled {label!r}, but differ in {what}, not in the seed alone"
            faults.append(Fault("run.same_label", names, found, mend=mend))
    return faults


def own_options(run: FinishedRun) -> dict[str, Any]:
    """A run's options, other than the defaults, and than what its place tells."""
    defaults = asdict(Config())
    return {name: value for name, value in run.options.items() if name not in PLACE and value != defaults.get(name)}


def shared_options(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """The options, other than the defaults, that all runs have in common."""
    first = own_options(runs[0]).items()
    return {name: value for name, value in first if all(run.options.get(name) == value for run in runs)}
