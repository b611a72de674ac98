"""What a difference between two models can bear: bootstrap by patient, McNemar, corrected resampled t, Holm."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
ROUNDING = 12  # decimals


class Interval(NamedTuple):
    """Of a difference: percentile interval, two-sided p value, and the resamples that were of use."""

    low: float
    high: float
    p: float
    resamples: int


class McNemar(NamedTuple):
    """Slides that only the first model has right, those that only the second has, and the exact two-sided p value."""

    only_first: int
    only_second: int
    p: float


class CorrectedT(NamedTuple):
    t: float
    p: float
    folds: int


def patient_weights(num_patients: int, resamples: int, seed: int) -> np.ndarray:
    """How often each patient is drawn in each resample: (B, P) int64, every row sums to P."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_patients, np.full(num_patients, 1 / num_patients), size=resamples)


def weighted_metrics(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The metrics of ``training.metrics`` for B weightings of the slides at once: (B, 3), in the order of
    ``CLASSIFICATION``.

    labels (N,) class indices; probabilities (N, K); weights (B, N), how often each slide counts. As there, the classes
    that have slides in a row count alone: the AUC is NaN in rows with fewer than two, all three are where no slide is
    left.
    """
    num_classes = probabilities.shape[1]
    weights = weights.astype(np.float64)
    prediction = probabilities.argmax(1)
    present = np.array([weights @ (labels == k) for k in range(num_classes)]) > 0  # (K, B)
    number = np.maximum(present.sum(0), 1)
    auc, f1 = np.zeros(len(weights)), np.zeros(len(weights))
    counted = [1] if num_classes == 2 else range(num_classes)
    for k in range(num_classes):
        is_class = labels == k
        hits = weights @ (is_class & (prediction == k))
        either = weights @ is_class + weights @ (prediction == k)
        f1 += np.divide(2 * hits, either, out=np.zeros_like(hits), where=present[k]) / number
        if k in counted:
            auc += np.where(present[k], _weighted_auc(is_class, probabilities[:, k], weights), 0)
    total = weights.sum(1)
    with np.errstate(invalid="ignore"):
        auc /= number if num_classes > 2 else 1
        acc = weights @ (labels == prediction) / total
    auc[present.sum(0) < 2] = np.nan
    f1[total == 0] = np.nan
    return np.stack([auc, f1, acc], axis=1)


def _weighted_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of (positive, negative) pairs in the right order, ties counting one half: (B,). NaN where there is no
    pair."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan))  # of runs of equal scores
    positives, negatives = (
        np.add.reduceat(weights[:, order] * chosen[order], starts, axis=1) for chosen in (positive, ~positive)
    )
    below = negatives.cumsum(1) - negatives / 2
    with np.errstate(invalid="ignore"):
        share: np.ndarray = (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))
    return share


def bootstrap_interval(resampled: np.ndarray) -> Interval:
    """Of a statistic's differences in B resamples (B,), NaN where one is not defined: those are left out.

    Efron and Tibshirani 1993, section 13.3; the p value is that of the test which the interval inverts: twice the
    smaller share of resamples on one side of zero, (count + 1) / (B + 1). All NaN without resamples.
    """
    known = np.round(resampled[~np.isnan(resampled)], ROUNDING)  # what is zero but for rounding counts as zero
    if not len(known):
        return Interval(np.nan, np.nan, np.nan, 0)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    side = min((known <= 0).sum(), (known >= 0).sum())
    return Interval(float(low), float(high), float(min(1.0, 2 * (side + 1) / (len(known) + 1))), len(known))


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """The exact test (McNemar 1947, binomial) of two models on the same slides, each once: (N,) bool, was it right."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    p = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p)


def corrected_t(differences: Sequence[float] | np.ndarray, test_to_train: float) -> CorrectedT:
    """The corrected resampled t test over J folds (Nadeau and Bengio 2003): t = mean / sqrt((1/J + n2/n1) variance),
    J - 1 degrees of freedom. test_to_train: n2/n1, test slides by training slides. NaN for fewer than two folds, or
    where all differences are equal."""
    values = np.asarray(differences, dtype=np.float64)
    num_folds = len(values)
    if num_folds < 2 or np.ptp(values) < 10.0**-ROUNDING:
        return CorrectedT(np.nan, np.nan, num_folds)
    t = values.mean() / np.sqrt((1 / num_folds + test_to_train) * values.var(ddof=1))
    return CorrectedT(float(t), float(2 * stats.t.sf(abs(t), num_folds - 1)), num_folds)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number (Holm 1979), in the same order; NaN stays and does not count."""
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    order = [index for index in np.argsort(values, kind="stable") if not np.isnan(values[index])]
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[index]))
        corrected[index] = highest
    return corrected.tolist()
