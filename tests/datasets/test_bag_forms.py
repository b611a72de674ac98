"""The three forms of a bag against direct reads of a simulated slide's files."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datasets.bag_cache import BagCache, num_bytes
from datasets.bags import feature_width, read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.conftest import SimulatedTask
from tests.support.faults import expect_faults
from tests.support.h5_files import arrays_of
from utils.errors import UserError

SLIDE = Slide("SIM-0003", "p", 1)


@pytest.fixture
def folders(simulated: SimulatedTask, tmp_path: Path) -> FeatureFolders:
    """A copy that tests may change."""
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    return FeatureFolders(tmp_path / "features", "simulated", "tinyclip")


def test_patches_alone(folders: FeatureFolders) -> None:
    """All high patches of the flat file; nothing else is read."""
    shutil.rmtree(folders.low_file("x").parent)
    shutil.rmtree(folders.hierarchical_file("x").parent)
    bag, expected = read_bag(folders, SLIDE, form="patches"), arrays_of(folders.high_file(SLIDE.slide_id))
    np.testing.assert_array_equal(bag.patches, expected["features"])
    np.testing.assert_array_equal(bag.high_coords, expected["coords"])
    assert (bag.label, bag.slide_id) == (1, "SIM-0003")
    assert bag.low_features.shape == (0, 16)


@pytest.mark.parametrize("form", ["patches", "both"])
def test_children_stand_for_the_flat_bag(folders: FeatureFolders, form: str) -> None:
    """Where the folder of flat bags is missing: the real children, parent by parent."""
    shutil.rmtree(folders.high_file("x").parent)
    bag = read_bag(folders, SLIDE, form=form)
    linked = arrays_of(folders.hierarchical_file(SLIDE.slide_id))
    expected = [
        linked["features"][parent, slot]
        for parent in range(len(linked["mask"]))
        for slot in range(16)
        if linked["mask"][parent, slot]
    ]
    np.testing.assert_array_equal(bag.patches, np.stack(expected))


def test_both_scales_without_links(folders: FeatureFolders) -> None:
    shutil.rmtree(folders.hierarchical_file("x").parent)
    bag = read_bag(folders, SLIDE, form="both")
    low = arrays_of(folders.low_file(SLIDE.slide_id))
    np.testing.assert_array_equal(bag.low_features, low["features"])
    np.testing.assert_array_equal(bag.low_coords, low["coords"])
    np.testing.assert_array_equal(bag.patches, arrays_of(folders.high_file(SLIDE.slide_id))["features"])
    assert not bag.child_mask.any()


def test_a_hierarchical_bag_has_its_children_as_patches(folders: FeatureFolders) -> None:
    bag = read_bag(folders, SLIDE)
    assert torch.equal(bag.patches, bag.high_features[bag.child_mask])
    assert len(bag.patches) == int(bag.child_mask.sum())


def test_a_slide_without_any_child(folders: FeatureFolders) -> None:
    shutil.rmtree(folders.high_file("x").parent)
    file = folders.hierarchical_file(SLIDE.slide_id)
    with h5py.File(file, "r+") as opened:
        opened["mask"][:] = False
    with expect_faults("features.childless"):
        read_bag(folders, SLIDE, form="patches")


def test_faults_of_both_scales_are_told_at_once(folders: FeatureFolders) -> None:
    folders.low_file(SLIDE.slide_id).unlink()
    folders.high_file(SLIDE.slide_id).unlink()
    with pytest.raises(UserError) as caught:
        read_bag(folders, SLIDE, form="both")
    assert len(caught.value.faults) == 2


def test_another_width(folders: FeatureFolders) -> None:
    with expect_faults("features.width"):
        read_bag(folders, SLIDE, 8, "patches")


def test_the_width_is_read_from_the_first_readable_slide(folders: FeatureFolders) -> None:
    assert feature_width(folders, [Slide("nowhere", "p"), SLIDE], "patches") == 16
    assert feature_width(folders, [Slide("nowhere", "p")], "patches") is None


def test_the_cache_keeps_flat_bags(folders: FeatureFolders) -> None:
    """What a bag takes, by the sizes of its arrays; half of it for float16, and the patches are rounded alike."""
    bag = read_bag(folders, SLIDE, form="patches")
    count = len(bag.patches)
    assert num_bytes(bag) == count * (16 * 4 + 2 * 8)
    cache = BagCache(folders, 16, 10**9, half=True, form="patches")
    first = cache.get(SLIDE)
    assert cache.size == count * (16 * 2 + 2 * 8)
    folders.high_file(SLIDE.slide_id).unlink()
    assert torch.equal(cache.get(SLIDE).patches, first.patches)
    assert torch.equal(first.patches, bag.patches.half().float())


def test_slides_of_a_folder(folders: FeatureFolders, tmp_path: Path) -> None:
    assert len(folders.slide_ids("patches")) == 20
    assert folders.slide_ids("hierarchy")[3] == "SIM-0003"
    with expect_faults("features.missing"):
        FeatureFolders(tmp_path, "other", "tinyclip").slide_ids("patches")
