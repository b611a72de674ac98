"""Feature files of any tool are read into one form, and those that cannot be used are refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets.patches import read_patches, whole_coords
from tests.support.faults import expect_faults
from tests.support.feature_files import WIDTH, some_features, square, write_file
from utils.errors import UserError

# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("coords_kind", [np.int32, np.int64, np.float32, np.float64, np.uint32])
def test_every_form_is_read_into_one(tmp_path: Path, batch: bool, kind: type, coords_kind: type) -> None:
    features, coords = some_features(5).astype(kind), (square(5, 1, 512) + 7).astype(coords_kind)
    lead = (None,) if batch else ()
    write_file(tmp_path / "a.h5", features[*lead], coords[*lead], {"patch_size_level0": 512})
    read = read_patches(tmp_path / "a.h5", 20)
    assert (read.features.dtype, read.coords.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(read.features, features.astype(np.float32))
    np.testing.assert_array_equal(read.coords, square(5, 1, 512) + 7)
    assert read.as_is is not batch
    np.testing.assert_allclose(read.norms, np.linalg.norm(features.astype(np.float64), axis=1), rtol=1e-5)


def test_nearly_whole_coordinates_are_rounded(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5", some_features(2), np.array([[511.9999, -0.0001], [1024.0002, 3]]), {})
    assert read_patches(tmp_path / "a.h5", 20).coords.tolist() == [[512, 0], [1024, 3]]


def test_attributes_of_all_parts_are_read(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5", some_features(2), square(2, 1, 512), {"of_coords": 1})
    with h5py.File(tmp_path / "a.h5", "r+") as opened:
        opened.attrs["of_file"] = "x"
        opened["features"].attrs["of_features"] = 2
    write_file(tmp_path / "patches.h5", None, square(2, 1, 512), {"patch_size": 256, "downsample": [4.0, 4.0]})
    read = read_patches(tmp_path / "a.h5", 20, tmp_path / "patches.h5")
    assert read.attributes.keys() == {"of_coords", "of_file", "of_features", "patch_size", "downsample"}
    assert read_patches(tmp_path / "a.h5", 20, tmp_path / "absent.h5").attributes.keys() == {
        "of_coords", "of_file", "of_features",
    }  # fmt: skip


def with_value(value: float) -> np.ndarray:
    features = some_features(3)
    features[1] = value
    return features


THREE = square(3, 1, 512)


@pytest.mark.parametrize(
    ("features", "coords", "attributes", "code"),
    [
        (np.zeros((0, WIDTH), np.float32), np.zeros((0, 2), int), {}, "features.empty"),
        (np.zeros((1, 0, WIDTH), np.float32), np.zeros((1, 0, 2), int), {}, "features.empty"),
        (with_value(np.nan), THREE, {}, "features.values"),
        (with_value(np.inf), THREE, {}, "features.values"),
        (with_value(0), THREE, {}, "features.values"),
        (np.ones((3, WIDTH), int), THREE, {}, "features.shape"),
        (np.ones((2, 3, WIDTH), np.float32), THREE, {}, "features.shape"),
        (np.ones(3, np.float32), THREE, {}, "features.shape"),
        (some_features(3), THREE[:2], {}, "features.coords"),
        (some_features(3), np.full((3, 2), np.nan), {}, "features.coords"),
        (some_features(3), THREE, {"target_magnification": 5}, "features.magnification"),
        (some_features(3), THREE, {"magnification": "10x"}, "features.magnification"),
        (some_features(3), THREE, {"magnification": "high"}, "features.attribute"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, features: np.ndarray, coords: np.ndarray, attributes: dict[str, Any], code: str
) -> None:
    write_file(tmp_path / "a.h5", features, coords, attributes)
    with expect_faults(code) as faults:
        read_patches(tmp_path / "a.h5", 20)
    assert faults[0].where == str(tmp_path / "a.h5")


def test_a_file_that_is_cut_off_or_lacks_features_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5", some_features(3), THREE, {})
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:700])
    write_file(tmp_path / "c.h5", None, THREE, {})
    for name, message in (("b", "cut off"), ("c", "no data set 'features'"), ("d", "file not found")):
        with pytest.raises(UserError, match=message):
            read_patches(tmp_path / f"{name}.h5", 20)


@pytest.mark.parametrize(
    "place",
    [np.nan, np.inf, -np.inf, -10_001.0, -(2.0**62), 1e8, 1e300],
    ids=str,
)
def test_places_of_no_slide(tmp_path: Path, place: float) -> None:
    coords = square(4, 1, 512).astype(float)
    coords[2, 0] = place
    write_file(tmp_path / "a.h5", some_features(4), coords, {})
    with expect_faults("features.coords") as faults:
        read_patches(tmp_path / "a.h5", 20)
    assert "1 of 4 patches" in faults[0].found and f"[{place}" in faults[0].found


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_whole_numbers_of_no_slide(tmp_path: Path, kind: type) -> None:
    coords = square(4, 1, 512).astype(kind)
    coords[2, 0] = np.iinfo(kind).max
    write_file(tmp_path / "a.h5", some_features(4), coords, {})
    with expect_faults("features.coords"):
        read_patches(tmp_path / "a.h5", 20)


def test_patches_may_hang_over_the_border(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5", some_features(2), np.array([[-200, 0], [824, -17]]), {})
    assert read_patches(tmp_path / "a.h5", 20).coords.tolist() == [[-200, 0], [824, -17]]


def test_places_that_are_shares_of_a_slide(tmp_path: Path) -> None:
    """Rounded to pixels, they would be one place."""
    write_file(tmp_path / "a.h5", some_features(4), square(4, 1, 512) / 10_000, {})
    with expect_faults("features.coords") as faults:
        read_patches(tmp_path / "a.h5", 20)
    assert "4 places that round to 1" in faults[0].found


def test_slots_without_a_patch_may_hold_anything() -> None:
    coords = np.array([[[1024.0, 3.0], [np.nan, -7.0]], [[512.4, 0.0], [9.0, 1e300]]])
    real = np.array([[True, False], [True, False]])
    whole = whole_coords(Path("a.h5"), coords, (2, 2, 2), real)
    assert whole.tolist() == [[[1024, 3], [0, 0]], [[512, 0], [0, 0]]]
