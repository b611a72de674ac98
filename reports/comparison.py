"""Two settings on the same test slides, fold by fold: what differs, and what the difference can bear."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.finished_runs import FinishedFold
from reports.settings import Setting
from reports.significance import (
    CorrectedT,
    Interval,
    McNemar,
    bootstrap_interval,
    corrected_t,
    holm,
    mcnemar,
    patient_weights,
    weighted_metrics,
)
from training.metrics import AUC, CLASSIFICATION, Measure
from utils.words import listed

SIGNIFICANT = 0.05

FoldKey = tuple[int, int]
"""Seed and fold."""


@dataclass(frozen=True)
class Comparison:
    """``first`` against ``second``: differences are the first's values less the second's, as shares of 1.

    differences, intervals, tests: by the key of the measure, over the folds that both have finished. ratio: test
    slides by training slides.
    """

    first: Setting
    second: Setting
    num_folds: int
    num_slides: int
    num_patients: int
    differences: dict[str, float]
    intervals: dict[str, Interval]
    tests: dict[str, CorrectedT]
    ratio: float
    mcnemar: McNemar

    def p_values(self) -> dict[str, float]:
        return {
            **{f"{name}_bootstrap": interval.p for name, interval in self.intervals.items()},
            **{f"{name}_corrected_t": test.p for name, test in self.tests.items()},
            "mcnemar": self.mcnemar.p,
        }


def why_not_comparable(first: Setting, second: Setting) -> str | None:
    """What keeps two settings from being compared: other classes, no fold in common, or other test slides in one."""
    if first.class_names != second.class_names:
        return f"other classes ({listed(second.class_names)})"
    shared = sorted(set(first.folds) & set(second.folds))
    if not shared:
        return "no finished fold with the same seed"
    for seed, number in shared:
        one, other = (_labels(setting.folds[seed, number]) for setting in (first, second))
        if one != other:
            differing = dict(one.items() ^ other.items())
            return f"other test slides or labels in fold {number} ({len(differing)} differ)"
    return None


def other_test_slides(settings: Sequence[Setting]) -> list[str]:
    """The labels of those complete settings that were not tested on the slides of the first one, fold by fold."""
    tested = {
        setting.label: (
            setting.class_names,
            {(number, frozenset(_labels(fold).items())) for (_, number), fold in setting.folds.items()},
        )
        for setting in settings
        if setting.is_complete
    }
    first = next(iter(tested.values()), None)
    return [label for label, slides in tested.items() if slides != first]


def compare(
    first: Setting,
    second: Setting,
    patients: Mapping[str, str],
    training: Mapping[FoldKey, frozenset[str]],
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two settings for which ``why_not_comparable`` finds nothing, over the folds that both have finished.

    patients: of each test slide; training: the training slides of each of the first's folds. Intervals: patients are
    drawn with replacement, all their slides in all folds with them; the statistic is the mean over folds of the
    difference. McNemar: each slide once, by the mean of its probabilities over the folds that tested it. Corrected t:
    seeds that share training and test slides are repeats of one fold, and are averaged first.
    """
    keys = sorted(set(first.folds) & set(second.folds))
    pairs = [(first.folds[key], _reordered(second.folds[key], first.folds[key].slide_ids)) for key in keys]
    names = sorted({patients[slide_id] for fold, _ in pairs for slide_id in fold.slide_ids})
    drawn = patient_weights(len(names), resamples, seed)
    drawn = np.concatenate([np.ones((1, len(names)), dtype=np.int64), drawn])  # the first row: the test set as it is
    by_fold = _differences(pairs, {name: index for index, name in enumerate(names)}, patients, drawn)
    differences = np.mean(by_fold, axis=0)

    repeats: dict[Any, list[np.ndarray]] = {}
    sizes = []
    for key, (fold, _), values in zip(keys, pairs, by_fold, strict=True):
        repeats.setdefault((training[key], frozenset(fold.slide_ids)), []).append(values[0])
        sizes.append(len(fold.slide_ids) / len(training[key]))
    by_split = np.array([np.mean(values, axis=0) for values in repeats.values()])  # (J, 3)
    ratio = float(np.mean(sizes))

    labels, means = _slide_means([one for one, _ in pairs])
    _, other_means = _slide_means([other for _, other in pairs])
    columns = {measure.key: index for index, measure in enumerate(CLASSIFICATION)}
    return Comparison(
        first,
        second,
        num_folds=len(keys),
        num_slides=len(labels),
        num_patients=len(names),
        differences={name: float(differences[0, i]) for name, i in columns.items()},
        intervals={name: bootstrap_interval(differences[1:, i]) for name, i in columns.items()},
        tests={name: corrected_t(by_split[:, i], ratio) for name, i in columns.items()},
        ratio=ratio,
        mcnemar=mcnemar(means.argmax(1) == labels, other_means.argmax(1) == labels),
    )


