"""Feature files as this project, TRIDENT and CLAM write them: found, read into one form, and their patch sizes told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets.feature_layouts import (
    Patches,
    PatchSizes,
    find_source,
    patch_sizes,
    read_level0_magnifications,
    read_patches,
    size_from_attributes,
    stride,
)
from datasets.folders import FeatureFolders
from tests.support.feature_files import write_clam, write_file, write_trident
from utils.errors import UserError

WIDTH = 4


def square(columns: int, rows: int, size: int) -> np.ndarray:
    """Top-left corners of a full grid."""
    return np.array([(column * size, row * size) for row in range(rows) for column in range(columns)])


def some_features(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, WIDTH)).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "conch")


# ---- finding ---------------------------------------------------------------------------------------------------------


def place_reference(folders: FeatureFolders) -> Path:
    file = folders.low_file("a")
    write_file(file, some_features(3), square(3, 1, 2048), {})
    return file.parent


def place_trident(folders: FeatureFolders) -> Path:
    write_trident(folders.root, "a", some_features(3), square(3, 1, 512), 20, 40, "conch_v1")
    return write_trident(folders.root, "a", some_features(3), square(3, 1, 2048), 5, 40, "conch_v1")


def place_clam(folders: FeatureFolders) -> Path:
    return write_clam(folders.low_file("a").parent, "a", some_features(3), square(3, 1, 2048), 512, 1)


PLACES: dict[str, Callable[[FeatureFolders], Path]] = {
    "reference": place_reference,
    "trident": place_trident,
    "clam": place_clam,
}


@pytest.mark.parametrize("layout", PLACES)
@pytest.mark.parametrize("named", [True, False])
def test_features_are_found_in_the_folder_of_the_dataset(folders: FeatureFolders, layout: str, named: bool) -> None:
    folder = PLACES[layout](folders)
    source = find_source(folders, 5, layout if named else "auto")
    assert (source.layout, source.folder) == (layout, folder)
    assert source.files() == {"a": folder / "a.h5"}
    expected = folder.parent / "patches" / "a.h5" if layout == "clam" else None
    assert source.coords_file("a") == expected
    for other in set(PLACES) - {layout}:
        with pytest.raises(UserError, match="no 5x features of conch"):
            find_source(folders, 5, other)


@pytest.mark.parametrize("layout", PLACES)
def test_features_are_found_at_and_above_a_folder_that_is_named(folders: FeatureFolders, layout: str) -> None:
    folder = PLACES[layout](folders)
    nowhere = FeatureFolders(folders.data_root, "other", "conch")
    for given in (folder, folder.parent, *([folder.parent.parent] if layout == "trident" else [])):
        source = find_source(nowhere, 5, "auto", given, "--low-dir")
        assert (source.layout, source.folder) == (layout, folder)
    with pytest.raises(UserError, match=r"no 5x features.*--low-dir"):
        find_source(nowhere, 5, "auto", None, "--low-dir")


def test_any_folder_of_files_can_be_named(folders: FeatureFolders, tmp_path: Path) -> None:
    write_file(tmp_path / "mine" / "a.h5", some_features(3), square(3, 1, 2048), {})
    assert find_source(folders, 5, "auto", tmp_path / "mine").folder == tmp_path / "mine"


def test_trident_features_of_any_encoder_can_be_named_but_not_of_another_magnification(
    folders: FeatureFolders, tmp_path: Path
) -> None:
    folder = write_trident(tmp_path / "job", "a", some_features(3), square(3, 1, 512), 20, 40, "conch_v15")
    assert find_source(folders, 20, "auto", folder).layout == "trident"
    with pytest.raises(UserError, match="no 20x features of conch"):
        find_source(folders, 20, "auto", tmp_path / "job")
    with pytest.raises(UserError, match="no 5x features"):
        find_source(folders, 5, "auto", folder)


def test_several_trident_folders_are_a_question_to_the_user(folders: FeatureFolders) -> None:
    folder = place_trident(folders)
    second = folder.parent.with_name("5x_512px_0px_overlap") / folder.name
    write_file(second / "a.h5", some_features(3), square(3, 1, 4096), {})
    with pytest.raises(UserError, match="several folders hold 5x features") as caught:
        find_source(folders, 5, option="--low-dir")
    assert str(folder) in str(caught.value) and str(second) in str(caught.value)
    assert find_source(folders, 5, given=second).folder == second


def test_trident_is_preferred_to_the_copies_made_of_it(folders: FeatureFolders) -> None:
    place_reference(folders)
    assert find_source(folders, 5).layout == "reference"
    place_trident(folders)
    assert find_source(folders, 5).layout == "trident"


def test_clam_coordinates_may_lie_one_folder_up(folders: FeatureFolders, tmp_path: Path) -> None:
    folder = write_clam(tmp_path / "results", "a", some_features(3), square(3, 1, 2048), 512, 1, beside="features")
    source = find_source(folders, 5, "clam", tmp_path / "results" / "features")
    assert source.folder == folder
    assert source.coords_file("a") == tmp_path / "results" / "patches" / "a.h5"


def test_names_of_slides(folders: FeatureFolders) -> None:
    folder = place_reference(folders)
    for name in ("TCGA-A1.B2_patches.h5", "b.h5", "b_patches.h5", "._b.h5", ".c.h5.tmp", "d.h5.bak"):
        (folder / name).touch()
    found = {slide_id: file.name for slide_id, file in find_source(folders, 5).files().items()}
    assert found == {"a": "a.h5", "TCGA-A1.B2": "TCGA-A1.B2_patches.h5", "b": "b.h5"}


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
    ("features", "coords", "attributes", "message"),
    [
        (np.zeros((0, WIDTH), np.float32), np.zeros((0, 2), int), {}, "empty, no 20x patch"),
        (np.zeros((1, 0, WIDTH), np.float32), np.zeros((1, 0, 2), int), {}, "empty, no 20x patch"),
        (with_value(np.nan), THREE, {}, "of 3 feature rows 1 have NaN or infinite values and 0 are all zero"),
        (with_value(np.inf), THREE, {}, "1 have NaN"),
        (with_value(0), THREE, {}, "0 have NaN or infinite values and 1 are all zero"),
        (np.ones((3, WIDTH), int), THREE, {}, "features are int64"),
        (np.ones((2, 3, WIDTH), np.float32), THREE, {}, r"features are float32 \(2, 3, 4\)"),
        (np.ones(3, np.float32), THREE, {}, r"features are float32 \(3,\)"),
        (some_features(3), THREE[:2], {}, r"coords are int64 \(2, 2\), expected finite numbers \(3, 2\)"),
        (some_features(3), np.full((3, 2), np.nan), {}, "expected finite numbers"),
        (some_features(3), THREE, {"target_magnification": 5}, "holds patches at 5x, expected 20x"),
        (some_features(3), THREE, {"magnification": "10x"}, "holds patches at 10x, expected 20x"),
        (some_features(3), THREE, {"magnification": "high"}, "attribute magnification is 'high'"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, features: np.ndarray, coords: np.ndarray, attributes: dict[str, Any], message: str
) -> None:
    write_file(tmp_path / "a.h5", features, coords, attributes)
    with pytest.raises(UserError, match=rf"a\.h5: .*{message}"):
        read_patches(tmp_path / "a.h5", 20)


def test_a_file_that_is_cut_off_or_lacks_features_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5", some_features(3), THREE, {})
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:700])
    write_file(tmp_path / "c.h5", None, THREE, {})
    for name, message in (("b", "cut off"), ("c", "no data set 'features'"), ("d", "file not found")):
        with pytest.raises(UserError, match=message):
            read_patches(tmp_path / f"{name}.h5", 20)


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
    with pytest.raises(UserError, match="attribute patch_size_level0"):
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
    with pytest.raises(UserError, match="write its level0_mag into the table of slides"):
        patch_sizes(*few, mags, None)


def test_a_stride_of_few_patches_counts_where_both_scales_agree() -> None:
    low, high = patches(BIG[:2]), patches(SMALL[:3])
    assert patch_sizes(low, high, (5, 20), None) == PatchSizes(2048, 512, "stride", "stride")
    apart = patches(BIG[[0, 2]])  # 4096: a gap lies between
    assert patch_sizes(apart, patches(SMALL), (5, 20), 40) == PatchSizes(2048, 512, "level0_mag", "stride")
    with pytest.raises(UserError, match="no attribute tells the level-0 patch size"):
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
    with pytest.raises(UserError, match="do not nest"):
        patch_sizes(low, high, (5, 20), 40)


def test_level0_magnifications_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "task.csv"
    table.write_text("case_id,slide_id,label,level0_mag\np,a,X,40\np,b,X,\np,c,Y,20x\n")
    assert read_level0_magnifications(table) == {"a": 40, "c": 20}
    table.write_text("slide_id,label\na,X\n")
    assert read_level0_magnifications(table) == {}
    table.write_text("slide_id,level0_mag\na,forty\n")
    with pytest.raises(UserError, match="level0_mag of a is 'forty'"):
        read_level0_magnifications(table)
