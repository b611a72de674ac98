"""Balanced accuracy, recall, AUPRC, log loss and calibration against loops, and metrics of patients by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import classification_metrics
from training.more_metrics import more_metrics, patient_metrics, pooled_by_patient

NAMES = ["A", "B", "C"]


def some(num_slides: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, num_classes, num_slides), generator.dirichlet(np.ones(num_classes), num_slides)


def average_precision(hits: list[bool], scores: list[float]) -> float:
    """The mean, over the hits, of the precision at each hit's score."""
    precisions = []
    for hit, score in zip(hits, scores, strict=True):
        if hit:
            above = [other for other, value in zip(hits, scores, strict=True) if value >= score]
            precisions.append(sum(above) / len(above))
    return sum(precisions) / len(precisions)


@given(st.integers(1, 30), st.integers(2, 3), st.integers(0, 10**6))
def test_against_loops(num_slides: int, num_classes: int, seed: int) -> None:
    labels, probabilities = some(num_slides, num_classes, seed)
    found = more_metrics(labels, probabilities, NAMES[:num_classes])
    predicted = probabilities.argmax(1)
    recalls = {}
    for k in range(num_classes):
        rows = [row for row in range(num_slides) if labels[row] == k]
        if rows:
            recalls[k] = sum(predicted[row] == k for row in rows) / len(rows)
        expected = recalls.get(k, math.nan)
        assert found[f"recall_{NAMES[k]}"] == pytest.approx(expected, nan_ok=True)
    assert found["balanced_acc"] == pytest.approx(sum(recalls.values()) / len(recalls))
    losses = [-math.log(probabilities[row, labels[row]]) for row in range(num_slides)]
    assert found["log_loss"] == pytest.approx(sum(losses) / num_slides)
    areas = [
        average_precision((labels == k).tolist(), probabilities[:, k].tolist())
        for k in ([1] if num_classes == 2 else sorted(recalls))
        if len(recalls) > 1
    ]
    assert found["auprc"] == pytest.approx(sum(areas) / len(areas) if areas else math.nan, nan_ok=True)
    assert list(found) == ["balanced_acc", "auprc", "log_loss", "ece", *(f"recall_{n}" for n in NAMES[:num_classes])]


def test_no_slides() -> None:
    found = more_metrics(np.zeros(0, dtype=int), np.zeros((0, 3)), NAMES)
    assert len(found) == 7 and all(math.isnan(value) for value in found.values())


LABELS = np.array([0, 0, 1, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6]])
PATIENTS = ["p", "p", "q", "q", "r"]


def test_patients_by_hand() -> None:
    """p: mean (0.6, 0.4), largest (0.9, 0.7) / 1.6; q: mean (0.4, 0.6), largest (0.6, 0.8) / 1.4."""
    names, labels, mean = pooled_by_patient(LABELS, PROBABILITIES, PATIENTS)
    assert (names, labels.tolist()) == (["p", "q", "r"], [0, 1, 1])
    np.testing.assert_allclose(mean, [[0.6, 0.4], [0.4, 0.6], [0.4, 0.6]])
    _, _, largest = pooled_by_patient(LABELS, PROBABILITIES, PATIENTS, "max")
    np.testing.assert_allclose(largest, [[0.9 / 1.6, 0.7 / 1.6], [0.6 / 1.4, 0.8 / 1.4], [0.4, 0.6]])
    by_slide = classification_metrics(LABELS, PROBABILITIES)
    by_patient = patient_metrics(LABELS, PROBABILITIES, PATIENTS, ["A", "B"], "mean")
    assert by_slide.acc == pytest.approx(3 / 5) and by_slide.auc == pytest.approx(4 / 6)
    assert by_patient["acc"] == by_patient["auc"] == by_patient["recall_A"] == 1
    assert by_patient["log_loss"] == pytest.approx(-math.log(0.6))


def test_a_patient_with_two_labels_counts_for_each() -> None:
    names, labels, pooled = pooled_by_patient(np.array([0, 1, 0]), PROBABILITIES[:3], ["p", "p", "p"])
    assert (names, labels.tolist()) == (["p", "p"], [0, 1])
    np.testing.assert_allclose(pooled, [[0.75, 0.25], [0.3, 0.7]])


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_patients_of_one_slide_are_their_slides(pooling: str) -> None:
    labels, probabilities = some(12, 3, 0)
    _, found, pooled = pooled_by_patient(labels, probabilities, [*map(str, range(12))], pooling)
    assert found.tolist() == labels.tolist()
    np.testing.assert_allclose(pooled, probabilities)
