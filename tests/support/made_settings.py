"""Settings made of a few slides, for the tests of comparisons and tables."""

from collections.abc import Mapping
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np

from reports.finished_runs import Fold, Run
from reports.settings import Setting
from training.run_folder import FoldResult, RunFolder

RESULT = FoldResult(0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, nan, 0, 1)


def fold(right: list[bool]) -> Fold:
    """Slides s0, s1, ... of labels 0, 1, 0, ...; where right, the label's probability is 0.9, else 0.1."""
    labels = np.arange(len(right)) % 2
    probabilities = np.where(np.eye(2)[labels] == np.array(right)[:, None], 0.9, 0.1)
    return Fold(RESULT, [f"s{index}" for index in range(len(right))], labels, probabilities)


def setting(label: str, folds_by_seed: dict[int, dict[int, Fold]]) -> Setting:
    """A setting of runs by seed, of folds by number."""
    runs = tuple(
        Run(RunFolder(Path("run")), label, {"seed": seed, "k": len(folds)}, ["A", "B"], {}, folds)
        for seed, folds in folds_by_seed.items()
    )
    return Setting(label, "task", "plip", 4, runs)


def with_results(label: str, *results: Mapping[str, float]) -> Setting:
    """A setting of one seed whose folds have these numbers of FoldResult."""
    bare = accuracies({1: [5] * len(results)})[1]
    folds = {number: replace(bare[number], result=replace(RESULT, **numbers)) for number, numbers in enumerate(results)}
    return setting(label, {1: folds})


def accuracies(shares: dict[int, list[int]]) -> dict[int, dict[int, Fold]]:
    """By seed, the number of the ten slides that are right in each fold."""
    return {
        seed: {number: fold([index < right for index in range(10)]) for number, right in enumerate(rights)}
        for seed, rights in shares.items()
    }
