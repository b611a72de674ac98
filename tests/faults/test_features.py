"""Faulty feature files: the message names the file, what was found and expected, and the mending command."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import SimulatedTask
from tests.support.damage import EXTRACT, HIGH, LFS_POINTER, LINK, LOW, SLIDE, Refused, change, cut, first_is


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


# folder, what is done to the slide's file there, what the message says besides the file's name
SLIDE_FAULTS = {
    "low_missing": (LOW, Path.unlink, ("file not found", EXTRACT)),
    "high_missing": (HIGH, Path.unlink, ("file not found", LINK)),
    "low_cut_off": (LOW, cut, ("not a readable HDF5 file", EXTRACT)),
    "high_cut_off": (HIGH, cut, ("not a readable HDF5 file", LINK)),
    "low_no_bytes": (LOW, lambda path: path.write_bytes(b""), ("not a readable HDF5 file",)),
    "high_no_hdf5": (HIGH, lambda path: path.write_bytes(LFS_POINTER), ("not a readable HDF5 file",)),
    "low_without_coords": (LOW, lambda path: change(path, "coords", None), ("'coords'", "found ['features']")),
    "high_without_features": (
        HIGH, lambda path: change(path, "features", None), ("'features'", "found ['coords', 'mask']"),
    ),
    "low_features_a_group": (LOW, group_of_features, ("'features'",)),
    "low_narrow": (
        LOW, lambda path: change(path, "features", lambda x: x[:, :8]), ("8 wide; expected 16", "--vlm_path"),
    ),
    "high_wide": (
        HIGH, lambda path: change(path, "features", lambda x: x.repeat(2, -1)), ("32 wide; expected 16", "--vlm_path"),
    ),
    "low_flat": (LOW, lambda path: change(path, "features", np.ravel), ("shape (", "expected (parents, width)")),
    "high_flat": (
        HIGH, lambda path: change(path, "features", lambda x: x[:, 0]),
        ("16); expected (parents, children, width)",),
    ),
    "low_nan": (LOW, lambda path: change(path, "features", first_is(np.nan)), ("1 of ", "NaN or infinite")),
    "high_nan": (HIGH, lambda path: change(path, "features", first_is(np.nan)), ("1 of ", "NaN or infinite")),
    "low_infinite": (LOW, lambda path: change(path, "features", first_is(-np.inf)), ("1 of ", "NaN or infinite")),
    "high_half_infinite": (
        HIGH, lambda path: change(path, "features", first_is(np.inf, np.float16)), ("1 of ", "NaN or infinite"),
    ),
    "low_beyond_float32": (LOW, lambda path: change(path, "features", first_is(1e300, np.float64)), ("1 of ",)),
    "low_integers": (LOW, lambda path: change(path, "features", lambda x: x.astype(int)), ("int64", "floating point")),
    "low_no_patches": (LOW, no_patches, ("shape (0, 16)", "at least one patch")),
    "high_no_patches": (HIGH, no_patches, ("shape (0, 16, 16)", "at least one patch")),
    "low_coords_three_wide": (
        LOW, lambda path: change(path, "coords", lambda x: x[:, [0, 1, 1]]),
        ("coords are int64 of shape (", ", 3); expected ", ", 2)"),
    ),
    "high_coords_of_parents": (
        HIGH, lambda path: change(path, "coords", lambda x: x[:, 0]),
        ("coords are int64 of shape (", "; expected ", ", 16, 2)"),
    ),
    "high_mask_narrow": (
        HIGH, lambda path: change(path, "mask", lambda x: x[:, :9]),
        ("mask is bool (", ", 9); expected bool (", ", 16)"),
    ),
    "high_fewer_parents": (HIGH, shortened, (" parents found, but ", f"{LOW}/{SLIDE}.h5 has ")),
}  # fmt: skip


@pytest.mark.parametrize("case", SLIDE_FAULTS)
def test_a_faulty_slide_file(task: SimulatedTask, refused: Refused, case: str) -> None:
    folder, break_file, expected = SLIDE_FAULTS[case]
    file = task.features / folder / f"{SLIDE}.h5"
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message
    if "--vlm_path" not in expected:  # for another width it is not clear which of the two is wrong
        names = f" --dataset-root-path {task.root}/features --dataset-name simulated --feature-extractor-name tinyclip"
        assert re.search(rf"python ({EXTRACT}|{LINK}){re.escape(names)}", message), message


def test_the_count_of_parents_of_both_files_is_told(task: SimulatedTask, refused: Refused) -> None:
    file = task.features / HIGH / f"{SLIDE}.h5"
    with h5py.File(file) as opened:
        parents = len(opened["features"])
    shortened(file)
    message = refused()
    assert f": {parents - 1} parents found, but " in message
    assert f"{SLIDE}.h5 has {parents};" in message


def test_a_missing_folder_of_features(task: SimulatedTask, refused: Refused) -> None:
    shutil.rmtree(task.features)
    message = refused()
    assert message.startswith(f"error: {task.features}: no such folder")
    assert f"python extract_features.py --wsi-dir SLIDES --dataset-root-path {task.root}/features " in message
