"""What is kept in memory, what is read again, and that reading ahead changes nothing."""

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import bag_cache
from datasets.bag_cache import BagCache, BagLoader, num_bytes
from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from utils.errors import UserError
from utils.h5 import write_h5
from utils.interface import Bag, BagForm

WIDTH = 8
SLIDES = [Slide(f"s{number}", f"s{number}", number % 2) for number in range(6)]
PLENTY = 10**9


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    """Six slides of ten parents each."""
    folders = FeatureFolders(tmp_path, "task", "plip")
    generator = np.random.default_rng(0)
    for slide in SLIDES:
        low = generator.standard_normal((10, WIDTH)).astype(np.float32)
        high = generator.standard_normal((10, 16, WIDTH)).astype(np.float32)
        write_h5(folders.low_file(slide.slide_id), {"features": low, "coords": np.zeros((10, 2), int)}, {})
        mask = generator.random((10, 16)) < 0.8
        contents = {"features": high, "coords": np.zeros((10, 16, 2), int), "mask": mask}
        write_h5(folders.hierarchical_file(slide.slide_id), contents, {})
    return folders


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each slide was read from disk."""
    counted: Counter[str] = Counter()

    def read(folders: FeatureFolders, slide: Slide, feature_dim: int | None, form: BagForm) -> Bag:
        counted[slide.slide_id] += 1
        return read_bag(folders, slide, feature_dim, form)

    monkeypatch.setattr(bag_cache, "read_bag", read)
    return counted


def assert_same(found: Bag, expected: Bag) -> None:
    assert (found.slide_id, found.label) == (expected.slide_id, expected.label)
    for name in ("low_features", "high_features", "child_mask", "low_coords", "high_coords"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_slide_is_read_once(folders: FeatureFolders, reads: Counter[str], threads: int) -> None:
    cache = BagCache(folders, WIDTH, PLENTY)
    for _ in range(3):
        for found, slide in zip(BagLoader(cache, SLIDES, threads=threads), SLIDES, strict=True):
            assert_same(found, read_bag(folders, slide, WIDTH))
    assert reads == {slide.slide_id: 1 for slide in SLIDES}
    assert cache.size == sum(num_bytes(read_bag(folders, slide, WIDTH)) for slide in SLIDES)


def test_what_was_put_is_not_read(folders: FeatureFolders, reads: Counter[str]) -> None:
    cache = BagCache(folders, WIDTH, PLENTY)
    cache.put(read_bag(folders, SLIDES[0], WIDTH))
    assert_same(cache.get(SLIDES[0]), read_bag(folders, SLIDES[0], WIDTH))
    assert not reads


@pytest.mark.parametrize("room", [0, 1, 2.5, 4])
def test_memory_is_bounded_and_an_epoch_finds_what_fits(
    folders: FeatureFolders, reads: Counter[str], room: float
) -> None:
    one = num_bytes(read_bag(folders, SLIDES[0], WIDTH))
    cache = BagCache(folders, WIDTH, int(room * one))
    for _ in range(4):
        for slide in SLIDES:
            assert_same(cache.get(slide), read_bag(folders, slide, WIDTH))
            assert cache.size <= room * one
    fits = int(room)
    assert sorted(reads.values()) == [1] * fits + [4] * (6 - fits)


def test_preferred_slides_displace_others_and_stay(folders: FeatureFolders, reads: Counter[str]) -> None:
    one = num_bytes(read_bag(folders, SLIDES[0], WIDTH))
    cache = BagCache(folders, WIDTH, 3 * one)
    for slide in SLIDES[:3]:
        cache.get(slide)
    cache.prefer(SLIDES[2:5])
    for _ in range(3):
        for slide in SLIDES[2:]:  # the last is not preferred
            cache.get(slide)
    assert reads == {"s0": 1, "s1": 1, "s2": 1, "s3": 1, "s4": 1, "s5": 3}
    assert cache.size == 3 * one


def test_nothing_is_displaced_in_vain(folders: FeatureFolders) -> None:
    """By a slide that fits in no case, or that is there already."""
    bags = [read_bag(folders, slide, WIDTH) for slide in SLIDES]
    cache = BagCache(folders, WIDTH, 3 * num_bytes(bags[0]))
    for bag in bags[:3]:
        cache.put(bag)
    cache.prefer([SLIDES[0], SLIDES[5]])
    cache.put(bags[0])
    large = replace(bags[5], high_features=bags[5].high_features.repeat(8, 1, 1))
    cache.put(large)
    assert cache.size == 3 * num_bytes(bags[0])
    assert cache.get(SLIDES[1]).high_features is bags[1].high_features


def test_values_too_large_for_half_precision_stay(folders: FeatureFolders) -> None:
    bag = read_bag(folders, SLIDES[0], WIDTH)
    bag.low_features[0, 0] = 70_000
    cache = BagCache(folders, WIDTH, PLENTY, half=True)
    cache.put(bag)
    assert_same(cache.get(SLIDES[0]), bag)


def test_half_precision_takes_half_and_all_readers_get_the_same(folders: FeatureFolders, reads: Counter[str]) -> None:
    kept, unkept = BagCache(folders, WIDTH, PLENTY, half=True), BagCache(folders, WIDTH, 0, half=True)
    exact = read_bag(folders, SLIDES[0], WIDTH)
    for cache in (kept, kept, unkept):
        found = cache.get(SLIDES[0])
        assert found.low_features.dtype == found.high_features.dtype == torch.float32
        expected = exact.high_features.numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(found.high_features, expected)
    features = exact.low_features.nbytes + exact.high_features.nbytes
    assert kept.size == num_bytes(exact) - features // 2


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_the_order_is_kept_and_drawn_anew(folders: FeatureFolders, threads: int) -> None:
    class Order:
        def __init__(self) -> None:
            self.orders = iter([[3, 1, 1], [5, 0, 2, 4]])

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(next(self.orders))

    loader = BagLoader(BagCache(folders, WIDTH, PLENTY), SLIDES, Order(), threads)
    assert [bag.slide_id for bag in loader] == ["s3", "s1", "s1"]
    assert [bag.slide_id for bag in loader] == ["s5", "s0", "s2", "s4"]
    assert len(loader) == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_reading_goes_ahead_but_not_far(folders: FeatureFolders, reads: Counter[str], threads: int) -> None:
    bags = iter(BagLoader(BagCache(folders, WIDTH, 0), SLIDES, threads=threads))
    next(bags)
    deadline = time.monotonic() + 20
    while reads.total() < 1 + threads and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert reads.total() == 1 + threads
    bags.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 20


@pytest.mark.parametrize("threads", [0, 2])
def test_a_fault_is_raised_when_its_turn_comes(folders: FeatureFolders, threads: int) -> None:
    folders.low_file("s2").unlink()
    found = []
    with pytest.raises(UserError, match=r"s2\.h5"):
        for bag in BagLoader(BagCache(folders, WIDTH, PLENTY), SLIDES, threads=threads):
            found.append(bag.slide_id)  # noqa: PERF401
    assert found == ["s0", "s1"]
