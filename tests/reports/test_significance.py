"""Statistics against scikit-learn on repeated slides, loops over resamples, statsmodels, and formulas of the papers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from reports.significance import (
    bootstrap_interval,
    corrected_t,
    holm,
    mcnemar,
    patient_weights,
    weighted_metrics,
)
from training.metrics import classification_metrics


def random_slides(seed: int, num_classes: int, num: int = 30, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(num) % num_classes)
    probabilities = generator.dirichlet(np.ones(num_classes), num) + 0.3 * np.eye(num_classes)[labels]
    probabilities /= probabilities.sum(1, keepdims=True)
    return labels, probabilities[generator.integers(6, size=num)] if tied else probabilities


# ---- metrics of resamples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_weighted_metrics_are_those_of_slides_repeated_as_often(num_classes: int, tied: bool) -> None:
    labels, probabilities = random_slides(num_classes, num_classes, tied=tied)
    weights = np.random.default_rng(1).integers(0, 4, size=(40, len(labels)))
    found = weighted_metrics(labels, probabilities, weights)
    assert found.shape == (40, 3)
    for row, repeats in zip(found, weights, strict=True):
        y, scores = np.repeat(labels, repeats), np.repeat(probabilities, repeats, axis=0)
        if num_classes == 2:
            auc = roc_auc_score(y, scores[:, 1])
        else:
            auc = roc_auc_score(y, scores, multi_class="ovr", average="macro")
        f1 = f1_score(y, scores.argmax(1), labels=range(num_classes), average="macro", zero_division=0)
        np.testing.assert_allclose(row, [auc, f1, accuracy_score(y, scores.argmax(1))], atol=1e-12)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_weights_of_one_give_the_metrics_of_the_project(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(2, 4))
    num = data.draw(st.integers(1, 12))
    labels = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=num, max_size=num)))
    scores = st.lists(st.integers(0, 3), min_size=num_classes, max_size=num_classes)
    probabilities = np.array(data.draw(st.lists(scores, min_size=num, max_size=num)), dtype=float) / 7
    found = weighted_metrics(labels, probabilities, np.ones((1, num), dtype=int))[0]
    np.testing.assert_allclose(found, classification_metrics(labels, probabilities), atol=1e-12)


@pytest.mark.parametrize(("num_classes", "absent"), [(2, [1]), (2, [0]), (3, [1]), (3, [0, 1]), (5, [2, 4])])
def test_a_resample_without_a_class_has_the_metrics_of_the_others(num_classes: int, absent: list[int]) -> None:
    labels, probabilities = random_slides(0, num_classes)
    kept = ~np.isin(labels, absent)
    weights = np.array([kept.astype(int), np.zeros(30, dtype=int), np.ones(30, dtype=int)])
    found = weighted_metrics(labels, probabilities, weights)
    one_is_left = num_classes - len(absent) == 1
    assert np.isnan(found).tolist() == [[one_is_left, False, False], [True, True, True], [False, False, False]]
    y, scores = labels[kept], probabilities[kept]
    present = sorted(set(y))
    if not one_is_left:
        aucs = [roc_auc_score(y == k, scores[:, k]) for k in present]
        assert found[0, 0] == pytest.approx(np.mean(aucs))
    assert found[0, 1] == pytest.approx(f1_score(y, scores.argmax(1), labels=present, average="macro"))
    assert found[0, 2] == pytest.approx(accuracy_score(y, scores.argmax(1)))


def test_patients_are_drawn_with_replacement() -> None:
    weights = patient_weights(7, 4000, seed=3)
    assert weights.shape == (4000, 7)
    assert (weights.sum(1) == 7).all()
    # a patient's count is binomial(7, 1/7): left out in (6/7)^7 of the resamples
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)
    assert (weights == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.01)
    np.testing.assert_array_equal(weights, patient_weights(7, 4000, seed=3))
    assert (weights != patient_weights(7, 4000, seed=4)).any()


# ---- interval --------------------------------------------------------------------------------------------------------


def test_interval_and_p_value_by_hand() -> None:
    resampled = np.arange(-5, 95) / 100  # 100 values, of which -0.05 to 0 are 6
    interval = bootstrap_interval(np.random.default_rng(0).permutation(resampled))
    # positions 0.025 * 99 and 0.975 * 99 of the sorted values, between neighbours
    assert interval.low == pytest.approx(-0.05 + 0.02475)
    assert interval.high == pytest.approx(-0.05 + 0.96525)
    assert interval.p == pytest.approx(2 * 7 / 101)
    assert interval.resamples == 100
    turned = bootstrap_interval(-resampled)
    assert (turned.low, turned.high, turned.p) == pytest.approx((-interval.high, -interval.low, interval.p))


def test_no_difference_has_p_1_and_undefined_resamples_are_left_out() -> None:
    assert bootstrap_interval(np.zeros(50)) == (0, 0, 1, 50)
    assert bootstrap_interval(np.array([1e-17, -1e-17, 1e-17])).p == 1, "rounding is no difference"
    kept = bootstrap_interval(np.array([0.1, np.nan, 0.2, np.nan, 0.3]))
    assert kept == pytest.approx(bootstrap_interval(np.array([0.1, 0.2, 0.3])))
    assert kept.resamples == 3
    nothing = bootstrap_interval(np.full(4, np.nan))
    assert nothing.resamples == 0
    assert all(math.isnan(value) for value in nothing[:3])


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    """Two models right on 0.8 and 0.7 of the slides; 50 patients of two slides, which are right or wrong together."""
    generator = np.random.default_rng(5)
    covered, rejected, trials = 0, 0, 300
    for trial in range(trials):
        right = generator.random((2, 50)) < np.array([[0.8], [0.7]])
        weights = patient_weights(50, 400, seed=trial)
        resampled = weights @ (right[0].astype(float) - right[1]) / 50
        interval = bootstrap_interval(resampled)
        covered += interval.low <= 0.1 <= interval.high
        rejected += (interval.p < 0.05) != (interval.low > 0 or interval.high < 0)
    assert 0.90 <= covered / trials <= 0.98
    assert rejected / trials < 0.03, "the p value is that of the test which the interval inverts"


# ---- tests -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
@settings(max_examples=60, deadline=None)
def test_mcnemar_against_statsmodels(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    found = mcnemar(first, second)
    table = [[sum(first & second), sum(first & ~second)], [sum(~first & second), sum(~first & ~second)]]
    assert (found.only_first, found.only_second) == (table[0][1], table[1][0])
    expected = statsmodels_mcnemar(table, exact=True).pvalue if found.only_first + found.only_second else 1
    assert found.p == pytest.approx(min(expected, 1))


def test_mcnemar_by_hand() -> None:
    first = np.array([True] * 8 + [False])
    second = np.array([False] * 8 + [True])
    assert mcnemar(first, second) == (8, 1, pytest.approx(2 * (1 + 9) / 2**9))


def test_corrected_t_is_the_t_test_without_the_correction() -> None:
    differences = np.random.default_rng(2).normal(0.02, 0.03, 10)
    t, p, folds = corrected_t(differences, 0)
    assert (t, p) == pytest.approx(tuple(stats.ttest_1samp(differences, 0)))
    assert folds == 10


@pytest.mark.parametrize("ratio", [1 / 9, 0.5, 6.0])
def test_corrected_t_by_the_formula_of_the_paper(ratio: float) -> None:
    """Nadeau and Bengio 2003: sum over d in place of numpy's variance, the p value from scipy's distribution."""
    d = [0.031, -0.012, 0.044, 0.007, 0.025]
    mean = sum(d) / 5
    variance = sum((value - mean) ** 2 for value in d) / 4
    expected = mean / math.sqrt((1 / 5 + ratio) * variance)
    t, p, _ = corrected_t(d, ratio)
    assert t == pytest.approx(expected)
    assert p == pytest.approx(2 * (1 - stats.t(df=4).cdf(expected)))
    assert corrected_t([-value for value in d], ratio)[:2] == pytest.approx((-t, p))


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, 0.1, 0.1], [0.8 - 0.7, 0.9 - 0.8]])
def test_corrected_t_needs_two_folds_that_differ(differences: list[float]) -> None:
    found = corrected_t(differences, 0.5)
    assert math.isnan(found.t)
    assert math.isnan(found.p)
    assert found.folds == len(differences)


def test_corrected_t_keeps_its_level_over_resampled_training_sets() -> None:
    """Folds drawn from one small pool of slides, two models that are equally good: the plain t test rejects far too
    often, the corrected one does not."""
    generator = np.random.default_rng(11)
    plain, corrected, trials = 0, 0, 400
    for _ in range(trials):
        pool = generator.normal(size=100)  # difference in the models' loss on each slide
        folds = [generator.permutation(100) for _ in range(15)]
        differences = [pool[order[50:]].mean() for order in folds]
        plain += stats.ttest_1samp(differences, 0).pvalue < 0.05
        corrected += corrected_t(differences, 50 / 50).p < 0.05
    assert plain / trials > 0.3
    assert corrected / trials < 0.08


@pytest.mark.parametrize("number", [1, 2, 5, 12])
@pytest.mark.parametrize("highest", [0.01, 0.1, 1])
def test_holm_against_statsmodels(number: int, highest: float) -> None:
    p_values = np.random.default_rng(number).random(number).round(2) * highest  # some are equal
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


def test_holm_leaves_undefined_values_out() -> None:
    assert holm([0.02, math.nan, 0.03]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)
    assert holm([]) == []
