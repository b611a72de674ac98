"""Mean cosines of texts, against plain loops over scikit-learn's cosines."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor
from torch.nn.functional import normalize

from models.class_separation import COLUMNS, alike_pairs, class_separation, encode_texts
from models.tiny_clip import save_tiny_clip
from models.vlms import load_text_side

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


def random_texts(num_classes: int, num_low: int, num_subtexts: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(num_classes, num_low, 5, generator=generator)
    high = torch.randn(num_classes, num_low, num_subtexts, 5, generator=generator)
    return normalize(low, dim=-1), normalize(high, dim=-1)


def by_loops(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The table of means, each pair of texts looked at by itself."""
    num_classes, num_low, num_subtexts, _ = high.shape
    texts = [(k, "low", o, low[k, o]) for k in range(num_classes) for o in range(num_low)]
    texts += [
        (k, "high", o, high[k, o, s]) for k in range(num_classes) for o in range(num_low) for s in range(num_subtexts)
    ]
    cosines = cosine_similarity(np.stack([vector for *_, vector in texts]))
    found: dict[tuple[int, tuple[str, str]], list[float]] = {}
    for i, (k, scale, parent, _) in enumerate(texts):
        for j, (other_k, other_scale, other_parent, _) in enumerate(texts):
            if i == j or (scale, other_scale) == ("high", "low"):
                continue
            title = scale if scale == other_scale else "low with high"
            if k != other_k:
                kind = "between"
            elif scale == other_scale:
                kind = "within"
            else:
                kind = "own" if parent == other_parent else "same class"
            for row in (k, num_classes):
                found.setdefault((row, (title, kind)), []).append(cosines[i, j])
    rows = range(num_classes + 1)
    return np.array([[np.mean(found.get((row, column), [np.nan])) for column in COLUMNS] for row in rows])


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_the_table_is_that_of_the_loops(sizes: tuple[int, int, int], seed: int) -> None:
    low, high = random_texts(*sizes, seed)
    table = class_separation(low, high)
    assert table.shape == (sizes[0] + 1, len(COLUMNS))
    np.testing.assert_allclose(table, by_loops(low.numpy(), high.numpy()), rtol=0, atol=1e-5)


def test_texts_of_one_direction_a_class_separate_fully() -> None:
    low = torch.eye(3)[:, None].expand(3, 2, 3)
    table = class_separation(low, low[:, :, None].expand(3, 2, 2, 3))
    expected = [float(kind != "between") for _, kind in COLUMNS]
    np.testing.assert_array_equal(table, [expected] * 4)


def test_texts_are_encoded_as_the_clip_itself_does(tmp_path: Path) -> None:
    from open_clip import tokenize
    from transformers import CLIPModel

    save_tiny_clip(tmp_path, width=32)
    texts = ["Nests : small groups of cells", "Mitoses : frequent", "word " * 90]
    features, num_cut = encode_texts(load_text_side("tiny", str(tmp_path)), texts)
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(tmp_path).get_text_features(tokenize(texts))
    expected = getattr(expected, "pooler_output", expected)
    np.testing.assert_allclose(features, normalize(expected, dim=-1), rtol=0, atol=1e-5)
    assert num_cut == 1


@settings(max_examples=40, deadline=None)
@given(
    vectors=arrays(np.float64, (3, 4, 3), elements=st.sampled_from([-1.0, 0.5, 2.0])),
    terms=st.lists(st.sampled_from(["Necrosis", "necrosis", "a", "b", "c", "d"]), min_size=12, max_size=12),
    threshold=st.sampled_from([0.5, 0.8, 0.99]),
)
def test_alike_pairs_are_those_of_the_loops(vectors: np.ndarray, terms: list[str], threshold: float) -> None:
    cosines = cosine_similarity(vectors.reshape(12, 3))
    features = normalize(torch.from_numpy(vectors), dim=-1)
    found = alike_pairs(features, [terms[0:4], terms[4:8], terms[8:12]], threshold)
    expected = {
        ((i // 4, i % 4), (j // 4, j % 4)): cosines[i, j]
        for i in range(12)
        for j in range(i + 1, 12)
        if i // 4 < j // 4 and (cosines[i, j] >= threshold or terms[i].lower() == terms[j].lower())
    }
    assert {(pair.first, pair.second): pytest.approx(pair.cosine) for pair in found} == expected
    assert [pair.cosine for pair in found] == sorted((pair.cosine for pair in found), reverse=True)
