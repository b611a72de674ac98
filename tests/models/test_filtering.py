"""Filtering of the paper variant against its brute-force twin."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.filtering import TextGuidedFiltering, above_threshold, cosine_similarity
from models.graph import HierarchicalGraph
from tests.support import filtering_twin
from tests.support.random_slide import random_bag, random_texts
from utils.interface import Bag

MODES = ("full", "no_mask_propagation", "high_only", "none")


def filtered_as_masks(bag: Bag, graph: HierarchicalGraph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The graph's edges over all parents, as the twin gives them."""
    num_parents = len(bag.low_features)
    retained = torch.zeros(num_parents, dtype=torch.bool)
    retained[graph.retained] = True
    keep_high = torch.zeros(num_parents, *graph.keep_high.shape[1:], dtype=torch.bool)
    keep_high[graph.retained] = graph.keep_high
    return graph.keep_low, retained, keep_high


def assert_filtered_as_the_twin(bag: Bag, low: torch.Tensor, high: torch.Tensor, alpha: float, mode: str) -> None:
    ours = filtered_as_masks(bag, TextGuidedFiltering(alpha, mode)(bag, low, high))
    arguments = bag.low_features, bag.high_features, bag.child_mask, low, high, len(high) // len(low), alpha, mode
    expected = filtering_twin.tgdf(*arguments)
    for name, mine, theirs in zip(("keep_low", "retained", "keep_high"), ours, expected, strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    num_parents=st.integers(1, 9),
    num_children=st.integers(1, 5),
    missing=st.sampled_from([0.0, 0.4, 1.0]),
    num_subtexts=st.integers(1, 3),
    alpha=st.sampled_from([-0.5, 0.0, 0.5, 1.2]),
)
def test_filtering(
    mode: str, seed: int, num_parents: int, num_children: int, missing: float, num_subtexts: int, alpha: float
) -> None:
    bag = random_bag(seed, num_parents, num_children, missing=missing)
    low, high = random_texts(seed, num_subtexts=num_subtexts)
    assert_filtered_as_the_twin(bag, low, high, alpha, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alpha", [0.5, 50.0])
@pytest.mark.parametrize("num_parents", [1, 6])
def test_filtering_of_identical_patches_and_of_none_that_pass(mode: str, alpha: float, num_parents: int) -> None:
    """Every text keeps its best patches."""
    bag, (low, high) = random_bag(0, num_parents), random_texts(0)
    assert_filtered_as_the_twin(bag, low, high, alpha, mode)
    same = replace(
        bag,
        low_features=bag.low_features[:1].expand(num_parents, -1),
        high_features=bag.high_features[:1, :1].expand(num_parents, 4, -1),
        child_mask=torch.ones(num_parents, 4, dtype=torch.bool),
    )
    assert_filtered_as_the_twin(same, low, high, alpha, mode)
    assert TextGuidedFiltering(alpha, mode)(same, low, high).keep_low.all()


def test_filtering_hand_made() -> None:
    """Cosines 1, 0, 0, 0 with one text: mean 0.25, std 0.5, threshold 0.5. Only the first parent stays."""
    low_features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    high_features = torch.zeros(4, 2, 2)
    high_features[0] = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    high_features[1:, 0, 0] = 1.0  # the texts' best children, of parents that are not retained
    mask = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
    texts = torch.tensor([[5.0, 0.0]])
    graph = TextGuidedFiltering(0.5)(Bag("slide", low_features, high_features, mask), texts, texts)
    assert graph.keep_low.squeeze(1).tolist() == [True, False, False, False]
    assert graph.retained.tolist() == [0]
    assert graph.keep_high.squeeze(-1).tolist() == [[True, False]]


def test_cosines_are_those_of_torch_whatever_the_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(number, 8, generator=generator, dtype=torch.float64) for number in (30, 5))
    images, texts = (
        rows * torch.logspace(-6, 6, len(rows), dtype=torch.float64).unsqueeze(1) for rows in (images, texts)
    )
    expected = torch.nn.functional.cosine_similarity(images.unsqueeze(1), texts, dim=-1, eps=0)
    torch.testing.assert_close(cosine_similarity(images, texts), expected, rtol=0, atol=1e-12)
    assert cosine_similarity(torch.zeros(1, 8, dtype=torch.float64), texts).eq(0).all()


def test_a_column_whose_entries_differ_by_rounding_keeps_all() -> None:
    column = torch.tensor([0.3, 0.3 + 3e-8, 0.3 - 3e-8, 0.3]).unsqueeze(1)
    assert column.unique().numel() > 1 and above_threshold(column, 0.5).all()
    assert above_threshold(torch.tensor([[0.3], [0.3001]]), 0.5).squeeze(1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("alpha", "published"), [(-1.0, 0.1721), (-0.5, 0.3002), (0.0, 0.5123), (0.5, 0.7065), (1.0, 0.8603)]
)
def test_shares_of_filtered_pairs_come_near_the_published_ones(alpha: float, published: float) -> None:
    """Table 15 (QuiltNet, NSCLC, 20x), of made-up features with positive cosines, counted over all pairs."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.ones(64)
    low, high, low_text, high_text = (
        shared + 0.7 * torch.randn(*size, 64, generator=generator) for size in ((300,), (300, 16), (8,), (24,))
    )
    bag = Bag("slide", low, high, torch.ones(300, 16, dtype=torch.bool))
    found = TextGuidedFiltering(alpha)(bag, low_text, high_text).filtered()
    assert float(found[1]) == pytest.approx(published, abs=0.04)
