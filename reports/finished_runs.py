"""What runs of main.py left in their folders, checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from reports.finished_run import arrays, read_predictions
from training.run_folder import FoldResult, RunFolder
from utils.config import Config
from utils.errors import Faults, UserError
from utils.files import files_below, read_json

EXPERIMENT = "experiment.json"
DEFAULTS = {item.name: item.default for item in fields(Config)}
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Fold:
    """A finished fold: its result, and the N test slides by name, with labels (N,) and probabilities (N, K)."""

    result: FoldResult
    slide_ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Run:
    """A run's folder. name: where it lies, from the folder of results on. folds: those that are finished."""

    folder: RunFolder
    name: str
    options: dict[str, Any]
    class_names: list[str]
    inputs: dict[str, str]
    folds: dict[int, Fold]

    @property
    def seed(self) -> int:
        return self.options["seed"]

    @property
    def missing(self) -> list[int]:
        return [fold for fold in range(self.options["k"]) if fold not in self.folds]


@dataclass(frozen=True)
class Entry:
    """What an experiment.json says of a run: the label of its row, and the preset whose table it is in."""

    label: str
    preset: str | None
    place: int


def read_runs(roots: Iterable[Path]) -> tuple[dict[Path, Run], dict[Path, list[Entry]], list[str]]:
    """The runs in and below some folders, their entries in experiment.json, both by resolved path, and notes on listed
    runs that have not begun. Raises UserError with every fault of every run, and where there is no run."""
    faults = Faults()
    roots = sorted(dict.fromkeys(root.resolve() for root in roots))
    runs: dict[Path, Run] = {}
    entries: dict[Path, list[Entry]] = {}
    for root in roots:
        if not root.is_dir():
            faults.add(f"{root}: no such folder; expected results of main.py (its --results_dir, or a run's folder)")
            continue
        for path, entry in faults.maybe(_read_experiment, root / EXPERIMENT) or []:
            known = entries.setdefault(path, [])
            if (entry.label, entry.preset) not in {(one.label, one.preset) for one in known}:
                known.append(entry)
        for file in files_below(root):
            path = file.parent.resolve()
            if file.name != "config.json" or path in runs:
                continue
            run = faults.maybe(_read_run, path, (Path(root.name) / file.parent.relative_to(root)).as_posix())
            if run:
                runs[path] = run
    if not runs and not faults.found:
        found = ", ".join(map(str, roots))
        faults.add(f"{found}: no run found; expected folders with a config.json, as python main.py writes them")
    faults.raise_any()
    absent = sorted({entry.label for path, found in entries.items() if path not in runs for entry in found})
    notes = [f"not begun, so in no table: {', '.join(absent)} ({EXPERIMENT} lists it)"] if absent else []
    return runs, entries, notes


def _read_experiment(file: Path) -> list[tuple[Path, Entry]]:
    if not file.exists():
        return []
    try:
        return [
            (
                (file.parent / listed["path"]).resolve(),
                Entry(" ".join(str(listed["label"]).split()), listed.get("preset"), place),
            )
            for place, listed in enumerate(read_json(file)["runs"])
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{file}: not a list of runs ({error!r}); expected {{"runs": [{{"label", "preset", "path", ...}}]}}, as '
            "python run_experiments.py writes it"
        ) from error


def _read_run(path: Path, name: str) -> Run | None:
    """A run with its finished folds; None where config.json is another program's."""
    folder = RunFolder(path)
    record = read_json(folder.config)
    if not isinstance(record, dict) or not {"options", "class_names", "inputs"} <= set(record):
        return None
    options = {**DEFAULTS, **record["options"]}
    faults = Faults()
    folds = {}
    for number in range(options["k"]):
        fold = faults.maybe(_read_fold, folder, number, record["class_names"])
        if fold:
            folds[number] = fold
    faults.raise_any()
    return Run(folder, name, options, record["class_names"], record["inputs"], folds)


def _read_fold(folder: RunFolder, number: int, class_names: Sequence[str]) -> Fold | None:
    result = folder.finished(number)
    if result is None:
        return None
    table = read_predictions(folder, result, class_names)
    table = table[table["split"] == "test"]
    labels, probabilities = arrays(table, class_names)
    if not np.allclose(probabilities.sum(1), 1, rtol=0, atol=TOLERANCE) or probabilities.min() < 0:
        raise UserError(
            f"{folder.predictions(number)}: found probabilities of a slide that do not sum to 1; remove "
            f"{folder.fold_result(number).name} and train the fold again with --resume"
        )
    return Fold(result, table["slide_id"].tolist(), labels, probabilities)
