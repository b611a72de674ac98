"""The check of all features before training, and its checked of what was found good."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets import checks
from datasets.bag_cache import BagCache
from datasets.checks import check_features
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.support.faults import expect_faults
from utils.errors import UserError

WIDTH = 4
SLIDES = [Slide(f"s{number}", "p", 0) for number in range(4)]


def write_slide(folders: FeatureFolders, slide: Slide, value: float = 1.0, width: int = WIDTH) -> None:
    shapes = {folders.low_file(slide.slide_id): (3,), folders.hierarchical_file(slide.slide_id): (3, 16)}
    for file, shape in shapes.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as opened:
            opened["features"] = np.full((*shape, width), value, dtype=np.float32)
            opened["coords"] = np.zeros((*shape, 2), dtype=np.int64)


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    folders = FeatureFolders(tmp_path / "features", "task", "encoder")
    for slide in SLIDES:
        write_slide(folders, slide)
    return folders


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    return tmp_path / "results" / "checked_features.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The slides read so far."""
    read, read_bag = [], checks.read_bag

    def counted(folders: FeatureFolders, slide: Slide, *rest: int | None) -> object:
        read.append(slide.slide_id)
        return read_bag(folders, slide, *rest)

    monkeypatch.setattr(checks, "read_bag", counted)
    return read


def test_slides_found_good_are_not_read_again(folders: FeatureFolders, checked: Path, reads: list[str]) -> None:
    check_features(BagCache(folders, WIDTH, 0), SLIDES[:3], checked)
    assert reads == ["s0", "s1", "s2"]
    written = checked.read_bytes()
    check_features(BagCache(folders, WIDTH, 0), SLIDES[:3], checked)
    assert reads == ["s0", "s1", "s2"]
    assert checked.read_bytes() == written
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    assert reads == ["s0", "s1", "s2", "s3"]
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    assert reads == ["s0", "s1", "s2", "s3"]


def test_without_checked_all_are_read_every_time(folders: FeatureFolders, reads: list[str]) -> None:
    for _ in range(2):
        check_features(BagCache(folders, WIDTH, 0), SLIDES[:2])
    assert reads == ["s0", "s1", "s0", "s1"]


@pytest.mark.parametrize("which", ["low_file", "hierarchical_file"])
def test_a_changed_file_is_read_again(folders: FeatureFolders, checked: Path, reads: list[str], which: str) -> None:
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    file = getattr(folders, which)("s2")
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    with h5py.File(file, "r+") as opened:
        opened["features"][0] = np.nan
    assert file.stat().st_size == size
    os.utime(file, ns=(time + 1, time + 1))
    reads.clear()
    with expect_faults("features.values"):
        check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    assert reads == ["s2"]


def test_a_file_of_another_size_is_read_again(folders: FeatureFolders, checked: Path, reads: list[str]) -> None:
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    file = folders.low_file("s1")
    time = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes() + bytes(1))
    os.utime(file, ns=(time, time))
    reads.clear()
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    assert reads == ["s1"]


def test_another_width_is_checked_again(folders: FeatureFolders, checked: Path) -> None:
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    with expect_faults(*["features.width"] * 2 * len(SLIDES)):
        check_features(BagCache(folders, WIDTH + 1, 0), SLIDES, checked)


def test_a_faulty_slide_is_not_remembered_and_the_good_ones_are(
    folders: FeatureFolders, checked: Path, reads: list[str]
) -> None:
    write_slide(folders, SLIDES[1], np.inf)
    for expected in (["s0", "s1", "s2", "s3"], ["s1"], ["s1"]):
        reads.clear()
        with expect_faults("features.values", "features.values"):
            check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
        assert reads == expected
    write_slide(folders, SLIDES[1])
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)


def test_a_file_that_went_away_is_missed(folders: FeatureFolders, checked: Path) -> None:
    check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    folders.hierarchical_file("s3").unlink()
    with pytest.raises(UserError, match=r"s3\.h5: file not found"):
        check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)


def test_the_faults_of_all_slides_are_told_at_once(folders: FeatureFolders) -> None:
    write_slide(folders, SLIDES[0], np.nan)
    folders.low_file("s1").unlink()
    write_slide(folders, SLIDES[3], width=3)
    with pytest.raises(UserError) as caught:
        check_features(BagCache(folders, WIDTH, 0), SLIDES)
    both = [(folders.low_file(slide_id), folders.hierarchical_file(slide_id)) for slide_id in ("s0", "s1", "s3")]
    faulty = [*both[0], both[1][0], *both[2]]
    assert [str(fault).split(": ")[0] for fault in caught.value.faults] == [str(file) for file in faulty]


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"file": 3}'])
def test_a_useless_checked_is_replaced(folders: FeatureFolders, checked: Path, reads: list[str], text: str) -> None:
    checked.parent.mkdir()
    checked.write_text(text)
    for _ in range(2):
        check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    assert reads == ["s0", "s1", "s2", "s3"]
    assert any(str(folders.low_file("s0")) in name for name in json.loads(checked.read_text()))


def test_no_features_at_all(tmp_path: Path, checked: Path) -> None:
    folders = FeatureFolders(tmp_path / "elsewhere", "task", "encoder", 5, 20)
    with expect_faults("features.missing") as faults:
        check_features(BagCache(folders, WIDTH, 0), SLIDES, checked)
    assert faults[0].mend.count(f"--data_root_dir {tmp_path / 'elsewhere'} --task task") == 2
    assert not checked.exists()
