"""Features of other tools in forms that are theirs alone: CLAM's levels and pt_files, STAMP's microns, one scale alone,
swapped coordinates."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datasets.bags import read_bag
from datasets.feature_layouts import find_source
from datasets.folders import FeatureFolders
from datasets.hierarchy import read_stored
from datasets.patch_sizes import size_from_attributes
from datasets.patches import Patches
from datasets.task import Slide
from tests.conftest import FaultsOf, RunMain
from tests.support.faults import check_fault, expect_faults
from tests.support.feature_files import square, write_clam, write_file, write_trident
from tests.support.h5_files import arrays_of, attributes_of
from tests.support.linking_runs import WIDTH, numbers_told, options, put, random_features

SCRIPT, CHECK = "create_hierarchical_features", "check_hierarchical_consistency"
LOW, HIGH = square(5, 3, 2048), square(20, 12, 512)  # 15 parents with all their children


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "plip")


def both(folders: FeatureFolders) -> tuple[np.ndarray, np.ndarray]:
    """The features that the cases below write."""
    return random_features(len(LOW), 1), random_features(len(HIGH), 2)


def check_all_linked(folders: FeatureFolders, slide_id: str = "a") -> None:
    """Every parent has its 16 children, with their features."""
    low, high = both(folders)
    bag = read_bag(folders, Slide(slide_id, "p", 0), WIDTH)
    np.testing.assert_array_equal(bag.low_features, low)
    stored = read_stored(folders.hierarchical_file(slide_id))
    assert stored.real.all()
    of_place = {tuple(place): features for place, features in zip(HIGH // 512, high, strict=True)}
    for row, parent in enumerate(LOW // 2048):
        places = [(4 * parent[0] + x, 4 * parent[1] + y) for y in range(4) for x in range(4)]
        np.testing.assert_array_equal(stored.features[row], [of_place[place] for place in places])


# ---- CLAM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch_size", "downsample", "size"),
    [(512, 4.0015, 2048), (256, 8.0027, 2048), (512, 16.03, 8192), (512, 1.0, 512), (256, [2.0004, 2.0001], 512)],
)
def test_clam_steps_by_whole_downsamples(patch_size: int, downsample: Any, size: int) -> None:
    attributes = {"patch_size": patch_size, "downsample": downsample}
    assert size_from_attributes(Patches(Path("a.h5"), np.ones((1, 1)), LOW[:1], attributes)) == size


@pytest.mark.parametrize("downsample", [4.0015, 8.0027])
def test_a_level_that_is_no_whole_downsample_is_linked(
    folders: FeatureFolders, run_main: RunMain, downsample: float
) -> None:
    low, high = both(folders)
    places = folders.data_root / "clam_5x", folders.data_root / "clam_20x"
    write_clam(places[0], "a", low, LOW, 2048 // int(downsample), 1)
    write_clam(places[1], "a", high, HIGH, 512, 0)
    with h5py.File(places[0] / "patches" / "a.h5", "r+") as opened:
        opened["coords"].attrs["downsample"] = [downsample, downsample + 0.0004]
    code, out, _ = run_main(options(folders, "--low-dir", str(places[0]), "--high-dir", str(places[1])), SCRIPT)
    assert code == 0 and "warning" not in out
    told = attributes_of(folders.hierarchical_file("a"))
    assert (told["parent_size_level0"], told["patch_size_level0"]) == (2048, 512)
    check_all_linked(folders)


def write_tensors(folder: Path, slide_id: str, features: np.ndarray, coords: np.ndarray, tool: str, scale: int) -> Path:
    """Features as tensors alone, their coordinates in patches/; -> what --low-dir names."""
    if tool == "trident":
        files = write_trident(folder, slide_id, features, coords, scale, 40, "plip")
        (files / f"{slide_id}.h5").unlink()
        torch.save(torch.from_numpy(features), files / f"{slide_id}.pt")
        return folder
    place = folder / f"clam_{scale}x"
    beside = "feats" if tool == "clam_one_up" else ""
    files = write_clam(place, slide_id, features, coords, 256 * 40 // scale, 0, beside)
    shutil.rmtree(files)
    torch.save(torch.from_numpy(features), files.with_name("pt_files") / f"{slide_id}.pt")
    return place / beside


@pytest.mark.parametrize("tool", ["clam", "clam_one_up", "trident"])
def test_tensors_alone_get_the_coordinates_beside_them(
    folders: FeatureFolders, run_main: RunMain, tool: str, tmp_path: Path
) -> None:
    low, high = both(folders)
    dirs = [write_tensors(tmp_path / "their", "a", low, LOW, tool, 5)]
    dirs += [write_tensors(tmp_path / "their", "a", high, HIGH, tool, 20)]
    named = options(folders, "--low-dir", str(dirs[0]), "--high-dir", str(dirs[1]))
    assert run_main(named, SCRIPT)[0] == 0
    check_all_linked(folders)
    code, out, _ = run_main(named, SCRIPT)
    assert (code, numbers_told(out)["slides skipped"]) == (0, 1)


def test_tensors_without_their_coordinates(folders: FeatureFolders, tmp_path: Path) -> None:
    low, _ = both(folders)
    place = write_tensors(tmp_path, "a", low, LOW, "clam", 5)
    source = find_source(folders, 5, given=place)
    file = source.files()["a"]
    assert (source.layout.name, file.name) == ("clam", "a.pt")
    np.testing.assert_array_equal(source.layout.read(file, 5).features, low)
    torch.save({"features": torch.ones(15, 4)}, file)
    with expect_faults("features.shape"):
        source.layout.read(file, 5)
    torch.save(torch.ones(14, 4), file)
    with expect_faults("features.coords"):
        source.layout.read(file, 5)
    shutil.rmtree(place / "patches")
    with expect_faults("features.no_coords"):
        source.layout.read(file, 5)


def test_files_with_coordinates_are_preferred_to_tensors(folders: FeatureFolders, tmp_path: Path) -> None:
    place = write_clam(tmp_path, "a", both(folders)[0], LOW, 2048, 0).parent
    torch.save(torch.ones(15, 4), place / "pt_files" / "a.pt")
    assert find_source(folders, 5, given=place).folder == place / "h5_files"


# ---- microns ---------------------------------------------------------------------------------------------------------


def write_stamp(folder: Path, features: np.ndarray, coords: np.ndarray, tile: float, **told: Any) -> Path:
    """As STAMP writes: ``feats``, and coordinates in microns, on a grid of the tiles' size."""
    folder.mkdir(parents=True)
    size = 512 * (4 if len(coords) == len(LOW) else 1)
    with h5py.File(folder / "a.h5", "w") as opened:
        opened["feats"] = features.astype(np.float16)
        opened["coords"] = (coords / size * tile).astype(np.float32)
        opened.attrs.update({"unit": "um", "tile_size_um": tile, "tile_size_px": 256, "extractor": "plip", **told})
    return folder


