"""Finished folds of runs of main.py: of one run for its page, of all runs below some folders for tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.fold_result import FoldResult
from training.run_reader import RunReader, is_fold_result
from training.run_record import RunRecord
from training.run_tables import arrays
from utils.config import Config
from utils.errors import Attempt, Fault, Faults, UserError
from utils.files import files_below, read_json
from utils.words import listed

EXPERIMENT = "experiment.json"


@dataclass(frozen=True, eq=False)
class FinishedFold:
    """predictions: predictions_<fold>.csv, validation and test slides. history: history_<fold>.csv, None where nobody
    asked for it."""

    result: FoldResult
    predictions: pd.DataFrame
    history: pd.DataFrame | None = None

    @cached_property
    def tested(self) -> pd.DataFrame:
        """Predictions of the N test slides."""
        return self.predictions[self.predictions["split"] == "test"]

    @cached_property
    def slide_ids(self) -> list[str]:
        """The test slides."""
        return list(self.tested["slide_id"])

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices of the test slides."""
        return self._arrays[0]

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K) of the test slides."""
        return self._arrays[1]

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        columns = [name for name in self.predictions if name.startswith("prob_")]
        return arrays(self.tested, [name.removeprefix("prob_") for name in columns])


@dataclass(frozen=True)
class FinishedRun:
    """A run with those of its folds that are finished, by number. name: by which the reader of a table or page knows
    the run. notes: what the user should know of its files, a line each."""

    folder: RunReader
    name: str
    record: RunRecord
    folds: dict[int, FinishedFold]
    notes: Sequence[str] = ()

    @property
    def options(self) -> dict[str, Any]:
        return self.record.options

    @property
    def class_names(self) -> list[str]:
        return self.record.class_names

    @property
    def seed(self) -> int:
        return int(self.options["seed"])

    @property
    def num_folds(self) -> int:
        """Folds when all are finished."""
        return int(self.options["k"])

    @property
    def missing(self) -> list[int]:
        """The folds that are not finished."""
        return [fold for fold in range(self.num_folds) if fold not in self.folds]

    @property
    def table(self) -> Path:
        """Where the task's table of slides lies."""
        return Config(task=self.options["task"], dataset_csv=self.options["dataset_csv"]).csv_path()


@dataclass(frozen=True)
class ExperimentEntry:
    """What an experiment.json says of a run: the label of its row, the preset whose table it is in, and its place in
    the list."""

    label: str
    preset: str | None
    place: int


@dataclass(frozen=True)
class FoundRuns:
    """Runs and their entries in experiment.json, both by resolved path. absent: labels of listed runs that have not
    begun."""

    runs: dict[Path, FinishedRun]
    entries: dict[Path, list[ExperimentEntry]]

    @property
    def absent(self) -> list[str]:
        return sorted({entry.label for path, found in self.entries.items() if path not in self.runs for entry in found})


def read_finished_run(path: Path, name: str, with_history: bool = False) -> FinishedRun:
    """A run's folder with its finished folds. Raises UserError where the folder is no run, or files are damaged: all
    faults at once."""
    folder, faults = RunReader(path), Faults()
    record = folder.record()
    folds = {}
    for number in range(record.options["k"]):
        result = faults.attempt(folder.finished, number)
        if result and result.value:
            faults.attempt(folder.check_files, number, folder.split(number), folder.training(number).checkpoint)
            predictions = faults.attempt(folder.read_predictions, result.value, record.class_names)
            history = faults.attempt(folder.read_history, result.value) if with_history else Attempt(None)
            if predictions and history:
                folds[number] = FinishedFold(result.value, predictions.value, history.value)
    faults.raise_any()
    return FinishedRun(folder, name, record, folds, folder.notes(folds))


def read_runs(roots: Iterable[Path]) -> FoundRuns:
    """The runs in and below some folders. Raises UserError with every fault of every run, and where there is no run."""
    faults = Faults()
    roots = sorted(dict.fromkeys(root.resolve() for root in roots))
    found = FoundRuns({}, {})
    for root in roots:
        if not root.is_dir():
            wanted = "results of main.py (its --results_dir, or a run's folder)"
            faults.add(Fault("folder.missing", str(root), "no such folder", expected=wanted))
            continue
        experiment = faults.attempt(_read_experiment, root / EXPERIMENT)
        for path, entry in experiment.value if experiment else []:
            known = found.entries.setdefault(path, [])
            if (entry.label, entry.preset) not in {(one.label, one.preset) for one in known}:
                known.append(entry)
        folders = [file.parent for file in files_below(root) if file.name == "config.json" or is_fold_result(file)]
        for folder in dict.fromkeys(folders):
            path = folder.resolve()
            if path not in found.runs:
                name = (Path(root.name) / folder.relative_to(root)).as_posix()
                run = faults.attempt(_read_if_run, path, name)
                if run and run.value:
                    found.runs[path] = run.value
    if not found.runs and not faults.found:
        wanted = "folders with a config.json, as python main.py writes them"
        faults.add(Fault("run.missing", listed(roots), "no run found", expected=wanted))
    faults.raise_any()
    return found


def _read_if_run(path: Path, name: str) -> FinishedRun | None:
    """None where config.json is another program's."""
    return read_finished_run(path, name) if RunReader(path).holds_run() else None


def _read_experiment(file: Path) -> list[tuple[Path, ExperimentEntry]]:
    if not file.exists():
        return []
    try:
        return [
            (
                (file.parent / listed["path"]).resolve(),
                ExperimentEntry(" ".join(str(listed["label"]).split()), listed.get("preset"), place),
            )
            for place, listed in enumerate(read_json(file)["runs"])
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            Fault(
                "experiment.unreadable", str(file), f"not a list of runs ({error!r})",
                expected='{"runs": [{"label", "preset", "path", ...}]}, as python run_experiments.py writes it',
            )
        ) from error  # fmt: skip
