"""The parts of an explanation against loops, scikit-learn and NumPy."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler

from explanation.contributions import Explanation, ScaleExplanation, explain_scale, mean_explanation, row_normalised


def loops(similarity: np.ndarray, is_node: np.ndarray, num_classes: int, weight: float, top_k: int) -> tuple:
    """patch_logits and text_logits of (N, T) similarities, one text after the other."""
    num_texts = similarity.shape[1]
    per_class = num_texts // num_classes
    patches, texts = np.zeros((len(similarity), num_classes)), np.zeros(num_texts)
    for text in range(num_texts):
        nodes = sorted(np.flatnonzero(is_node), key=lambda n: -similarity[n, text])[:top_k]
        for node in nodes:
            part = weight * similarity[node, text] / len(nodes) / per_class
            patches[node, text // per_class] += part
            texts[text] += part
    return patches, texts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(2, 4), st.integers(1, 3), st.integers(1, 5))
def test_logits_are_shared_out_among_patches_and_texts(
    seed: int, num_patches: int, num_classes: int, per_class: int, top_k: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = num_patches, 3, num_classes * per_class
    match, similarity = (torch.rand(shape, generator=generator) * 2 - 1 for _ in range(2))
    kept = torch.rand(shape, generator=generator) < 0.5
    is_patch, is_node = (torch.rand(shape[:2], generator=generator) < share for share in (0.8, 0.6))
    found = explain_scale(match, similarity, kept, is_patch, is_node, num_classes, 4.5, top_k)
    flat = similarity.flatten(0, 1).numpy()
    patches, texts = loops(flat, is_node.flatten().numpy(), num_classes, 4.5, top_k)
    np.testing.assert_allclose(found.patch_logits.reshape(-1, num_classes), patches, atol=1e-5)
    np.testing.assert_allclose(found.text_logits, texts, atol=1e-5)
    for n, c in np.ndindex(*shape[:2]):
        assert np.isnan(found.match[n, c]).all() == (not is_patch[n, c])
        assert np.isnan(found.similarity[n, c]).all() == (not (is_patch[n, c] and is_node[n, c]))
        np.testing.assert_array_equal(found.kept[n, c], kept[n, c].numpy() * bool(is_patch[n, c]))
        if is_patch[n, c]:
            by_hand = [np.mean(match[n, c, k * per_class : (k + 1) * per_class].numpy()) for k in range(num_classes)]
            np.testing.assert_allclose(found.class_scores[n, c], by_hand, atol=1e-6)


def explanation(*values: float) -> Explanation:
    scale = {field.name: np.array(values, dtype=np.float32) for field in fields(ScaleExplanation)}
    array = np.array(values)
    return Explanation(ScaleExplanation(**scale), ScaleExplanation(**scale), array, values[0], array, array)


def test_the_mean_leaves_out_what_a_model_does_not_have() -> None:
    nan = float("nan")
    found = mean_explanation([explanation(nan, 1, nan), explanation(4, 2, nan), explanation(6, 6, nan)])
    assert found.hit_ratio == 5
    for array in (found.logits, found.attention, found.text_attention, found.low.match, found.high.patch_logits):
        np.testing.assert_array_equal(array, [5, 3, nan])


def test_probabilities() -> None:
    logits = np.array([700.0, 701.0, 699.0], dtype=np.float32)
    found = Explanation(*2 * [explanation(1).low], logits, 0.5, logits, logits).probabilities
    np.testing.assert_allclose(found, torch.from_numpy(logits).double().softmax(0).numpy())


@pytest.mark.parametrize("columns", [1, 2, 7])
def test_rows_are_normalised_as_scikit_learn_does(columns: int) -> None:
    similarity = np.random.default_rng(columns).normal(size=(5, columns + 1))
    expected = MinMaxScaler((-1, 1)).fit_transform(similarity.T).T
    np.testing.assert_allclose(row_normalised(similarity), expected, atol=1e-12)


def test_a_row_of_equal_values_becomes_zero() -> None:
    np.testing.assert_array_equal(row_normalised(np.array([[0.3, 0.3], [1.0, 2.0]])), [[0, 0], [-1, 1]])