def stamp(folders: FeatureFolders, **told: Any) -> list[str]:
    """Both scales as STAMP writes them: -> the options that name them."""
    low, high = both(folders)
    dirs = [
        write_stamp(folders.data_root / f"stamp_{name}", features, coords, tile, **told)
        for name, features, coords, tile in (("5x", low, LOW, 512.0), ("20x", high, HIGH, 128.0))
    ]
    return ["--low-dir", str(dirs[0]), "--high-dir", str(dirs[1])]


@pytest.mark.parametrize("mpp", [0.25, 0.2523, 0.499])
@pytest.mark.parametrize("by", ["table", "attribute"])
def test_microns_become_level_0_pixels(
    folders: FeatureFolders, run_main: RunMain, tmp_path: Path, mpp: float, by: str
) -> None:
    more = stamp(folders, **({"mpp": mpp} if by == "attribute" else {}))
    if by == "table":
        (tmp_path / "t.csv").write_text(f"slide_id,label,MPP\na.svs,X,{mpp}\n")
        more += ["--dataset_csv", str(tmp_path / "t.csv")]
    code, out, err = run_main(options(folders, *more), SCRIPT)
    assert (code, err, "warning" in out) == (0, "", False)
    stored = read_stored(folders.hierarchical_file("a"))
    assert stored.real.all()
    child = round(128 / mpp)
    assert (stored.attributes["patch_size_level0"], stored.attributes["parent_size_level0"]) == (child, 4 * child)
    copies = [arrays_of(file) for file in (folders.low_file("a"), folders.high_file("a"))]
    for copy, coords, microns in zip(copies, (LOW / 2048, HIGH / 512), (512, 128), strict=True):
        np.testing.assert_array_equal(copy["coords"], np.rint(coords * microns / mpp))
    np.testing.assert_array_equal(copies[1]["features"], both(folders)[1].astype(np.float16))
    assert "unit" not in attributes_of(folders.low_file("a"))
    assert run_main(options(folders), CHECK)[0] == 0


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({}, "features.unit"),
        ({"unit": "µm"}, "features.unit"),
        ({"unit": ""}, "features.unit"),  # the size of the tiles is told in microns
        ({"unit": "mm", "mpp": 0.25}, "features.unit"),
        ({"mpp": 0}, "features.attribute"),
    ],
)
def test_microns_without_the_size_of_a_pixel_are_refused(
    folders: FeatureFolders, faults_of: FaultsOf, told: dict[str, Any], code: str
) -> None:
    more = stamp(folders, **told)
    faults = faults_of(options(folders, *more), SCRIPT)
    assert [fault.code for fault in faults] == [code, code]
    assert not folders.hierarchical_file("a").exists()


