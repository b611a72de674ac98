"""Features of one scale alone, and what is told of many slides at once."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from models.build import KINDS
from tests.conftest import FaultsOf, RunMain
from tests.support.faults import check_fault
from tests.support.feature_files import square, write_clam, write_file, write_trident
from tests.support.h5_files import attributes_of
from tests.support.linking_runs import WIDTH, numbers_told, options, put, random_features
from utils.config import Config
from utils.model_types import FLAT, MODEL_TYPES

SCRIPT, CHECK = "create_hierarchical_features", "check_hierarchical_consistency"
LOW, HIGH = square(5, 3, 2048), square(20, 12, 512)  # 15 parents with all their children


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "plip")


# ---- one scale alone -------------------------------------------------------------------------------------------------


def test_the_models_of_one_scale_are_listed() -> None:
    assert set(FLAT) == {name for name in MODEL_TYPES if KINDS[name].form(Config(model_type=name)) == "patches"}


@pytest.mark.parametrize("place", ["trident", "clam"])
def test_high_features_alone_are_for_the_flat_models(
    folders: FeatureFolders, run_main: RunMain, tmp_path: Path, place: str
) -> None:
    high = random_features(len(HIGH), 2)
    if place == "trident":
        write_trident(folders.root, "a", high, HIGH, 20, 40, "plip")
        more = []
    else:
        more = ["--high-dir", str(write_clam(tmp_path / "clam", "a", high, HIGH, 512, 0).parent)]
    for _ in range(2):
        code, out, err = run_main(options(folders, *more), SCRIPT)
        assert (code, err) == (0, "")
        assert numbers_told(out)["children"] == len(HIGH)
        assert "note: the 20x features alone are in" in out and "MaxPooling" in out
    bag = read_bag(folders, Slide("a", "p", 0), WIDTH, "patches")
    np.testing.assert_array_equal(bag.patches, high)
    np.testing.assert_array_equal(bag.high_coords, HIGH)
    assert attributes_of(folders.high_file("a"))["patch_size_level0"] == 512
    assert not folders.hierarchical_file("a").parent.exists() and not folders.low_file("a").parent.exists()


def test_a_named_folder_without_low_features_is_a_fault(
    folders: FeatureFolders, faults_of: FaultsOf, tmp_path: Path
) -> None:
    write_trident(folders.root, "a", random_features(len(HIGH), 2), HIGH, 20, 40, "plip")
    (fault,) = faults_of(options(folders, "--low-dir", str(tmp_path / "typo")), SCRIPT)
    check_fault(fault, "features.missing", tmp_path / "typo")


def test_low_features_are_looked_for_beside_the_high_ones(
    folders: FeatureFolders, run_main: RunMain, tmp_path: Path
) -> None:
    for scale, coords in ((5, LOW), (20, HIGH)):
        write_trident(tmp_path / "job", "a", random_features(len(coords), scale), coords, scale, 40, "plip")
    assert run_main(options(folders, "--high-dir", str(tmp_path / "job")), SCRIPT)[0] == 0
    assert read_bag(folders, Slide("a", "p", 0), WIDTH).child_mask.all()


# ---- what is told once -----------------------------------------------------------------------------------------------


def test_notes_and_warnings_of_many_slides_are_one_line(folders: FeatureFolders, run_main: RunMain) -> None:
    slides = [f"s{number}" for number in range(8)]
    for number, slide_id in enumerate(slides):
        put(folders, slide_id, LOW, HIGH[: 240 - 16 * number])
    code, out, _ = run_main(options(folders, "--max-patches", "4"), SCRIPT)
    assert code == 0
    assert out.count("parents have more than") == 5  # of other numbers
    for slide_id in slides:
        with h5py.File(folders.hierarchical_file(slide_id), "r+") as opened:
            opened.attrs["child_order"] = "none"
            for name in ("features", "coords"):
                opened[name][0, :2] = opened[name][0, :2][::-1]
    for name in slides[:2]:
        folders.high_file(name).unlink()
    _, out, _ = run_main(options(folders), CHECK)
    alone, disordered = sorted((line for line in out.splitlines() if line.startswith("note:")), key=len)
    assert alone.endswith("(2 slides: 's0', 's1')")
    assert disordered.startswith("note: 8 children") and disordered.endswith("(8 slides)")


def test_the_same_warning_names_its_slides_on_one_line(folders: FeatureFolders, run_main: RunMain) -> None:
    for number in range(7):
        put(folders, f"s{number}", LOW, HIGH, patch_size_level0=512)
        write_file(folders.low_file(f"s{number}"), random_features(len(LOW), 0), LOW, {"patch_size_level0": 1024})
    code, out, _ = run_main(options(folders), SCRIPT)
    assert code == 0
    assert "warning: stride: 7 slides\n  s0, s1, s2, s3, s4 and 2 more: patches at 5x are 1024" in out
