"""Settings made of a few slides, for the tests of comparisons and tables."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.finished_runs import FinishedFold, FinishedRun
from reports.settings import Setting
from training.fold_result import FoldResult
from training.run_reader import RunReader
from training.run_record import RunRecord
from utils.config import Config

RESULT = FoldResult(0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, nan, 0, 1)


def finished_fold(slide_ids: list[str], labels: np.ndarray, probabilities: np.ndarray) -> FinishedFold:
    """A fold of these test slides; classes A, B, ..."""
    names = np.array(list("ABC"))
    columns: dict[str, Any] = {"split": "test", "slide_id": slide_ids, "label": names[labels]}
    columns["prediction"] = names[probabilities.argmax(1)]
    columns |= {f"prob_{names[k]}": column for k, column in enumerate(probabilities.T)}
    return FinishedFold(RESULT, pd.DataFrame(columns))


def run_of_folds(
    path: Path, folds: dict[int, FinishedFold], class_names: tuple[str, ...] = ("A", "B"), **options: Any
) -> FinishedRun:
    """A run with these folds, and options other than the defaults."""
    record = RunRecord({**asdict(Config()), **options}, list(class_names), None, {}, {}, {})
    return FinishedRun(RunReader(path), path.name, record, folds)


def fold(right: list[bool]) -> FinishedFold:
    """Slides s0, s1, ... of labels 0, 1, 0, ...; where right, the label's probability is 0.9, else 0.1."""
    labels = np.arange(len(right)) % 2
    probabilities = np.where(np.eye(2)[labels] == np.array(right)[:, None], 0.9, 0.1)
    return finished_fold([f"s{index}" for index in range(len(right))], labels, probabilities)


def setting(label: str, folds_by_seed: dict[int, dict[int, FinishedFold]]) -> Setting:
    """A setting of runs by seed, of folds by number."""
    runs = tuple(
        run_of_folds(Path("/runs", label), folds, seed=seed, k=len(folds)) for seed, folds in folds_by_seed.items()
    )
    return Setting(label, "task", "plip", 4, runs)


def with_results(label: str, *results: Mapping[str, float]) -> Setting:
    """A setting of one seed whose folds have these numbers of FoldResult."""
    bare = accuracies({1: [5] * len(results)})[1]
    folds = {number: replace(bare[number], result=replace(RESULT, **numbers)) for number, numbers in enumerate(results)}
    return setting(label, {1: folds})


def accuracies(shares: dict[int, list[int]]) -> dict[int, dict[int, FinishedFold]]:
    """By seed, the number of the ten slides that are right in each fold."""
    return {
        seed: {number: fold([index < right for index in range(10)]) for number, right in enumerate(rights)}
        for seed, rights in shares.items()
    }
