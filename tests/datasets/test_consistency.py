"""Every kind of fault is planted, found, and repaired where it can be; a clean file has none."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.consistency import check_slide, keep_backup, repair_slide
from datasets.feature_layouts import read_patches
from datasets.folders import FeatureFolders
from datasets.hierarchy import read_stored
from tests.support.h5_files import Arrays, changed
from tests.support.linked_slide import CHILD, PARENT, SLIDE, WIDTH, children_of, draw_slide, write_linked
from utils.errors import UserError
from utils.h5 import write_h5


@pytest.fixture(params=["regular", "irregular"])
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> FeatureFolders:
    folders = FeatureFolders(tmp_path, "task", "plip")
    write_linked(folders, *draw_slide(request.param == "irregular"))
    return folders


def kinds(folders: FeatureFolders) -> set[str]:
    return {fault.kind for fault in check_slide(folders, SLIDE).faults}


def texts(folders: FeatureFolders) -> str:
    return "\n".join(fault.text for fault in check_slide(folders, SLIDE).faults)


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
        with pytest.raises(UserError, match="not repaired, it has NaN"):
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


# ---- whole files -----------------------------------------------------------------------------------------------------


def test_half_precision_is_no_fault(folders: FeatureFolders) -> None:
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        arrays["features"] = arrays["features"].astype(np.float16)
    assert kinds(folders) == set()


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:900])


def without_coords(file: Path) -> None:
    with changed(file) as arrays:
        del arrays["coords"]


def flattened(file: Path) -> None:
    with changed(file) as arrays:
        arrays["features"] = arrays["features"].reshape(-1, WIDTH)


def mask_of_floats(file: Path) -> None:
    with changed(file) as arrays:
        arrays["mask"] = arrays["mask"].astype(float)


@pytest.mark.parametrize("spoil", [cut_off, without_coords, flattened, mask_of_floats, Path.unlink])
def test_a_file_that_cannot_be_used_is_made_from_the_high_file_alone(
    folders: FeatureFolders, has_high: bool, spoil: Callable[[Path], None]
) -> None:
    file = folders.hierarchical_file(SLIDE)
    clean = children_of(folders)
    if not has_high:
        folders.high_file(SLIDE).unlink()
    spoil(file)
    assert kinds(folders) == {"file"}
    assert str(file) in texts(folders)
    if has_high:
        repair_slide(folders, SLIDE)
        assert kinds(folders) == set()
        assert children_of(folders) == clean
    else:
        with pytest.raises(UserError, match=r"slide\.h5"):
            repair_slide(folders, SLIDE)
    assert file.with_name("slide.h5.bak").exists() == (has_high and spoil is not Path.unlink)


@pytest.mark.parametrize("scale", ["low", "high"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_rows_without_features_in_the_other_files_are_found_and_stay(
    folders: FeatureFolders, scale: str, value: float
) -> None:
    other = folders.low_file(SLIDE) if scale == "low" else folders.high_file(SLIDE)
    with changed(other) as arrays:
        arrays["features"][4] = value
    assert kinds(folders) == {"file"}
    assert f"{other}: of " in texts(folders)
    file = folders.hierarchical_file(SLIDE)
    before = file.read_bytes()
    with pytest.raises(UserError, match="extract this slide again"):
        repair_slide(folders, SLIDE)
    assert file.read_bytes() == before


def test_without_low_file_the_rest_is_checked(folders: FeatureFolders) -> None:
    folders.low_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        mask_true_on_a_zero_row(arrays)
    assert kinds(folders) == {"file", "masks"}
    assert "5x/slide.h5: file not found" in texts(folders)


def test_another_width_is_found(folders: FeatureFolders) -> None:
    with changed(folders.low_file(SLIDE)) as arrays:
        arrays["features"] = arrays["features"][:, 1:]
    assert kinds(folders) == {"features"}
    assert "features are 8 wide, those of" in texts(folders)


def test_another_width_of_the_high_file_is_found(folders: FeatureFolders) -> None:
    with changed(folders.high_file(SLIDE)) as arrays:
        arrays["features"] = arrays["features"][:, 1:]
    assert kinds(folders) == {"features"}


def test_sizes_that_do_not_nest_are_found(folders: FeatureFolders) -> None:
    with h5py.File(folders.high_file(SLIDE), "r+") as opened:
        opened.attrs["patch_size_level0"] = 896
    check = check_slide(folders, SLIDE)
    assert {fault.kind for fault in check.faults} == {"sizes"}
    assert not check.is_repairable


def test_a_slide_without_any_child(folders: FeatureFolders, has_high: bool) -> None:
    if not has_high:
        folders.high_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        for array in arrays.values():
            array[:] = 0
    assert kinds(folders) == ({"counts"} if has_high else set())


def test_backups_never_replace_each_other(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    for number in range(3):
        file.unlink(missing_ok=True)  # as a whole_file takes its place
        file.write_text(str(number))
        keep_backup(file)
    names = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert names == {"a.h5": "2", "a.h5.bak": "0", "a.h5.bak2": "1", "a.h5.bak3": "2"}


# ---- anything at all -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000), irregular=st.booleans(), with_high=st.booleans(), has_mask=st.booleans(),
    damage=st.lists(st.sampled_from(["swap", "zero", "mask", "copy", "drop_row", "permute"]), max_size=4),
)  # fmt: skip
def test_whatever_happened_a_repaired_file_passes(
    tmp_path: Path, seed: int, irregular: bool, with_high: bool, has_mask: bool, damage: list[str]
) -> None:
    folders = FeatureFolders(tmp_path, "task", "plip")
    write_linked(folders, *draw_slide(irregular, seed))
    generator = np.random.default_rng(seed)
    if not with_high:
        folders.high_file(SLIDE).unlink()
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        for step in damage:
            count = len(arrays["mask"])
            (row, slot), (other, place) = generator.integers(0, [[count, 16]] * 2)
            if step == "permute":
                order = generator.permutation(count)
            for name in arrays:
                array = arrays[name]
                if step == "swap":
                    array[row, slot], array[other, place] = array[other, place].copy(), array[row, slot].copy()
                elif step == "copy":
                    array[row, slot] = array[other, place]
                elif step == "drop_row" and count > 6:
                    arrays[name] = np.delete(array, row, axis=0)
                elif step == "permute":
                    arrays[name] = array[order]
            if step == "zero":
                arrays["features"][row, slot] = 0
            elif step == "mask":
                arrays["mask"][row, slot] ^= True
        if not has_mask:
            del arrays["mask"]
    repair_slide(folders, SLIDE)
    assert kinds(folders) == set(), texts(folders)
