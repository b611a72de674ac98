"""Comparisons of made-up settings: seeds that repeat a fold, Holm's correction, and the sentences."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from reports.comparison import (
    Comparison,
    compare,
    holm_corrected,
    other_test_slides,
    p_number,
    sentence,
    why_not_comparable,
)
from reports.finished_runs import FinishedFold
from reports.settings import Setting
from reports.significance import CorrectedT, Interval, McNemar, corrected_t
from tests.support.made_settings import accuracies, fold, setting


@pytest.mark.parametrize("same_training", [True, False])
def test_seeds_with_the_same_slides_are_repeats_of_a_fold(same_training: bool) -> None:
    first = setting("first", accuracies({1: [9, 8, 6], 2: [7, 8, 9]}))
    second = setting("second", accuracies({1: [5, 6, 6], 2: [6, 5, 7], 3: [1, 1, 1]}))
    training = {
        (seed, number): frozenset([f"t{number}", "u", "v", "w" if same_training else f"w{seed}"])
        for seed in (1, 2)
        for number in range(3)
    }
    found = compare(first, second, {f"s{index}": f"p{index}" for index in range(10)}, training, 50, 1)
    assert found.num_folds == 6
    assert (found.num_slides, found.num_patients, found.ratio) == (10, 10, 2.5)
    gaps = np.array([[4, 2, 0], [1, 3, 2]]) / 10
    assert found.differences["acc"] == pytest.approx(gaps.mean())
    expected = corrected_t(gaps.mean(0) if same_training else gaps.ravel(), 2.5)
    assert found.tests["acc"] == pytest.approx(expected)


def test_mcnemar_counts_each_slide_once() -> None:
    """Five folds with the same outcome give the counts of one."""
    one = compare(
        setting("a", accuracies({1: [9]})), setting("b", accuracies({1: [6]})), {f"s{i}": "p" for i in range(10)},
        {(1, 0): frozenset("t")}, 5, 1,
    )  # fmt: skip
    five = compare(
        setting("a", accuracies({1: [9] * 5})), setting("b", accuracies({1: [6] * 5})),
        {f"s{i}": "p" for i in range(10)}, {(1, number): frozenset("t") for number in range(5)}, 5, 1,
    )  # fmt: skip
    assert one.mcnemar == five.mcnemar == (3, 0, pytest.approx(0.25))


def test_slides_of_a_patient_are_drawn_together() -> None:
    """With all slides one patient's, every resample is the test set itself."""
    first, second = setting("a", accuracies({1: [9, 8]})), setting("b", accuracies({1: [6, 6]}))
    training = {(1, number): frozenset("t") for number in range(2)}
    found = compare(first, second, {f"s{index}": "p" for index in range(10)}, training, 30, 1)
    assert found.intervals["acc"][:2] == pytest.approx((0.25, 0.25))
    assert found.num_patients == 1
    pairs = compare(first, second, {f"s{i}": f"p{i // 2}" for i in range(10)}, training, 2000, 1).intervals["acc"]
    alone = compare(first, second, {f"s{i}": f"p{i}" for i in range(10)}, training, 2000, 1).intervals["acc"]
    assert pairs.p > 2 * alone.p, "fewer patients bear less"


def test_the_slides_of_the_second_are_put_in_order() -> None:
    first, second = setting("a", accuracies({1: [10]})), setting("b", accuracies({1: [5]}))
    whole = second.folds[1, 0]
    shuffled = replace(whole, predictions=whole.predictions.sample(frac=1, random_state=0))
    assert shuffled.slide_ids != whole.slide_ids
    arguments = {f"s{i}": f"p{i}" for i in range(10)}, {(1, 0): frozenset("t")}, 40, 1
    expected = compare(first, second, *arguments)
    found = compare(first, setting("b", {1: {0: shuffled}}), *arguments)
    assert (found.intervals, found.mcnemar) == (expected.intervals, expected.mcnemar)


