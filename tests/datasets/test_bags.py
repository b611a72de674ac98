"""Bags against direct reads of their files: the released form, the own form, half precision, padding."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.conftest import SimulatedTask
from tests.support.faults import expect_faults

PARENTS, CHILDREN, WIDTH = 5, 16, 8
SLIDE = Slide("s0", "p0", 1)


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path, "task", "encoder")


def slide_arrays(dtype: str = "float32") -> dict[str, dict[str, np.ndarray]]:
    """Features and coordinates of a slide; child slots 3 and 9 are empty, parent 2 has no child at all."""
    generator = np.random.default_rng(0)
    mask = np.ones((PARENTS, CHILDREN), dtype=bool)
    mask[:, [3, 9]] = mask[2] = False
    high = generator.normal(size=(PARENTS, CHILDREN, WIDTH)) * mask[..., None]
    return {
        "low": {
            "features": generator.normal(size=(PARENTS, WIDTH)).astype(dtype),
            "coords": generator.integers(0, 9999, (PARENTS, 2)),
        },
        "high": {
            "features": high.astype(dtype),
            "coords": generator.integers(0, 9999, (PARENTS, CHILDREN, 2)),
            "mask": mask,
        },
    }


def write(folders: FeatureFolders, arrays: dict[str, dict[str, np.ndarray]], slide: Slide = SLIDE) -> None:
    for file, name in ((folders.low_file(slide.slide_id), "low"), (folders.hierarchical_file(slide.slide_id), "high")):
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as opened:
            for key, values in arrays[name].items():
                opened[key] = values


def test_paths_of_the_released_code() -> None:
    folders = FeatureFolders(Path("data"), "tcga_rcc", "plip")
    assert str(folders.low_file("s")) == "data/tcga_rcc_plip/plip_5x/s.h5"
    assert str(folders.high_file("s")) == "data/tcga_rcc_plip/plip_20x/s.h5"
    assert str(folders.hierarchical_file("s")) == "data/tcga_rcc_plip/hierarchical_plip_5x_20x/s.h5"
    other = FeatureFolders(Path("data"), "tcga_rcc", "plip", 10, 40)
    assert str(other.low_file("s")) == "data/tcga_rcc_plip/plip_10x/s.h5"
    assert str(other.hierarchical_file("s")) == "data/tcga_rcc_plip/hierarchical_plip_10x_40x/s.h5"


def test_the_mending_command_names_other_magnifications() -> None:
    command = FeatureFolders(Path("data"), "tcga_rcc", "plip", 10, 40).hierarchy_command()
    assert "--low_mag 10" in command
    assert "--high_mag 40" in command


def test_a_simulated_slide_is_read_as_it_lies_in_its_files(simulated: SimulatedTask) -> None:
    folders = FeatureFolders(simulated.root / "features", "simulated", "tinyclip")
    bag = read_bag(folders, Slide("SIM-1004", "p", 1), 16)
    with h5py.File(simulated.features / "tinyclip_5x" / "SIM-1004.h5") as file:
        assert np.array_equal(bag.low_features.numpy(), file["features"])
        assert np.array_equal(bag.low_coords.numpy(), file["coords"])
    with h5py.File(simulated.features / "hierarchical_tinyclip_5x_20x" / "SIM-1004.h5") as file:
        assert np.array_equal(bag.high_features.numpy(), file["features"])
        assert np.array_equal(bag.child_mask.numpy(), file["mask"])
        assert np.array_equal(bag.high_coords.numpy(), file["coords"])
    assert (bag.slide_id, bag.label) == ("SIM-1004", 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("form", ["released", "own"])
def test_both_forms_in_every_precision(folders: FeatureFolders, form: str, dtype: str) -> None:
    arrays = slide_arrays(dtype)
    mask = arrays["high"]["mask"] if form == "own" else arrays["high"].pop("mask")
    write(folders, arrays)
    bag = read_bag(folders, SLIDE, WIDTH)
    assert bag.low_features.dtype == bag.high_features.dtype == torch.float32
    assert bag.child_mask.dtype == torch.bool
    assert bag.low_coords.dtype == bag.high_coords.dtype == torch.int64
    assert np.array_equal(bag.low_features, arrays["low"]["features"].astype("float32"))
    assert np.array_equal(bag.high_features, arrays["high"]["features"].astype("float32"))
    assert np.array_equal(bag.low_coords, arrays["low"]["coords"])
    assert np.array_equal(bag.high_coords, arrays["high"]["coords"])
    assert np.array_equal(bag.child_mask, mask)
    assert (bag.slide_id, bag.label) == ("s0", 1)


def test_without_a_mask_a_row_of_zeros_is_padding_and_one_zero_is_not(folders: FeatureFolders) -> None:
    arrays = slide_arrays()
    del arrays["high"]["mask"]
    arrays["high"]["features"][0, 0] = [0, 0, 0, 1e-30, 0, 0, 0, 0]
    arrays["high"]["features"][0, 1] = 0
    write(folders, arrays)
    bag = read_bag(folders, SLIDE)
    assert bag.child_mask[0].tolist() == [True, False, True, False] + [True] * 5 + [False] + [True] * 6
    assert not bag.child_mask[2].any()


def test_the_mask_of_the_file_rules_over_its_features(folders: FeatureFolders) -> None:
    arrays = slide_arrays()
    arrays["high"]["mask"][0, 3] = True  # a real child whose features are all zero
    arrays["high"]["mask"][1, 5] = False  # padding that holds numbers
    write(folders, arrays)
    bag = read_bag(folders, SLIDE)
    assert bag.child_mask[0, 3]
    assert not bag.child_mask[1, 5]
    assert (bag.high_features[~bag.child_mask] == 0).all()
    assert np.array_equal(bag.high_features[1, 6], arrays["high"]["features"][1, 6])


def test_the_width_is_checked_against_the_other_file_where_none_is_asked_for(folders: FeatureFolders) -> None:
    arrays = slide_arrays()
    write(folders, arrays)
    assert read_bag(folders, SLIDE, None).low_features.shape == (PARENTS, WIDTH)
    arrays["high"]["features"] = arrays["high"]["features"][..., :6]
    write(folders, arrays)
    with expect_faults("features.width") as faults:
        read_bag(folders, SLIDE, None)
    assert faults[0].where == str(folders.hierarchical_file("s0"))
    assert faults[0].found == "features are 6 wide"
    assert faults[0].expected.startswith("8, the width of")
