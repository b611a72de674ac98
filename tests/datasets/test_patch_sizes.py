"""Patch sizes by attributes, by the stride of coordinates and by the table of slides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.patch_sizes import PatchSizes, patch_sizes, size_from_attributes, stride
from datasets.patches import Patches
from tests.support.faults import expect_faults
from tests.support.feature_files import WIDTH, square
from utils.errors import UserError

# ---- sizes -----------------------------------------------------------------------------------------------------------


def patches(coords: np.ndarray, **attributes: Any) -> Patches:
    return Patches(Path("slide.h5"), np.ones((len(coords), WIDTH), np.float32), coords, attributes)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"patch_size_level0": 512}, 512),
        ({"patch_size_level0": 511.7}, 512),
        ({"patch_size": 256, "level0_magnification": 40, "target_magnification": 5}, 2048),
        ({"patch_size": 256, "level0_magnification": "40x", "target_magnification": "20x"}, 512),
        ({"patch_size": 512, "downsample": np.array([4.0001, 4.0002])}, 2048),
        ({"patch_size": 256, "downsample": 2.0, "patch_size_level0": 700}, 700),
        ({"patch_size": 256}, None),
        ({"downsample": 2.0}, None),
        ({}, None),
    ],
)
def test_size_from_attributes(attributes: dict[str, Any], size: int | None) -> None:
    assert size_from_attributes(patches(square(2, 2, 100), **attributes)) == size


@pytest.mark.parametrize("value", [0, -5, "wide", np.nan, np.array([])])
def test_a_size_that_is_no_number_is_refused(value: Any) -> None:
    with expect_faults("features.attribute"):
        size_from_attributes(patches(square(2, 2, 100), patch_size_level0=value))


def test_stride() -> None:
    assert stride(square(5, 5, 300)) == (300, True)
    assert stride(square(5, 5, 300)[::-1] + 17) == (300, True)
    assert stride(square(2, 2, 300)) == (300, False)  # four steps are few
    assert stride(square(1, 12, 300)) == (300, True)
    assert stride(square(1, 1, 300)) is None
    assert stride(np.array([[0, 0], [5, 7], [9, 1]])) is None
    mixed = np.stack([np.repeat([300, 200, 500, 700], 10).cumsum(), np.zeros(40, int)], axis=1)
    assert stride(mixed) == (200, False)  # ten of each kind
    holes = square(8, 8, 300)[np.random.default_rng(0).random(64) < 0.7]
    assert stride(np.concatenate([holes, holes[:3]])) == (300, True)


BIG, SMALL = square(6, 6, 2048), square(24, 24, 512)


def test_attributes_come_first_then_the_stride_then_the_table() -> None:
    told = patches(BIG, patch_size_level0=2048), patches(SMALL, patch_size_level0=512)
    silent = patches(BIG), patches(SMALL)
    few = patches(BIG[[0, 8]]), patches(SMALL[[0, 25]])
    mags = (5, 20)
    assert patch_sizes(*told, mags, 20) == PatchSizes(2048, 512, "attributes", "attributes")
    assert patch_sizes(told[0], silent[1], mags, 20) == PatchSizes(2048, 512, "attributes", "stride")
    assert patch_sizes(*silent, mags, 20) == PatchSizes(2048, 512, "stride", "stride")
    assert patch_sizes(*few, mags, 40) == PatchSizes(2048, 512, "level0_mag", "level0_mag")
    assert patch_sizes(*few, mags, 20) == PatchSizes(1024, 256, "level0_mag", "level0_mag")
    with expect_faults("features.unknown_size"):
        patch_sizes(*few, mags, None)


def test_a_stride_of_few_patches_counts_where_both_scales_agree() -> None:
    low, high = patches(BIG[:2]), patches(SMALL[:3])
    assert patch_sizes(low, high, (5, 20), None) == PatchSizes(2048, 512, "stride", "stride")
    apart = patches(BIG[[0, 2]])  # 4096: a gap lies between
    assert patch_sizes(apart, patches(SMALL), (5, 20), 40) == PatchSizes(2048, 512, "level0_mag", "stride")
    with expect_faults("features.unknown_size"):
        patch_sizes(apart, patches(SMALL), (5, 20), None)
    with pytest.raises(UserError, match="neighbours lie 4096 level-0 pixels apart, but 256 pixels at 5x are 1536"):
        patch_sizes(apart, patches(SMALL), (5, 20), 30)


@pytest.mark.parametrize("how", ["attributes", "stride"])
@pytest.mark.parametrize(("parent", "child"), [(2048, 896), (512, 512), (512, 2048), (2026, 506)])
def test_sizes_that_do_not_nest_are_refused(how: str, parent: int, child: int) -> None:
    tell = how == "attributes"
    low = patches(square(6, 6, parent), **({"patch_size_level0": parent} if tell else {}))
    high = patches(square(6, 6, child), **({"patch_size_level0": child} if tell else {}))
    with pytest.raises(UserError, match=rf"{parent} level-0 pixels \(by {how}\) do not nest with those of {child}"):
        patch_sizes(low, high, (5, 20), 40)


def test_the_table_does_not_hide_patches_of_another_size() -> None:
    low, high = patches(BIG[:2]), patches(square(6, 6, 896))  # 448 pixels at 20x, as CONCH likes them
    with expect_faults("features.sizes"):
        patch_sizes(low, high, (5, 20), 40)
