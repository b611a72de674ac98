"""What a missing feature's message advises depends on what lies there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.bags import read_bag
from datasets.checks import check_root
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.support.faults import expect_faults
from tests.support.feature_files import some_features, square, write_clam, write_file, write_trident
from utils.errors import UserError
from utils.interface import BagForm

EXTRACT, LINK = "python extract_features.py", "python create_hierarchical_features.py"
LOW, HIGH = square(2, 1, 2048), square(8, 4, 512)


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "plip")


def trident(place: Path, scales: tuple[int, ...] = (5, 20), encoder: str = "plip") -> None:
    for scale in scales:
        coords = LOW if scale == 5 else HIGH
        write_trident(place, "a", some_features(len(coords)), coords, scale, 40, encoder)


def reference(folders: FeatureFolders, scales: tuple[int, ...] = (5, 20)) -> None:
    for scale, file, coords in ((5, folders.low_file("a"), LOW), (20, folders.high_file("a"), HIGH)):
        if scale in scales:
            write_file(file, some_features(len(coords)), coords, {})


def clam(folders: FeatureFolders) -> None:
    for scale, size, coords in ((5, 2048, LOW), (20, 512, HIGH)):
        write_clam(folders.root / f"plip_{scale}x", "a", some_features(len(coords)), coords, size, 0)


Place = Callable[[FeatureFolders], None]
CASES: dict[str, tuple[Place, BagForm, list[str], list[str]]] = {  # what lies there, form, advised, not advised
    "nothing": (lambda folders: None, "hierarchy", [EXTRACT, LINK], ["--low-dir"]),
    "a job in the task's folder": (
        lambda folders: trident(folders.root), "hierarchy", [LINK, "(trident)", "--features-from DATA/task_plip"],
        [EXTRACT, "--low-dir"],
    ),
    "a job in the task's other folder": (
        lambda folders: trident(folders.data_root / "task"), "hierarchy",
        [LINK, "--low-dir DATA/task/5x_256px_0px_overlap/features_plip", "--features-from DATA/task"], [EXTRACT],
    ),
    "the data root is a job": (
        lambda folders: trident(folders.data_root), "hierarchy",
        [LINK, "--high-dir DATA/20x_256px_0px_overlap/features_plip", "--features-from DATA"], [EXTRACT],
    ),
    "a job, for a flat model": (lambda folders: trident(folders.root), "patches", [LINK], [EXTRACT]),
    "20x of a job, for a flat model": (
        lambda folders: trident(folders.root, (20,)), "patches", [LINK, "copy"], [EXTRACT],
    ),
    "20x of a job, for both scales": (
        lambda folders: trident(folders.root, (20,)), "hierarchy",
        ["20x features alone", "MeanPooling", EXTRACT], [LINK],
    ),
    "a job of another encoder": (
        lambda folders: trident(folders.data_root / "task", encoder="uni_v1"), "hierarchy",
        ["'uni_v1'", "--feature_extractor"], ["--low-dir"],
    ),
    "another encoder's folder": (
        lambda folders: reference(FeatureFolders(folders.data_root, "task", "conch")), "hierarchy",
        ["'conch'", "--feature_extractor"], ["--low-dir"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_advised(folders: FeatureFolders, case: str) -> None:
    place, form, advised, others = CASES[case]
    place(folders)
    with expect_faults("features.missing") as faults:
        check_root(folders, form)
    told = faults[0].mend.replace(str(folders.data_root), "DATA")
    assert [word for word in advised if word not in told] == []
    assert [word for word in others if word in told] == [], told


@pytest.mark.parametrize("form", ["hierarchy", "both", "patches"])
def test_a_slide_whose_features_are_in_a_job_beside_the_linked_ones(folders: FeatureFolders, form: BagForm) -> None:
    """Slides that were linked before the job went on."""
    reference(folders)
    for file in (folders.low_file("a"), folders.high_file("a")):
        file.rename(file.with_name("b.h5"))
    trident(folders.root)
    check_root(folders, form)
    for slide_id, command in (("a", LINK), ("c", EXTRACT)):
        codes = ["file.missing"] * (1 if form == "patches" else 2)
        with expect_faults(*codes) as faults:
            read_bag(folders, Slide(slide_id, "p", 0), form=form)
        assert command in faults[0].mend, slide_id


@pytest.mark.parametrize("form", ["hierarchy", "both", "patches"])
def test_a_slide_whose_features_are_in_folders_of_clam(folders: FeatureFolders, form: BagForm) -> None:
    """Below the folders that main.py reads."""
    clam(folders)
    check_root(folders, form)
    with pytest.raises(UserError) as caught:
        read_bag(folders, Slide("a", "p", 0), form=form)
    for fault in caught.value.faults:
        assert fault.code == "file.missing" and LINK in fault.mend and EXTRACT not in fault.mend


def test_children_that_are_not_linked(folders: FeatureFolders) -> None:
    reference(folders)
    with expect_faults("file.missing") as faults:
        read_bag(folders, Slide("a", "p", 0))
    assert LINK in faults[0].mend
