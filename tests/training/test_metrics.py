"""Metrics against scikit-learn's own multi-class functions, hand loops, and the brute-force twin."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tests.support import twins
from training.fold_result import FoldResult
from training.metrics import (
    ACC,
    AUC,
    BRIER,
    CLASSIFICATION,
    HISTORY_COLUMNS,
    RESULT_COLUMNS,
    Metrics,
    classification_metrics,
    hits_at_2,
    missing_classes,
    missing_classes_note,
    undefined_metrics,
)
from utils.interface import Embeddings


def random_case(seed: int, num_classes: int, tied: bool) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) with every class, probabilities (N, K); tied: many slides have the very same probabilities."""
    generator = np.random.default_rng(seed)
    num = int(generator.integers(num_classes + 3, 40))
    labels = np.concatenate([np.arange(num_classes), generator.integers(num_classes, size=num - num_classes)])
    labels = generator.permutation(labels)
    scores = generator.random((num, num_classes)) + 0.4 * np.eye(num_classes)[labels]
    probabilities = scores / scores.sum(1, keepdims=True)
    if tied:
        probabilities = probabilities[generator.integers(5, size=num)]
    return labels, probabilities


def pair_counting_auc(is_positive: np.ndarray, scores: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order, a tie counting one half."""
    wins, pairs = 0.0, 0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if is_positive[i] and not is_positive[j]:
                pairs += 1
                wins += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
    return wins / pairs


def loop_f1_and_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Macro F1 and accuracy by counting; the first of equal probabilities is predicted."""
    predictions = [row.index(max(row)) for row in probabilities.tolist()]
    f1s = []
    for k in range(probabilities.shape[1]):
        hits = misses = false_alarms = 0
        for label, prediction in zip(labels.tolist(), predictions, strict=True):
            hits += label == k and prediction == k
            misses += label == k and prediction != k
            false_alarms += label != k and prediction == k
        f1s.append(2 * hits / (2 * hits + misses + false_alarms) if hits else 0.0)
    correct = sum(label == prediction for label, prediction in zip(labels.tolist(), predictions, strict=True))
    return sum(f1s) / len(f1s), correct / len(labels)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_hand_loops(seed: int, num_classes: int, tied: bool) -> None:
    labels, probabilities = random_case(seed, num_classes, tied)
    metrics = classification_metrics(labels, probabilities)
    columns = [1] if num_classes == 2 else range(num_classes)
    expected_auc = np.mean([pair_counting_auc(labels == k, probabilities[:, k]) for k in columns])
    expected_f1, expected_acc = loop_f1_and_accuracy(labels, probabilities)
    assert metrics.auc == pytest.approx(expected_auc, abs=1e-12)
    assert metrics.f1 == pytest.approx(expected_f1, abs=1e-12)
    assert metrics.acc == pytest.approx(expected_acc, abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_scikit_learn(seed: int, tied: bool) -> None:
    labels, probabilities = random_case(seed, 2, tied)
    assert classification_metrics(labels, probabilities).auc == pytest.approx(
        roc_auc_score(labels, probabilities[:, 1]), abs=1e-12
    )
    for num_classes in (3, 4):
        labels, probabilities = random_case(seed, num_classes, tied)
        expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        assert classification_metrics(labels, probabilities).auc == pytest.approx(expected, abs=1e-12)


def test_binary_auc_is_that_of_class_1() -> None:
    labels = np.array([0, 0, 1, 1])
    rising = np.array([0.1, 0.2, 0.3, 0.4])
    # columns that do not sum to one, so that the AUC of class 0 would be another
    assert classification_metrics(labels, np.stack([rising, rising], axis=1)).auc == 1.0
    assert classification_metrics(labels, np.stack([rising, -rising], axis=1)).auc == 0.0


def test_all_probabilities_equal_give_auc_one_half_and_the_first_class() -> None:
    labels = np.array([0, 1, 2, 2])
    metrics = classification_metrics(labels, np.full((4, 3), 1 / 3))
    assert metrics.auc == 0.5
    assert metrics.acc == 0.25
    assert metrics.f1 == pytest.approx((2 * 1 / (2 + 3)) / 3)


@pytest.mark.parametrize(("num_classes", "absent"), [(3, [2]), (4, [0, 2]), (5, [4]), (30, [0, 7, 29])])
@pytest.mark.parametrize("seed", range(3))
def test_only_classes_with_slides_count(seed: int, num_classes: int, absent: list[int]) -> None:
    """As scikit-learn has it with the labels that are present."""
    labels, probabilities = random_case(seed, num_classes, tied=False)
    kept = ~np.isin(labels, absent)
    labels, probabilities = labels[kept], probabilities[kept]
    probabilities[0] = np.eye(num_classes)[absent[0]]  # a class without slides is predicted
    present = sorted(set(range(num_classes)) - set(absent))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = classification_metrics(labels, probabilities)
    predicted = probabilities.argmax(1)
    aucs = [roc_auc_score(labels == k, probabilities[:, k]) for k in present]
    assert metrics.auc == pytest.approx(np.mean(aucs), abs=1e-12)
    assert metrics.f1 == pytest.approx(f1_score(labels, predicted, labels=present, average="macro"), abs=1e-12)
    assert metrics.acc == accuracy_score(labels, predicted)
    assert undefined_metrics(labels, [str(k) for k in range(num_classes)]) == {}


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_no_auc_and_the_reason_is_told(num_classes: int, only: int) -> None:
    names = ["A", "B b", "C"][:num_classes]
    probabilities = np.eye(num_classes)[[only, only, 1 - only]] * 0.6 + 0.4 / num_classes
    labels = np.full(3, only)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = classification_metrics(labels, probabilities)
    assert math.isnan(metrics.auc) and metrics.f1 == pytest.approx(0.8) and metrics.acc == pytest.approx(2 / 3)
    (reason,) = undefined_metrics(labels, names).values()
    assert f"all 3 labelled slides are of class {names[only]!r}" in reason
    note = missing_classes_note(labels, names)
    assert note and reason in note and all(repr(name) in note for name in names)
    assert missing_classes(labels, names) == [name for name in names if name != names[only]]


def test_without_slides_nothing_is_defined() -> None:
    metrics = classification_metrics(np.zeros(0, dtype=int), np.zeros((0, 3)))
    assert np.isnan(metrics).all()
    assert undefined_metrics(np.zeros(0, dtype=int), ["A", "B"]).keys() == {"auc", "f1", "acc"}


def test_with_all_classes_there_is_nothing_to_tell() -> None:
    labels, names = np.array([0, 1, 2]), ["A", "B", "C"]
    assert missing_classes_note(labels, names) is None and missing_classes(labels, names) == []
    note = missing_classes_note(labels, [*names, *(f"D{k}" for k in range(30))])
    assert note and "30 of 33 classes ('D0', 'D1', 'D2', 'D3', 'D4' and 25 more)" in note


def random_embeddings(seed: int, parents: int, slots: int, low_texts: int, num_subtexts: int) -> Embeddings:
    """Nodes that are not of unit length, about half of the parents retained, about a third of the slots empty."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, 6, generator=generator, dtype=torch.float64) * 3

    retained = (torch.rand(parents, generator=generator) < 0.6).nonzero().squeeze(1)
    mask = torch.rand(len(retained), slots, generator=generator) < 0.65
    return Embeddings(
        normal(parents),
        normal(len(retained), slots),
        normal(low_texts),
        normal(low_texts * num_subtexts),
        retained,
        mask,
    )


def hits(nodes: Embeddings) -> tuple[int, int]:
    """Of a bag whose real children are those of ``nodes``; the children of other parents are real as well."""
    child_mask = torch.ones(len(nodes.low_image), nodes.child_mask.shape[1], dtype=torch.bool)
    child_mask[nodes.retained] = nodes.child_mask
    return hits_at_2(nodes, child_mask)


def twin_hits(nodes: Embeddings) -> tuple[int, int]:
    """The twin sees every parent; one that is not retained has no children in the graph, but vectors all the same."""
    parents, slots = len(nodes.low_image), nodes.child_mask.shape[1]
    high_image = nodes.high_text[0].expand(parents, slots, -1).clone()
    mask = torch.zeros(parents, slots, dtype=torch.bool)
    high_image[nodes.retained], mask[nodes.retained] = nodes.high_image, nodes.child_mask
    num_subtexts = len(nodes.high_text) // len(nodes.low_text)
    return twins.hits_at_2(nodes.low_image, nodes.low_text, high_image, mask, nodes.high_text, num_subtexts)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    parents=st.integers(1, 9),
    slots=st.integers(1, 5),
    low_texts=st.integers(1, 8),
    num_subtexts=st.integers(1, 3),
)
def test_hits_equal_the_twin(seed: int, parents: int, slots: int, low_texts: int, num_subtexts: int) -> None:
    nodes = random_embeddings(seed, parents, slots, low_texts, num_subtexts)
    assert hits(nodes) == twin_hits(nodes)


def small_case(**changes: Any) -> Embeddings:
    """Three low texts along the axes, each its own high text. Parent 1 alone is retained; it and its first child look
    like text 0, its second child like text 2."""
    axes = torch.eye(3)
    nodes = Embeddings(
        low_image=torch.stack([axes[2], axes[0] + 0.1 * axes[1], axes[2]]),
        high_image=torch.stack([axes[0], axes[2]]).unsqueeze(0),
        low_text=axes,
        high_text=axes,
        retained=torch.tensor([1]),
        child_mask=torch.tensor([[True, True]]),
    )
    return nodes._replace(**changes)


def test_hit_ratio_by_hand() -> None:
    assert hits(small_case()) == (1, 3)  # its first child
    second_only = small_case(child_mask=torch.tensor([[False, True]]))
    assert hits(second_only) == (0, 3)  # text 2 is the third best of the parent
    assert hits(small_case(high_image=torch.eye(3)[[1, 2]].unsqueeze(0))) == (1, 3)  # text 1 is its second best


def test_hit_ratio_leaves_out_slots_that_the_graph_takes_for_patches() -> None:
    """As the released variant does: every slot is a node."""
    nodes = small_case(child_mask=torch.tensor([[True, True]]))
    real = torch.tensor([[True, True], [False, True], [True, True]])
    assert hits_at_2(nodes, real) == (0, 3)


def test_hit_ratio_counts_retained_parents_only() -> None:
    # were parent 0 (most like text 2) taken for the retained one, the second child would be a hit
    nodes = small_case(child_mask=torch.tensor([[False, True]]))
    assert hits(nodes) == (0, 3)
    assert hits(nodes._replace(retained=torch.tensor([0]))) == (1, 3)


def test_every_low_patch_counts_also_without_children() -> None:
    axes = torch.eye(3)
    nodes = small_case(
        retained=torch.tensor([0, 1, 2]),
        high_image=torch.stack([axes[[2, 2]], axes[[2, 2]], axes[[2, 2]]]),
        child_mask=torch.tensor([[True, False], [True, True], [False, False]]),
    )
    assert hits(nodes) == (1, 3)  # parent 0 hits, parent 1 does not, parent 2 has no children


def test_no_hits_without_children() -> None:
    assert hits(small_case(child_mask=torch.zeros(1, 2, dtype=torch.bool))) == (0, 3)
    none = small_case(
        retained=torch.zeros(0, dtype=torch.long), high_image=torch.zeros(0, 2, 3), child_mask=torch.zeros(0, 2).bool()
    )
    assert hits(none) == (0, 3)


# ---- the table of metrics --------------------------------------------------------------------------------------------


def test_the_table_names_what_is_measured() -> None:
    assert tuple(measure.key for measure in CLASSIFICATION) == Metrics._fields
    assert set(RESULT_COLUMNS) <= set(FoldResult.__annotations__)
    assert list(RESULT_COLUMNS.values()) == [
        "test AUC", "test F1", "test accuracy", "validation AUC", "validation F1", "validation accuracy",
    ]  # fmt: skip
    assert HISTORY_COLUMNS["train_loss"] == "training loss"


def test_how_a_value_is_printed() -> None:
    assert (AUC.printed(0.98765), BRIER.printed(0.98765)) == ("98.77", "0.9877")
    assert ACC.higher_is_better and not BRIER.higher_is_better
