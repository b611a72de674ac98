"""How far predicted probabilities can be trusted: calibration bins, expected calibration error, Brier score."""

from typing import NamedTuple

import numpy as np


class CalibrationBins(NamedTuple):
    """Slides binned by confidence, the probability of the predicted class, in B bins of equal width over (0, 1]; an
    upper edge belongs to its bin. Of an empty bin, confidence and accuracy are NaN."""

    edges: np.ndarray
    """(B + 1,)"""
    counts: np.ndarray
    """(B,) slides"""
    confidence: np.ndarray
    """(B,) mean confidence"""
    accuracy: np.ndarray
    """(B,) share predicted as labelled"""


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> CalibrationBins:
    """labels (N,) class indices, probabilities (N, K); the bins of Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017."""
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    index = np.searchsorted(edges[1:-1], confidence)  # the first edge not below the confidence
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, bins) / counts
        accuracy = np.bincount(index, correct, bins) / counts
    return CalibrationBins(edges, counts, mean_confidence, accuracy)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean over slides of their bin's |accuracy - confidence|, from 0 to 1 (Guo et al. 2017, equation 5). NaN without
    slides."""
    binned = calibration_bins(labels, probabilities, bins)
    filled = binned.counts > 0
    if not filled.any():
        return float("nan")
    return float(np.average(np.abs(binned.accuracy - binned.confidence)[filled], weights=binned.counts[filled]))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over slides of the squared distance between probabilities and label, summed over the classes: from 0 to 2
    (Brier 1950). NaN without slides."""
    if not len(labels):
        return float("nan")
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean())