def _differences(
    pairs: Sequence[tuple[FinishedFold, FinishedFold]],
    place: Mapping[str, int],
    patients: Mapping[str, str],
    drawn: np.ndarray,
) -> list[np.ndarray]:
    """First less second in each pair of folds: (B, 3) each, in the order of ``CLASSIFICATION``.

    place: column of a patient in ``drawn`` (B, P), which says how often each resample counts the patient.
    """
    found = []
    for one, other in pairs:
        weights = drawn[:, [place[patients[slide_id]] for slide_id in one.slide_ids]]
        values = [weighted_metrics(fold.labels, fold.probabilities, weights) for fold in (one, other)]
        found.append(values[0] - values[1])
    return found


def holm_corrected(comparisons: Sequence[Comparison]) -> list[dict[str, float]]:
    """Each comparison's p values, corrected over all comparisons test by test."""
    found = [comparison.p_values() for comparison in comparisons]
    corrected = {name: holm([values[name] for values in found]) for name in found[0]} if found else {}
    return [{name: values[index] for name, values in corrected.items()} for index in range(len(found))]


def sentence(comparison: Comparison, corrected: Mapping[str, float], number: int, measure: Measure = AUC) -> str:
    """What the difference in a measure can bear. corrected: the Holm-corrected p values; number: of comparisons."""
    first, second, metric = comparison.first.label, comparison.second.label, measure.key
    points, interval = 100 * comparison.differences[metric], comparison.intervals[metric]
    patients = f"{comparison.num_patients} test patients"
    if np.isnan(points):
        return (
            f"The {measure.title} of {first} and {second} cannot be compared: a test set has slides of one class alone."
        )
    size = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'} than"
    found = (
        f"The {measure.title} of {first} is {size if abs(points) >= 0.05 else 'within 0.1 points of'} that of {second}"
    )
    if np.isnan(interval.p):
        return f"{found}; {patients} are too few for an interval."
    found += f" (95 % interval {100 * interval.low:.1f} to {100 * interval.high:.1f}, {_p_text(interval.p)})"
    if interval.p >= SIGNIFICANT:
        return f"{found}: {patients} cannot tell the two apart."
    if corrected[f"{metric}_bootstrap"] >= SIGNIFICANT:
        return f"{found}: {patients} tell the two apart, but not after Holm's correction for {number} comparisons."
    found += f": {patients} tell the two apart" + (
        f", also with Holm's correction for {number} comparisons" if number > 1 else ""
    )
    p, folds = corrected[f"{metric}_corrected_t"], comparison.tests[metric].folds
    if p < SIGNIFICANT:
        return f"{found}, and so do {folds} draws of the training slides (corrected t: {_p_text(p)})."
    beyond = "not defined" if np.isnan(p) else _p_text(p)
    return f"{found}; {folds} draws of the training slides do not show it (corrected t: {beyond})."


def p_number(p: float) -> str:
    """Two digits, or < 0.001"""
    return "< 0.001" if p < 0.001 else f"{float(f'{p:.2g}'):g}"


def _p_text(p: float) -> str:
    """p < 0.001 or p = 0.24"""
    return f"p {p_number(p)}" if p < 0.001 else f"p = {p_number(p)}"


def _slide_means(folds: Sequence[FinishedFold]) -> tuple[np.ndarray, np.ndarray]:
    """Each test slide once, in the order of the names: labels (N,), and the means (N, K) of its probabilities over the
    folds that tested it."""
    labels: dict[str, int] = {}
    probabilities: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        for slide_id, label, row in zip(fold.slide_ids, fold.labels, fold.probabilities, strict=True):
            labels[slide_id] = label
            probabilities.setdefault(slide_id, []).append(row)
    names = sorted(labels)
    return np.array([labels[name] for name in names]), np.array([np.mean(probabilities[name], 0) for name in names])


def _labels(fold: FinishedFold) -> dict[str, int]:
    return dict(zip(fold.slide_ids, fold.labels.tolist(), strict=True))


def _reordered(fold: FinishedFold, slide_ids: Sequence[str]) -> FinishedFold:
    """The fold with its test slides alone, in the order given."""
    tested = fold.tested.set_index("slide_id").loc[list(slide_ids)].reset_index()
    return FinishedFold(fold.result, tested)
