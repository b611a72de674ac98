"""Faulty feature files: the message names the file, what was found and expected, and the mending command."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import RunMain, SimulatedTask
from tests.support.damage import EXTRACT, HIGH, LFS_POINTER, LINK, LOW, SLIDE, change, cut, first_is
from tests.support.faults import Refused, check_fault


def no_patches(path: Path) -> None:
    for name in ("features", "coords"):
        change(path, name, lambda values: values[:0])


def shortened(path: Path) -> None:
    for name in ("features", "coords", "mask"):
        change(path, name, lambda values: values[:-1])


def group_of_features(path: Path) -> None:
    change(path, "features", None)
    with h5py.File(path, "r+") as file:
        file.create_group("features")["values"] = np.zeros(3)


def link_features(path: Path, link: h5py.SoftLink) -> None:
    change(path, "features", None)
    with h5py.File(path, "r+") as file:
        file["features"] = link


# folder, what is done to the slide's file there, the fault's code, what its sentence says besides the file's name
SLIDE_FAULTS = {
    "low_missing": (LOW, Path.unlink, "file.missing", (EXTRACT,)),
    "high_missing": (HIGH, Path.unlink, "file.missing", (LINK,)),
    "low_cut_off": (LOW, cut, "h5.unreadable", (EXTRACT,)),
    "high_cut_off": (HIGH, cut, "h5.unreadable", (LINK,)),
    "low_no_bytes": (LOW, lambda path: path.write_bytes(b""), "h5.unreadable", ()),
    "high_no_hdf5": (HIGH, lambda path: path.write_bytes(LFS_POINTER), "h5.unreadable", ()),
    "low_without_coords": (
        LOW, lambda path: change(path, "coords", None), "h5.no_data_set", ("no data set 'coords'", "['features']"),
    ),
    "high_without_features": (
        HIGH, lambda path: change(path, "features", None), "h5.no_data_set",
        ("no data set 'features'", "['coords', 'mask']"),
    ),
    "low_features_a_group": (LOW, group_of_features, "h5.no_data_set", ("'features'",)),
    "low_narrow": (
        LOW, lambda path: change(path, "features", lambda x: x[:, :8]), "features.width",
        ("8 wide", "expected 16", "--vlm_path"),
    ),
    "high_wide": (
        HIGH, lambda path: change(path, "features", lambda x: x.repeat(2, -1)), "features.width",
        ("32 wide", "expected 16", "--vlm_path"),
    ),
    "low_flat": (
        LOW, lambda path: change(path, "features", np.ravel), "features.shape", ("expected (parents, width)",),
    ),
    "high_flat": (
        HIGH, lambda path: change(path, "features", lambda x: x[:, 0]), "features.shape",
        ("16)", "expected (parents, children, width)"),
    ),
    "low_nan": (LOW, lambda path: change(path, "features", first_is(np.nan)), "features.values", ("1 of ",)),
    "high_nan": (HIGH, lambda path: change(path, "features", first_is(np.nan)), "features.values", ("1 of ",)),
    "low_a_link": (LOW, lambda path: link_features(path, h5py.SoftLink("/nowhere")), "h5.link", ("'features'",)),
    "low_infinite": (LOW, lambda path: change(path, "features", first_is(-np.inf)), "features.values", ("1 of ",)),
    "high_half_infinite": (
        HIGH, lambda path: change(path, "features", first_is(np.inf, np.float16)), "features.values", ("1 of ",),
    ),
    "low_beyond_float32": (
        LOW, lambda path: change(path, "features", first_is(1e300, np.float64)), "features.values", ("1 of ",),
    ),
    "low_integers": (
        LOW, lambda path: change(path, "features", lambda x: x.astype(int)), "features.kind",
        ("int64", "floating point"),
    ),
    "low_no_patches": (LOW, no_patches, "features.shape", ("(0, 16)", "at least one patch")),
    "high_no_patches": (HIGH, no_patches, "features.shape", ("(0, 16, 16)", "at least one patch")),
    "low_coords_three_wide": (
        LOW, lambda path: change(path, "coords", lambda x: x[:, [0, 1, 1]]), "features.coords",
        ("coords are int64 of shape (", ", 3)", ", 2)"),
    ),
    "low_far_away": (
        LOW, lambda path: change(path, "coords", first_is(10**9, np.int64)), "features.coords",
        ("1 of ", "[1000000000, "),
    ),
    "low_coords_nan": (
        LOW, lambda path: change(path, "coords", first_is(np.nan, np.float64)), "features.coords", ("[nan, ",),
    ),
    "high_negative": (
        HIGH, lambda path: change(path, "coords", lambda x: x - 10**6), "features.coords", ("patches are of no slide",),
    ),
    "high_coords_of_parents": (
        HIGH, lambda path: change(path, "coords", lambda x: x[:, 0]), "features.coords",
        ("coords are int64 of shape (", ", 16, 2)"),
    ),
    "high_mask_narrow": (
        HIGH, lambda path: change(path, "mask", lambda x: x[:, :9]), "features.mask",
        (", 9)", "expected bool (", "16)"),
    ),
    "high_fewer_parents": (HIGH, shortened, "features.parents", (" parents found", f"{LOW}/{SLIDE}.h5 has ")),
}  # fmt: skip


@pytest.mark.parametrize("case", SLIDE_FAULTS)
def test_a_faulty_slide_file(task: SimulatedTask, refused: Refused, case: str) -> None:
    folder, break_file, code, words = SLIDE_FAULTS[case]
    file = task.features / folder / f"{SLIDE}.h5"
    break_file(file)
    (fault,) = refused()
    check_fault(fault, code, file, *words)
    if code != "features.width":  # then it is not clear which of the two is wrong
        names = f" --data_root_dir {task.root}/features --task simulated --feature_extractor tinyclip"
        assert re.search(rf"python ({EXTRACT}|{LINK}){re.escape(names)}", str(fault)), fault


def test_the_count_of_parents_of_both_files_is_told(task: SimulatedTask, refused: Refused) -> None:
    file = task.features / HIGH / f"{SLIDE}.h5"
    with h5py.File(file) as opened:
        parents = len(opened["features"])
    shortened(file)
    (fault,) = refused()
    check_fault(fault, "features.parents", file, f"{parents - 1} parents found", f"{SLIDE}.h5 has {parents}")


def test_a_missing_folder_of_features(task: SimulatedTask, refused: Refused) -> None:
    shutil.rmtree(task.features)
    (fault,) = refused()
    command = f"python extract_features.py --wsi-dir SLIDES --data_root_dir {task.root}/features "
    check_fault(fault, "features.missing", task.features, command)


@pytest.mark.parametrize("folder", [LOW, HIGH])
def test_rows_that_are_all_zero_are_told_each_time(
    task: SimulatedTask, run_main: RunMain, tmp_path: Path, folder: str
) -> None:
    file = task.features / folder / f"{SLIDE}.h5"
    with h5py.File(file) as opened:
        place = 2 if folder == LOW else tuple(np.argwhere(opened["mask"][()])[3])

    def zeroed(values: np.ndarray) -> np.ndarray:
        values[place] = 0
        return values

    change(file, "features", zeroed)
    for _ in range(2):  # the second time as the memory of the checks has it
        code, out, _ = run_main(task.options(tmp_path / "results", "--dry_run"))
        (warning,) = [line for line in out.splitlines() if "all zero" in line]
        assert code == 0 and "1 patches of 1 slides" in warning and SLIDE in warning