def test_folds_with_other_test_slides_are_no_repeats() -> None:
    """Seeds 1 and 2 share their training slides alone."""
    other = {2: {0: renamed(fold([True] * 3 + [False]), "other")}}
    first = setting("a", {1: {0: fold([True] * 10)}, **other})
    second = setting("b", {1: {0: fold([False] * 10)}, **other})
    patients = {f"{name}{i}": f"{name}{i}" for name in ("s", "other") for i in range(10)}
    training = {(seed, 0): frozenset("uvwx") for seed in (1, 2)}
    found = compare(first, second, patients, training, 5, 1)
    assert found.ratio == pytest.approx((10 / 4 + 4 / 4) / 2)
    assert found.tests["acc"] == pytest.approx(corrected_t([1, 0], 1.75))


# ---- which can be compared -------------------------------------------------------------------------------------------


def renamed(one: FinishedFold, name: str) -> FinishedFold:
    names = [f"{name}{index}" for index in range(len(one.slide_ids))]
    return replace(one, predictions=one.predictions.assign(slide_id=names))


def first_is_b(one: FinishedFold) -> FinishedFold:
    """The fold with another label of its first slide."""
    return replace(one, predictions=one.predictions.assign(label=["B", *one.predictions["label"][1:]]))


WHOLE = accuracies({1: [9, 8]})[1]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (setting("b", {1: WHOLE}), None),
        (setting("b", {1: {0: WHOLE[0]}}), None),
        (setting("b", {2: WHOLE}), "no finished fold with the same seed"),
        (
            setting("b", {1: {0: WHOLE[0], 1: renamed(WHOLE[1], "x")}}),
            "other test slides or labels in fold 1 (20 differ)",
        ),
        (
            setting("b", {1: {0: WHOLE[0], 1: first_is_b(WHOLE[1])}}),
            "other test slides or labels in fold 1 (1 differ)",
        ),
    ],
)
def test_what_keeps_settings_from_being_compared(second: Setting, expected: str | None) -> None:
    assert why_not_comparable(setting("a", {1: WHOLE}), second) == expected


def test_settings_of_other_classes_are_not_compared() -> None:
    first = setting("a", {1: WHOLE})
    record = replace(first.runs[0].record, class_names=["A", "C"])
    second = replace(first, runs=(replace(first.runs[0], record=record),))
    assert why_not_comparable(first, second) == "other classes ('A', 'C')"


def test_test_slides_are_held_against_each_other_fold_by_fold() -> None:
    one, other = WHOLE[0], renamed(WHOLE[1], "x")
    incomplete = setting("incomplete", {1: {0: other}})
    record = replace(incomplete.runs[0].record, options={"seed": 1, "k": 2})
    incomplete = replace(incomplete, runs=(replace(incomplete.runs[0], record=record),))
    settings = [
        incomplete,
        setting("first", {1: {0: one, 1: other}}),
        setting("swapped", {1: {0: other, 1: one}}),
        setting("seeds", {1: {0: one, 1: other}, 2: {0: one, 1: other}}),
    ]
    assert other_test_slides(settings) == ["swapped"]
    assert other_test_slides([incomplete]) == []


# ---- sentences -------------------------------------------------------------------------------------------------------


def made_up(difference: float, interval: Interval, t: CorrectedT) -> Comparison:
    first, second = setting("HiVE-MIL", {1: {}}), setting("ABMIL", {1: {}})
    names = ("auc", "f1", "acc")
    return Comparison(
        first, second, 5, 70, 60, dict.fromkeys(names, difference), dict.fromkeys(names, interval),
        dict.fromkeys(names, t), 2.0, McNemar(3, 1, 0.6),
    )  # fmt: skip


BEGINNING = "The AUC of HiVE-MIL is 1.2 points higher than that of ABMIL (95 % interval "