@pytest.mark.parametrize("unit", ["px", "pixels"])
def test_pixels_by_name_are_pixels(folders: FeatureFolders, run_main: RunMain, unit: str) -> None:
    for file, features, coords in zip(
        (folders.low_file("a"), folders.high_file("a")), both(folders), (LOW, HIGH), strict=True
    ):
        write_file(file, features, coords, {"unit": unit})
    assert run_main(options(folders), SCRIPT)[0] == 0
    check_all_linked(folders)


# ---- x and y ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["in a row", "in a column", "some tissue"])
@pytest.mark.parametrize("scale", ["low", "high"])
def test_swapped_coordinates_at_one_scale_are_refused(
    folders: FeatureFolders, faults_of: FaultsOf, run_main: RunMain, scale: str, layout: str
) -> None:
    low, high = {
        "in a row": (square(12, 2, 2048), square(48, 8, 512)),
        "in a column": (square(2, 9, 2048), square(8, 36, 512)),
        "some tissue": (square(5, 3, 2048) + 4096 * np.array([7, 1]), square(20, 12, 512) + 4096 * np.array([7, 1])),
    }[layout]
    put(folders, "straight", low, high)
    put(folders, "swapped", *((low[:, ::-1], high) if scale == "low" else (low, high[:, ::-1])))
    (fault,) = faults_of(options(folders), SCRIPT)
    check_fault(
        fault,
        "features.swapped",
        folders.high_file("swapped"),
        f"{len(high)} with x and y",
        str(folders.low_file("swapped")),
    )
    assert folders.hierarchical_file("straight").is_file() and not folders.hierarchical_file("swapped").exists()


@pytest.mark.parametrize("kept", [3, 7, 15])
def test_few_parents_are_not_taken_for_swapped_ones(folders: FeatureFolders, run_main: RunMain, kept: int) -> None:
    put(folders, "a", LOW[:kept], HIGH, patch_size_level0=0)
    for file, coords, size in ((folders.low_file("a"), LOW[:kept], 2048), (folders.high_file("a"), HIGH, 512)):
        write_file(file, random_features(len(coords), 3), coords, {"patch_size_level0": size})
    assert run_main(options(folders), SCRIPT)[0] == 0
