"""Files that TRIDENT, CLAM, ViLa-MIL and the released pipeline wrote themselves, against what was counted by brute
force (../shared/genuine/expected.json), and the released pipeline's own hierarchical files."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets.consistency import check_slide
from datasets.feature_layouts import find_source
from datasets.folders import FeatureFolders
from datasets.hierarchy import Stored, read_stored
from datasets.linked_patches import LinkedPatches, Linking, link_patches
from datasets.repair import repair_slide
from tests.conftest import SHARED, RunMain
from tests.support.h5_files import arrays_of

GENUINE = SHARED / "genuine"
EXPECTED = GENUINE / "expected.json"
CASES = json.loads(EXPECTED.read_text()) if EXPECTED.is_file() else []
NOTE = "children stand in another overlapping parent as well, as the released code links them"
WRITTEN = {  # by the released code: the task, the slide, whether it links children twice
    "overlapping": ("overlapping_contours", "syn40diag", 16),
    "grid": ("DATA", "syn20a", 0),
    "corners": ("DATA", "syn40a", 0),
    "odd": ("DATA", "syn40odd", 0),
    "20x": ("DATA", "cmu-1-small-region", 0),
    "childless_gone": ("childless_after_check", "syn20a", 0),
}

pytestmark = pytest.mark.skipif(not CASES, reason="the files of other tools (../shared/genuine) are not here")


def linked(case: dict[str, Any], rule: str) -> LinkedPatches:
    files = GENUINE / case["low"], GENUINE / case["high"]
    encoder = "clip" if "vila_mil" in case["low"] else "plip"
    folders = FeatureFolders(Path("nowhere"), "task", encoder)
    both = []
    for file, magnification in zip(files, (5, 20), strict=True):
        source = find_source(folders, magnification, given=file.parent)
        assert source.layout.name == next(
            (tool for tool in ("trident", "clam") if case["low"].startswith(tool)), "reference"
        )
        both.append(source.layout.read(source.files()[file.stem], magnification))
    return link_patches(both[0], both[1], (5, 20), None, file.stem, Linking(rule))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_what_was_counted_by_brute_force(case: dict[str, Any]) -> None:
    low, high, sizes, made = linked(case, "centre")
    assert (sizes.parent, sizes.child) == (case["parent_size_level0"], case["child_size_level0"])
    assert (low.features.shape, high.features.shape[1]) == ((case["parents"], case["width"]), case["width"])
    assert made.mask.sum(1).tolist() == case["per_parent"]
    assert (len(high.coords), int(made.mask.sum())) == (case["children"], case["linked"])
    assert (made.orphans, made.childless) == (case["without_parent"], case["childless"])
    corners = case["per_parent_corner_rule_of_HiVE_MIL"]
    by_corner = linked(case, "released").hierarchy
    assert by_corner.mask.sum(1).tolist() == (case["per_parent"] if corners == "same" else corners)


def test_all_features_are_among_the_cases() -> None:
    """Beside the hierarchical files, files of coordinates, and slides of one scale alone."""
    told = {case[scale] for case in CASES for scale in ("low", "high")}
    files = {str(file.relative_to(GENUINE)) for file in GENUINE.rglob("*.h5") if "features" in arrays_of(file)}
    rest = {name for name in files - told if "/hierarchical_" not in name}
    assert {name for name in rest if not name.startswith(("hive_mil/overlapping", "hive_mil/childless_after"))} == set()


def copied(tmp_path: Path, place: str) -> FeatureFolders:
    shutil.copytree(GENUINE / "hive_mil" / place, tmp_path / place)
    return FeatureFolders(tmp_path / place, "tcga_nsclc", "plip")


def children_by_row(stored: Stored) -> list[list[list[float]]]:
    """The coordinates and features of every row's children, sorted."""
    both = np.concatenate([stored.coords, stored.features], axis=-1)
    return [sorted(row[real].tolist()) for row, real in zip(both, stored.real, strict=True)]


def link_anew(folders: FeatureFolders, run_main: RunMain) -> None:
    shutil.rmtree(folders.hierarchical_file("x").parent)
    names = "--task", folders.task, "--feature_extractor", "plip", "--workers", "1", "--link-rule", "released"
    assert run_main(["--data_root_dir", str(folders.data_root), *names], "create_hierarchical_features")[0] == 0


@pytest.mark.parametrize("case", WRITTEN)
def test_the_released_rule_writes_what_the_released_code_wrote(tmp_path: Path, run_main: RunMain, case: str) -> None:
    place, slide_id, _ = WRITTEN[case]
    folders = copied(tmp_path, place)
    theirs = arrays_of(folders.hierarchical_file(slide_id))
    link_anew(folders, run_main)
    ours = arrays_of(folders.hierarchical_file(slide_id))
    for name in ("features", "coords"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(ours["mask"], theirs["features"].any(-1))
    check = check_slide(folders, slide_id)
    assert check.faults == [] and not check.is_repairable


def test_the_released_rule_keeps_the_childless_parent_that_the_released_code_leaves_out(
    tmp_path: Path, run_main: RunMain
) -> None:
    folders = copied(tmp_path, "childless_before_check")
    theirs = arrays_of(folders.hierarchical_file("syn20a"))
    link_anew(folders, run_main)
    ours = arrays_of(folders.hierarchical_file("syn20a"))
    kept = ours["mask"].any(1)
    assert np.flatnonzero(~kept).tolist() == [24]
    for name in ("features", "coords"):
        np.testing.assert_array_equal(ours[name][kept], theirs[name])


@pytest.mark.parametrize("has_high", [True, False])
@pytest.mark.parametrize("case", WRITTEN)
def test_what_the_released_code_wrote_is_no_fault_and_stays(tmp_path: Path, case: str, has_high: bool) -> None:
    place, slide_id, shared = WRITTEN[case]
    folders = copied(tmp_path, place)
    if not has_high:
        folders.high_file(slide_id).unlink()
    check = check_slide(folders, slide_id)
    assert check.faults == []
    assert [note for note in check.notes if "overlapping parent" in note] == (
        [f"{shared} children stand in another overlapping parent as well, as the released code links them"]
        * bool(shared)
    )
    before = read_stored(folders.hierarchical_file(slide_id))
    repair_slide(folders, slide_id)
    after = read_stored(folders.hierarchical_file(slide_id))
    assert after.mask is not None
    assert children_by_row(after) == children_by_row(before)
    assert check_slide(folders, slide_id).faults == []


def test_a_child_twice_in_one_parent_is_a_fault_by_the_released_rule_too(tmp_path: Path) -> None:
    folders = copied(tmp_path, "overlapping_contours")
    file = folders.hierarchical_file("syn40diag")
    before = read_stored(file)
    row = int(np.flatnonzero(before.real.sum(1) == 6)[0])
    with h5py.File(file, "r+") as opened:
        for name in ("features", "coords"):
            opened[name][row, 6] = opened[name][row, 0]
    assert [fault.text for fault in check_slide(folders, "syn40diag").faults] == ["1 children stand twice"]
    repair_slide(folders, "syn40diag")
    after = read_stored(file)
    np.testing.assert_array_equal(after.coords[after.real], before.coords[before.real])
    assert check_slide(folders, "syn40diag").faults == []
