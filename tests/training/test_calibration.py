"""Calibration against loops over the slides and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from training.calibration import brier_score, calibration_bins, expected_calibration_error


def random_case(seed: int, slides: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, slides), generator.dirichlet(np.ones(classes), slides)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 5), st.integers(1, 20))
def test_bins_and_error_are_those_of_a_loop(seed: int, slides: int, classes: int, bins: int) -> None:
    labels, probabilities = random_case(seed, slides, classes)
    members: dict[int, list[tuple[float, bool]]] = {b: [] for b in range(bins)}
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        confidence = max(row)
        (home,) = [b for b in range(bins) if b / bins < confidence <= (b + 1) / bins]
        members[home].append((confidence, row.index(confidence) == label))
    found = calibration_bins(labels, probabilities, bins)
    error = 0.0
    for b, inside in members.items():
        assert found.counts[b] == len(inside)
        if not inside:
            assert math.isnan(found.confidence[b]) and math.isnan(found.accuracy[b])
            continue
        confidence, accuracy = (sum(column) / len(inside) for column in zip(*inside, strict=True))
        assert found.confidence[b] == pytest.approx(confidence)
        assert found.accuracy[b] == pytest.approx(accuracy)
        error += len(inside) / slides * abs(accuracy - confidence)
    assert expected_calibration_error(labels, probabilities, bins) == pytest.approx(error)


def test_bins_are_those_of_scikit_learn() -> None:
    labels, probabilities = random_case(1, 500)
    accuracy, confidence = calibration_curve(probabilities.argmax(1) == labels, probabilities.max(1), n_bins=15)
    found = calibration_bins(labels, probabilities)
    assert found.edges == pytest.approx([b / 15 for b in range(16)])
    assert found.accuracy[found.counts > 0] == pytest.approx(accuracy)
    assert found.confidence[found.counts > 0] == pytest.approx(confidence)


def test_a_confidence_on_an_edge_is_in_the_lower_bin() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    assert calibration_bins(np.zeros(3, int), probabilities, 4).counts.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_brier_score_is_that_of_scikit_learn(classes: int) -> None:
    labels, probabilities = random_case(classes, classes=classes)
    expected = brier_score_loss(labels, probabilities, labels=range(classes), scale_by_half=False)
    assert brier_score(labels, probabilities) == pytest.approx(expected)


def test_certain_predictions() -> None:
    labels, right = np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert (expected_calibration_error(labels, right), brier_score(labels, right)) == (0, 0)
    assert (expected_calibration_error(labels, 1 - right), brier_score(labels, 1 - right)) == (1, 2)


def test_without_slides_there_is_no_number() -> None:
    nothing = np.zeros(0, int), np.zeros((0, 2))
    assert math.isnan(expected_calibration_error(*nothing)) and math.isnan(brier_score(*nothing))
