"""The removal of patches, watched by a model that only counts."""

import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from explanation.faithfulness import Removal, removal_curve, take_parents
from utils.interface import Bag


def bag_of(num_parents: int) -> Bag:
    numbers = torch.arange(num_parents)
    return Bag(
        "slide",
        numbers.float().unsqueeze(1),
        10.0 * numbers.float().view(-1, 1, 1).expand(-1, 3, 1).clone(),
        (numbers % 2 == 0).unsqueeze(1).expand(-1, 3).clone(),
        low_coords=numbers.unsqueeze(1).expand(-1, 2),
        high_coords=numbers.view(-1, 1, 1).expand(-1, 3, 2),
    )


class Watcher:
    """Says the sum of the parents' values, and keeps which parents it saw."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, bag: Bag) -> float:
        assert bag.low_coords is not None and bag.high_coords is not None
        rows = bag.low_features[:, 0].int().tolist()
        assert bag.high_features[:, 0, 0].tolist() == [10 * row for row in rows]
        assert bag.child_mask[:, 0].tolist() == [row % 2 == 0 for row in rows]
        assert bag.low_coords[:, 0].tolist() == bag.high_coords[:, 0, 0].tolist() == rows
        self.seen.append(rows)
        return float(sum(rows))


def test_the_highest_scores_go_first_and_as_many_at_random() -> None:
    watcher, scores = Watcher(), np.array([0.1, 0.9, 0.5, 0.7, 0.3])
    found = removal_curve(bag_of(5), scores, watcher, draws=2, shares=(0, 0.2, 0.6, 1))
    assert found.numbers.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(found.shares, [0, 0.2, 0.6, 0.8])
    assert watcher.seen[:4] == [[0, 1, 2, 3, 4], [0, 2, 3, 4], [0, 4], [0]]
    assert found.ranked.tolist() == [10, 9, 4, 0]
    random = [watcher.seen[4:7], watcher.seen[7:]]
    for draw, curve in zip(random, found.random, strict=True):
        assert [len(rows) for rows in draw] == [4, 2, 1]
        assert set(draw[2]) < set(draw[1]) < set(draw[0])
        assert curve.tolist() == [10, *(sum(rows) for rows in draw)]
        assert all(rows == sorted(rows) for rows in draw)
    assert random[0] != random[1]
    again = removal_curve(bag_of(5), scores, Watcher(), draws=2, shares=(0, 0.2, 0.6, 1))
    np.testing.assert_array_equal(found.random, again.random)


def test_numbers_are_nearest_to_their_shares() -> None:
    found = removal_curve(bag_of(7), np.arange(7.0), Watcher(), draws=1, shares=(0, 0.02, 0.1, 0.2, 0.5, 0.7))
    assert found.numbers.tolist() == [0, 1, 4, 5]


def test_equal_scores_go_in_the_order_of_the_slide() -> None:
    watcher = Watcher()
    removal_curve(bag_of(4), np.array([1.0, 2.0, 1.0, 1.0]), watcher, draws=1, shares=(0, 0.5))
    assert watcher.seen[1] == [2, 3]


def test_a_slide_of_one_parent_keeps_it() -> None:
    found = removal_curve(bag_of(1), np.array([1.0]), Watcher(), draws=2)
    assert found.numbers.tolist() == [0] and found.random.shape == (2, 1)
    assert found.mean_probabilities() == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_height_is_the_area_over_the_width(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shares = np.array([0, 0.05, 0.3, 0.9])
    ranked, random = generator.random(4), generator.random((5, 4))
    low, high = Removal(np.arange(4), shares, ranked, random).mean_probabilities()
    assert low == pytest.approx(auc(shares, ranked) / 0.9)
    assert high == pytest.approx(np.mean([auc(shares, curve) for curve in random]) / 0.9)


def test_a_bag_without_coordinates() -> None:
    bag = Bag("slide", torch.arange(3.0).unsqueeze(1), torch.zeros(3, 2, 1), torch.ones(3, 2, dtype=torch.bool))
    taken = take_parents(bag, np.array([2, 0]))
    assert taken.low_features.tolist() == [[0], [2]] and taken.low_coords is None
