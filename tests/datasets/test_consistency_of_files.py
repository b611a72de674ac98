"""Files that cannot be used, or do not fit each other, are found, and repaired where they can be."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.consistency import check_slide
from datasets.folders import FeatureFolders
from datasets.repair import backup_kept, repair_slide
from tests.support.faults import expect_faults
from tests.support.h5_files import Arrays, changed
from tests.support.linked_slide import SLIDE, WIDTH, children_of, draw_slide, kinds, texts, write_linked
from utils.errors import UserError


@pytest.fixture(params=["regular", "irregular"])
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> FeatureFolders:
    folders = FeatureFolders(tmp_path, "task", "plip")
    write_linked(folders, *draw_slide(request.param == "irregular"))
    return folders


@pytest.fixture(params=[True, False], ids=["with_high_file", "without"])
def has_high(request: pytest.FixtureRequest) -> bool:
    return request.param


def mask_true_on_a_zero_row(arrays: Arrays) -> None:
    arrays["mask"][5, 0] = True


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
    with expect_faults("features.values"):
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
        with backup_kept(file):
            file.unlink(missing_ok=True)  # as a whole_file takes its place
            file.write_text(str(number))
    with pytest.raises(OSError), backup_kept(file):  # nothing was replaced, so nothing is kept twice
        raise OSError
    names = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert names == {"a.h5": "2", "a.h5.bak": "0", "a.h5.bak2": "1"}


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
