"""What feature files say of their model is carried on, and features of two models do not stand together."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.consistency import check_slide
from datasets.features_model import one_model, told_by_files
from datasets.folders import FeatureFolders
from datasets.linking import LinkOptions, link_slides
from datasets.patches import INSTANCES
from datasets.repair import repair_slide
from tests.support.faults import expect_faults
from utils.h5 import read_attributes, write_h5
from utils.model_identity import ModelIdentity

FIRST = ModelIdentity("KEEP", "keep", "1" * 64, True, True)
SECOND = ModelIdentity("SigLIP", "", "2" * 64, True, False)
SLIDE = "slide"
CORNERS = np.stack(np.meshgrid([0, 1024], [0, 1024]), -1).reshape(-1, 2)
CHILDREN = (
    CORNERS[:, None] + np.stack(np.meshgrid(range(0, 1024, 256), range(0, 1024, 256)), -1).reshape(-1, 2)
).reshape(-1, 2)


def made(tmp_path: Path, low: ModelIdentity | None, high: ModelIdentity | None) -> FeatureFolders:
    """A slide's features at both magnifications."""
    folders, rng = FeatureFolders(tmp_path, "task", "any"), np.random.default_rng(0)
    for file, coords, size, model, scale in (
        (folders.low_file(SLIDE), CORNERS, 1024, low, 5),
        (folders.high_file(SLIDE), CHILDREN, 256, high, 20),
    ):
        features = rng.normal(size=(len(coords), 8)).astype(np.float32)
        told = {"magnification": scale, "patch_size_level0": size, **(model.attributes() if model else {})}
        write_h5(file, {"features": features, "coords": coords.astype(np.int64)}, told)
    return folders


@pytest.mark.parametrize("model", [FIRST, SECOND])
def test_attributes_tell_the_model_again(tmp_path: Path, model: ModelIdentity) -> None:
    write_h5(tmp_path / "file.h5", {"features": np.ones((1, 2))}, model.attributes())
    assert ModelIdentity.of(read_attributes(tmp_path / "file.h5")) == model


@pytest.mark.parametrize("sha256", [None, "", 3, [1, 2], "1" * 63, "x" * 64, "A" * 64])
def test_other_attributes_tell_none(sha256: object) -> None:
    told = FIRST.attributes()
    assert ModelIdentity.of({**told, "model_sha256": sha256}) is None
    del told["model_family"]
    assert ModelIdentity.of(told) is None and ModelIdentity.of({}) is None


def test_linked_and_repaired_files_say_what_both_files_say(tmp_path: Path) -> None:
    folders = made(tmp_path, FIRST, FIRST)
    link_slides(folders, None, LinkOptions(workers=0))
    linked = folders.hierarchical_file(SLIDE)
    assert told_by_files(folders, SLIDE, "hierarchy") == [FIRST] and check_slide(folders, SLIDE).faults == []
    for high, told in ((None, None), (FIRST, FIRST)):
        with h5py.File(linked, "r+") as file:
            file["features"][0] += 1
        made(tmp_path, FIRST, high)
        repair_slide(folders, SLIDE)
        assert ModelIdentity.of(read_attributes(linked)) == told


def test_magnifications_of_two_models_are_not_linked(tmp_path: Path) -> None:
    folders = made(tmp_path, FIRST, SECOND)
    with expect_faults("features.mixed") as faults:
        link_slides(folders, None, LinkOptions(workers=0))
    assert str(FIRST) in faults[0].found and str(SECOND) in faults[0].found
    with expect_faults("features.mixed"):
        repair_slide(folders, SLIDE)


@pytest.mark.parametrize("which", ["low_file", "high_file"])
def test_the_checker_tells_of_two_models(tmp_path: Path, which: str) -> None:
    folders = made(tmp_path, FIRST, FIRST)
    link_slides(folders, None, LinkOptions(workers=0))
    with h5py.File(getattr(folders, which)(SLIDE), "r+") as file:
        file.attrs.update(SECOND.attributes())
    check = check_slide(folders, SLIDE)
    assert {fault.kind for fault in check.faults} == {"model"} and not check.is_repairable


def test_slides_of_two_models_are_refused_and_named(tmp_path: Path) -> None:
    folders = FeatureFolders(tmp_path, "task", "any")
    told = {"a": [FIRST], "b": [SECOND], "c": [FIRST, None], "d": [None]}
    with expect_faults("features.mixed") as faults:
        one_model(folders, told)
    assert f"2 slides of {FIRST} ('a', 'c')" in faults[0].found and f"1 slides of {SECOND} ('b')" in faults[0].found
    with expect_faults("features.mixed"):
        one_model(folders, {"a": [FIRST, replace(FIRST, projected=False)]})
    del told["b"]
    found = one_model(folders, told)
    assert (found.identity, found.untold, found.number) == (FIRST, ["c", "d"], 3)
    assert one_model(folders, {}).identity is None


def test_a_table_of_instances_has_no_model_to_tell(tmp_path: Path) -> None:
    folders = made(tmp_path, None, None)
    assert told_by_files(folders, SLIDE, "patches") == [None]
    with h5py.File(folders.high_file(SLIDE), "r+") as file:
        file.attrs[INSTANCES] = "0"
    assert told_by_files(folders, SLIDE, "patches") == []
