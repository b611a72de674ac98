"""The order of the training slides."""

from collections import Counter

import pytest
import torch

from tests.support.scripted_training import epoch_of
from training.loop import EpochSampler


def test_every_epoch_is_another_permutation() -> None:
    sampler = EpochSampler([0, 1] * 8, seed=1)
    epochs = [epoch_of(sampler, epoch) for epoch in range(20)]
    assert len(sampler) == 16
    assert all(sorted(order) == list(range(16)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 20


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    labels = [0, 1] * 8
    torch.manual_seed(0)
    first = epoch_of(EpochSampler(labels, seed=1), 7)
    torch.manual_seed(99)
    assert epoch_of(EpochSampler(labels, seed=1), 7) == first
    drawn = {tuple(epoch_of(EpochSampler(labels, seed), epoch)) for seed in range(5) for epoch in range(5)}
    assert len(drawn) == 25


def test_sampling_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    list(EpochSampler([0, 1] * 8, seed=1))
    list(EpochSampler([0, 1] * 8, seed=1, weighted=True))
    assert torch.rand(()) == expected


def test_weighted_sampling_draws_classes_equally_often() -> None:
    labels = [0] * 40 + [1] * 8 + [2] * 2
    sampler = EpochSampler(labels, seed=1, weighted=True)
    epochs = [epoch_of(sampler, epoch) for epoch in range(100)]
    assert all(len(order) == len(labels) for order in epochs)
    counts = Counter(labels[index] for order in epochs for index in order)
    for label in range(3):  # 5000 draws: a standard deviation of 0.007
        assert counts[label] / 5000 == pytest.approx(1 / 3, abs=0.03)
    slides = Counter(index for order in epochs for index in order)
    assert set(slides) == set(range(50))  # every slide has its turn
    assert slides[48] / 5000 == pytest.approx(1 / 6, abs=0.03)  # the two slides of class 2 equally often
    assert len({tuple(order) for order in epochs}) == 100


def test_plain_sampling_keeps_the_classes_as_they_are() -> None:
    labels = [0] * 40 + [1] * 10
    assert Counter(labels[index] for index in EpochSampler(labels, seed=1)) == {0: 40, 1: 10}
