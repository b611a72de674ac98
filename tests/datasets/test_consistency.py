"""Every kind of fault is planted, found, and repaired where it can be; a clean file has none."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.consistency import check_slide
from datasets.folders import FeatureFolders
from datasets.hierarchy import read_stored
from datasets.patches import read_patches
from datasets.repair import repair_slide
from tests.support.faults import expect_faults
from tests.support.h5_files import Arrays, changed
from tests.support.linked_slide import CHILD, PARENT, SLIDE, WIDTH, children_of, draw_slide, kinds, texts, write_linked
from utils.h5 import write_h5


@pytest.fixture(params=["regular", "irregular"])
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> FeatureFolders:
    folders = FeatureFolders(tmp_path, "task", "plip")
    write_linked(folders, *draw_slide(request.param == "irregular"))
    return folders


def test_a_clean_slide_has_no_fault(folders: FeatureFolders) -> None:
    check = check_slide(folders, SLIDE)
    assert (check.faults, check.notes, check.has_mask, check.is_repairable) == ([], [], True, False)
    stored = read_stored(folders.hierarchical_file(SLIDE))
    assert (check.parents, check.children, check.childless) == (12, stored.mask.sum(), 1)  # type: ignore[union-attr]


# ---- faults of the hierarchical file: found, and repaired from the high file and without it -------------------------

ROW, SLOT = 7, 3  # a real child on both grids


def nan_child(arrays: Arrays) -> None:
    arrays["features"][ROW, SLOT, 2] = np.nan


def infinite_child(arrays: Arrays) -> None:
    arrays["features"][ROW, SLOT, 2] = -np.inf


def mask_false_on_a_child(arrays: Arrays) -> None:
    arrays["mask"][ROW, SLOT] = False


def mask_true_on_a_zero_row(arrays: Arrays) -> None:
    arrays["mask"][5, 0] = True


def child_zeroed(arrays: Arrays) -> None:
    arrays["features"][ROW, SLOT] = 0


def child_lost(arrays: Arrays) -> None:
    for name in arrays:
        arrays[name][ROW, SLOT] = 0


def coords_on_an_empty_slot(arrays: Arrays) -> None:
    arrays["coords"][5, 0] = 10240


def child_in_another_parent(arrays: Arrays) -> None:
    for array in arrays.values():
        array[5, 0] = array[ROW, SLOT]
        array[ROW, SLOT] = 0


def child_twice(arrays: Arrays) -> None:
    empty = int(np.flatnonzero(~arrays["mask"][3])[0])
    for array in arrays.values():
        array[3, empty] = array[3, empty - 1]


def unknown_child(arrays: Arrays) -> None:
    arrays["coords"][ROW, SLOT] += 3


def children_swap_features(arrays: Arrays) -> None:
    arrays["features"][ROW, [3, 4]] = arrays["features"][ROW, [4, 3]]


def children_swap_slots(arrays: Arrays) -> None:
    for array in arrays.values():
        array[ROW, [3, 4]] = array[ROW, [4, 3]]


def parents_swap_rows(arrays: Arrays) -> None:
    for array in arrays.values():
        array[[1, 2]] = array[[2, 1]]


def childless_parents_missing(arrays: Arrays) -> None:
    keep = arrays["mask"].any(1)
    for name in arrays:
        arrays[name] = arrays[name][keep]
    del arrays["mask"]


def parent_added(arrays: Arrays) -> None:
    for name in arrays:
        arrays[name] = np.concatenate([arrays[name], np.zeros_like(arrays[name][:1])])


@pytest.fixture(params=[True, False], ids=["with_high_file", "without"])
def has_high(request: pytest.FixtureRequest) -> bool:
    return request.param


# plant, kinds found without a high file, and with one, what is said; the file itself is enough to restore it
Case = tuple[Callable[[Arrays], None], set[str], set[str], str, bool]
CASES: list[Case] = [
    (nan_child, {"values"}, {"values"}, "1 children with NaN or infinite", False),
    (infinite_child, {"values"}, {"values"}, "1 children with NaN or infinite", False),
    (mask_false_on_a_child, {"masks"}, {"masks", "counts"}, "1 rows with features where the mask is False", True),
    (mask_true_on_a_zero_row, {"masks"}, {"masks"}, "1 all-zero rows where the mask is True", True),
    (child_zeroed, {"masks"}, {"masks", "counts"}, "1 all-zero rows where the mask is True", False),
    (child_lost, set(), {"counts"}, "1 children of .*20x/slide.h5 are missing", False),
    (coords_on_an_empty_slot, {"coordinates"}, {"coordinates"}, "1 empty slots with coordinates", True),
    (child_in_another_parent, {"order"}, {"order"}, "1 rows hold the children of another parent", True),
    (child_twice, {"coordinates"}, {"coordinates"}, "1 children stand twice", True),
    (unknown_child, set(), {"coordinates"}, "1 children are not in", False),
    (children_swap_features, set(), {"features"}, "2 children have other features than in", False),
    (children_swap_slots, {"order"}, {"order"}, "1 children stand before one", True),
    (parents_swap_rows, {"order"}, {"order"}, "2 rows hold the children of another parent", True),
    (childless_parents_missing, {"counts"}, {"counts"}, "11 parents; .*5x/slide.h5 has 12", True),
    (parent_added, {"counts"}, {"counts"}, "13 parents; .* has 12", True),
]


@pytest.mark.parametrize(("plant", "alone", "compared", "message", "restorable"), CASES)
def test_a_planted_fault_is_found_and_repaired(
    folders: FeatureFolders,
    has_high: bool,
    plant: Callable[[Arrays], None],
    alone: set[str],
    compared: set[str],
    message: str,
    restorable: bool,
) -> None:
    file = folders.hierarchical_file(SLIDE)
    clean = children_of(folders)
    if not has_high:
        folders.high_file(SLIDE).unlink()
    with changed(file) as arrays:
        plant(arrays)
    expected = compared if has_high else alone
    assert kinds(folders) == expected
    if not expected:
        return
    assert re.search(message, texts(folders))
    check = check_slide(folders, SLIDE)
    assert check.is_repairable
    faulty = file.read_bytes()
    if "values" in expected and not has_high:
        with expect_faults("features.values"):
            repair_slide(folders, SLIDE)
        assert file.read_bytes() == faulty
        return
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set()
    assert file.with_name("slide.h5.bak").read_bytes() == faulty
    repaired = read_stored(file)
    assert repaired.mask is not None and repaired.features.shape == (12, 16, WIDTH)
    assert (children_of(folders) == clean) == (restorable or has_high)
    assert repaired.attributes["encoder"] == "plip"
    assert repaired.attributes["repaired_from"].startswith("low and high" if has_high else "low file and its own")


def test_one_child_in_a_wrong_parent_among_right_ones(folders: FeatureFolders, has_high: bool) -> None:
    clean = children_of(folders)
    if not has_high:
        folders.high_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        empty = int(np.flatnonzero(~arrays["mask"][1])[-1])
        for array in arrays.values():
            array[1, empty] = array[ROW, SLOT]
            array[ROW, SLOT] = 0
    assert "coordinates" in kinds(folders)
    assert "1 children lie outside their parent" in texts(folders)
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set()
    assert children_of(folders) == clean


def test_features_that_neither_mask_nor_place_claims_go(folders: FeatureFolders) -> None:
    folders.high_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        for array in arrays.values():
            array[0, 0] = 0  # no child at 0, 0
    clean = children_of(folders)
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        arrays["features"][5, 2] = 1
    assert kinds(folders) == {"masks"}
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set()
    assert children_of(folders) == clean


def test_a_row_is_the_parents_that_most_of_its_children_lie_in(folders: FeatureFolders, has_high: bool) -> None:
    clean = children_of(folders)
    if not has_high:
        folders.high_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        for source, (row, slot) in zip((ROW, 2), np.argwhere(~arrays["mask"])[[0, -1]], strict=True):
            place = int(np.flatnonzero(arrays["mask"][source])[0])
            for array in arrays.values():
                array[row, slot], array[source, place] = array[source, place].copy(), 0
        for name in arrays:
            arrays[name] = np.delete(arrays[name], 5, axis=0)  # rows no longer tell the parents
    found = check_slide(folders, SLIDE)
    assert {fault.kind for fault in found.faults} >= {"counts", "coordinates"}
    assert "2 children lie outside their parent" in texts(folders)
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set()
    assert children_of(folders) == clean


def test_a_file_without_mask_is_no_fault_and_gets_one(folders: FeatureFolders, has_high: bool) -> None:
    clean = children_of(folders)
    if not has_high:
        folders.high_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        del arrays["mask"]
    check = check_slide(folders, SLIDE)
    assert (check.faults, check.has_mask, check.is_repairable) == ([], False, True)
    assert check.notes[-1].startswith("no mask, as in released files")
    repair_slide(folders, SLIDE)
    check = check_slide(folders, SLIDE)
    assert (check.faults, check.has_mask, check.is_repairable) == ([], True, False)
    assert children_of(folders) == clean


def test_an_order_that_was_not_promised_is_a_note(folders: FeatureFolders) -> None:
    with h5py.File(folders.hierarchical_file(SLIDE), "r+") as opened:
        del opened.attrs["child_order"]
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        children_swap_slots(arrays)
    check = check_slide(folders, SLIDE)
    assert check.faults == []
    assert check.notes[0].startswith("1 children stand before")
    assert not check.is_repairable


def test_full_parents_miss_nothing(tmp_path: Path) -> None:
    folders = FeatureFolders(tmp_path, "task", "plip")
    write_linked(folders, *draw_slide(), max_patches=5)
    assert kinds(folders) == set()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        for name in arrays:
            arrays[name][ROW, 4] = 0
    assert kinds(folders) == {"counts"}
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set()
    assert read_stored(folders.hierarchical_file(SLIDE)).features.shape[1] == 5


def test_children_linked_by_their_corner_are_accepted_and_stay(tmp_path: Path) -> None:
    """The released code's window; the centre of such a child can lie in the next parent."""
    folders = FeatureFolders(tmp_path, "task", "plip")
    low = np.array([(x * PARENT, 0) for x in range(8)])
    high = np.array([(x, 1024) for x in range(300, 8 * PARENT - CHILD, CHILD)])
    write_linked(folders, low, high)
    by_corner = high[:, 0] // PARENT
    assert (by_corner != (high[:, 0] + CHILD // 2) // PARENT).any()
    features = read_patches(folders.high_file(SLIDE), 20).features
    arrays = {"features": np.zeros((8, 16, WIDTH), np.float32), "coords": np.zeros((8, 16, 2), np.int64)}
    for row in range(8):
        members = np.flatnonzero(by_corner == row)
        arrays["features"][row, : len(members)] = features[members]
        arrays["coords"][row, : len(members)] = high[members]
    write_h5(folders.hierarchical_file(SLIDE), arrays, {})
    assert kinds(folders) == set()
    before = children_of(folders)
    folders.high_file(SLIDE).unlink()
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set()
    assert children_of(folders) == before