@pytest.mark.parametrize(
    ("comparison", "corrected", "number", "expected"),
    [
        (
            made_up(0.012, Interval(-0.008, 0.031, 0.24, 99), CorrectedT(1, 0.4, 5)), (0.48, 0.8), 2,
            BEGINNING + "-0.8 to 3.1, p = 0.24): 60 test patients cannot tell the two apart.",
        ),
        (
            made_up(0.012, Interval(0.0, 0.022, 0.05, 99), CorrectedT(1, 0.4, 5)), (0.1, 0.8), 2,
            BEGINNING + "0.0 to 2.2, p = 0.05): 60 test patients cannot tell the two apart.",
        ),
        (
            made_up(0.012, Interval(0.002, 0.022, 0.03, 99), CorrectedT(1, 0.4, 5)), (0.06, 0.8), 2,
            BEGINNING + "0.2 to 2.2, p = 0.03): 60 test patients tell the two apart, but not after Holm's correction "
            "for 2 comparisons.",
        ),
        (
            made_up(0.012, Interval(0.002, 0.022, 0.00049, 99), CorrectedT(1, 0.01, 5)), (0.001, 0.061), 6,
            BEGINNING + "0.2 to 2.2, p < 0.001): 60 test patients tell the two apart, also with Holm's correction for "
            "6 comparisons; 5 draws of the training slides do not show it (corrected t: p = 0.061).",
        ),
        (
            made_up(0.012, Interval(0.002, 0.022, 0.0049, 99), CorrectedT(nan, nan, 1)), (0.0049, nan), 1,
            BEGINNING + "0.2 to 2.2, p = 0.0049): 60 test patients tell the two apart; 1 draws of the training slides "
            "do not show it (corrected t: not defined).",
        ),
        (
            made_up(0.012, Interval(0.002, 0.022, 0.0049, 99), CorrectedT(9, 0.002, 5)), (0.0049, 0.002), 1,
            BEGINNING + "0.2 to 2.2, p = 0.0049): 60 test patients tell the two apart, and so do 5 draws of the "
            "training slides (corrected t: p = 0.002).",
        ),
        (
            made_up(-0.0004, Interval(-0.01, 0.01, 0.9, 99), CorrectedT(1, 0.4, 5)), (1, 0.8), 1,
            "The AUC of HiVE-MIL is within 0.1 points of that of ABMIL (95 % interval -1.0 to 1.0, p = 0.9): 60 test "
            "patients cannot tell the two apart.",
        ),
        (
            made_up(-0.2, Interval(nan, nan, nan, 0), CorrectedT(1, 0.4, 5)), (nan, 0.8), 1,
            "The AUC of HiVE-MIL is 20.0 points lower than that of ABMIL; 60 test patients are too few for an "
            "interval.",
        ),
        (
            made_up(nan, Interval(nan, nan, nan, 0), CorrectedT(nan, nan, 0)), (nan, nan), 1,
            "The AUC of HiVE-MIL and ABMIL cannot be compared: a test set has slides of one class alone.",
        ),
    ],
)  # fmt: skip
def test_sentences(comparison: Comparison, corrected: tuple[float, float], number: int, expected: str) -> None:
    p = dict(zip(("auc_bootstrap", "auc_corrected_t"), corrected, strict=True))
    assert sentence(comparison, p, number) == expected


def test_holm_is_applied_test_by_test() -> None:
    comparisons = [
        made_up(0.1, Interval(0, 1, p, 9), CorrectedT(1, q, 5)) for p, q in ((0.01, 0.5), (0.03, 0.2), (0.02, nan))
    ]
    found = holm_corrected(comparisons)
    assert [one["auc_bootstrap"] for one in found] == pytest.approx([0.03, 0.04, 0.04])
    assert [one["f1_corrected_t"] for one in found] == pytest.approx([0.5, 0.4, nan], nan_ok=True)
    assert [one["mcnemar"] for one in found] == [1, 1, 1]
    assert holm_corrected([]) == []


def test_how_p_values_are_written() -> None:
    assert [p_number(p) for p in (0.0009, 0.001, 0.0449, 0.5, 1)] == ["< 0.001", "0.001", "0.045", "0.5", "1"]
