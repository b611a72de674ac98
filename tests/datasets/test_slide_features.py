"""Patches and features of slides: against OpenSlide's own reads at the coordinates that the files give."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import pytest
import torch
from torch import Tensor

from benchmarks import pyramids
from benchmarks.pyramids import tissue
from datasets.extraction_plan import FeatureRecipe, PlanJob, SlidePlan, plan_slide
from datasets.folders import FeatureFolders
from datasets.slide_features import Pace, SlideFeatures, cut_region, extract_features, write_slide_features
from datasets.slides import Magnification, read_area
from datasets.tile_reader import TileReader
from tests.support.faults import expect_faults
from tests.support.planned_slides import ENCODER, PLAIN, plan
from tests.support.real_slides import real_slide
from utils.errors import UserError

pytestmark = pytest.mark.slow
SPOT = (500, 400, 2500, 1500)
THUMBNAIL = 32  # pixels along the edge of what the stand-in encoder returns
WIDTH = 3 * THUMBNAIL**2


def shrink(patches: Tensor) -> Tensor:
    """The stand-in encoder: (N, 3, 256, 256) uint8 -> (N, WIDTH), means of 8 x 8 pixels."""
    return torch.nn.functional.avg_pool2d(patches.float(), 256 // THUMBNAIL).flatten(1)


def extract(plans: Sequence[SlidePlan], batch_size: int = 64, workers: int = 0) -> list[Any]:
    return list(extract_features(plans, shrink, WIDTH, batch_size, workers))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three 20x slides; the second has children of which not all are tissue."""
    folder = tmp_path_factory.mktemp("slides")
    spots = [[SPOT], [(100, 100, 900, 700), (1500, 1300, 2600, 2100)], [(0, 0, 1024, 1024)]]
    return [
        pyramids.write_pyramid(folder / f"slide_{number}.tif", tissue(2700, 2200, spot, seed=number))
        for number, spot in enumerate(spots)
    ]


# ---- cutting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "size"), [(4, 256), (2, 8), (4, 5)])
def test_a_region_is_cut_into_its_children_and_averaged(ratio: int, size: int) -> None:
    generator = np.random.default_rng(0)
    region = generator.integers(0, 256, (ratio * size, ratio * size, 3), dtype=np.uint8)
    is_child = generator.random((ratio, ratio)) < 0.6
    patches = cut_region(region, is_child)
    assert len(patches) == 1 + is_child.sum() and patches.dtype == np.uint8
    at = [(row, column) for row in range(ratio) for column in range(ratio) if is_child[row, column]]
    for patch, (row, column) in zip(patches[1:], at, strict=True):
        np.testing.assert_array_equal(patch, region[row * size : (row + 1) * size, column * size : (column + 1) * size])
    for row in range(size):
        for column in range(size):
            block = region[row * ratio : (row + 1) * ratio, column * ratio : (column + 1) * ratio]
            assert np.abs(patches[0, row, column] - block.mean((0, 1))).max() <= 0.5


# ---- features against direct reads -----------------------------------------------------------------------------------


@cache
def read_by_itself(file: Path, x: int, y: int, size: int) -> np.ndarray:
    """A patch read at level 0, on white, and averaged as the stand-in encoder does."""
    with openslide.OpenSlide(file) as opened:
        pixels = torch.from_numpy(np.array(opened.read_region((x, y), 0, (size, size)))).permute(2, 0, 1).float()
    means = torch.nn.functional.avg_pool2d(pixels, size // THUMBNAIL)
    return (means[:3] + 255 - means[3:]).flatten().numpy()


def check_against_openslide(file: Path, slide: SlideFeatures, tolerance: float) -> None:
    """Every patch read by itself."""
    grid = slide.plan.grid
    for parent, corner in enumerate(grid.parents.tolist()):
        expected = read_by_itself(file, *corner, grid.parent_size)
        assert np.abs(slide.low[parent] - expected).max() <= tolerance
        for child in range(16):
            if grid.is_child[parent].ravel()[child]:
                x, y = corner[0] + child % 4 * grid.child_size, corner[1] + child // 4 * grid.child_size
                expected = read_by_itself(file, x, y, grid.child_size)
                assert np.abs(slide.high[parent, child] - expected).max() <= tolerance
            else:
                assert (slide.high[parent, child] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 2), (40, 0), (40, 2), (1000, 0)])
def test_features_are_those_of_the_patches_at_their_coordinates(
    tmp_path: Path, slides: list[Path], batch_size: int, workers: int
) -> None:
    plans = [plan(tmp_path, file) for file in slides]
    results = extract(plans, batch_size, workers)
    assert [result.plan.slide_id for result in results] == ["slide_0", "slide_1", "slide_2"]
    for file, result in zip(slides, results, strict=True):
        check_against_openslide(file, result, tolerance=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [(1,), (1, 2), (1, 4)])
def test_a_40x_slide(tmp_path: Path, levels: tuple[int, ...]) -> None:
    file = pyramids.write_pyramid(
        tmp_path / "slide.svs", tissue(4200, 2200, [(300, 100, 4000, 2000)]), 40, 0.25, levels
    )
    planned = plan(tmp_path, file, level0=None)
    assert (planned.grid.parent_size, planned.grid.child_size) == (2048, 512)
    assert len(planned.grid.parents) >= 2
    check_against_openslide(file, extract([planned])[0], tolerance=1)


@pytest.mark.parametrize(("name", "level0"), [("cmu-1-small-region.svs", None), ("tcga-cr-7395.svs", 20)])
def test_real_slides(tmp_path: Path, name: str, level0: float | None) -> None:
    file = real_slide(name)
    planned = plan(tmp_path, file, level0=level0)
    assert len(planned.grid.parents) >= 4
    check_against_openslide(file, extract([planned])[0], tolerance=1)


def test_parents_are_the_means_of_their_children_before_encoding(tmp_path: Path) -> None:
    """Where all 16 are patches, pixel by pixel; also after stain normalisation."""
    file = real_slide("tcga-cr-7395.svs")
    for stain in ("none", "macenko"):
        seen: list[Tensor] = []

        def record(patches: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(patches)
            return torch.zeros(len(patches), 1)

        planned = plan(tmp_path, file, FeatureRecipe(5, 20, 0.1, stain, ENCODER))
        list(extract_features([planned], record, 1, 1, 0))
        full = [patches for patches in seen if len(patches) == 17]
        assert len(full) >= 3
        for patches in full:
            rows = [torch.cat(list(patches[1 + 4 * row : 5 + 4 * row]), dim=2) for row in range(4)]
            mean = torch.nn.functional.avg_pool2d(torch.cat(rows, dim=1).float(), 4)
            assert (patches[0].float() - mean).abs().max() <= 2


def test_stain_normalisation_is_applied(tmp_path: Path, slides: list[Path]) -> None:
    planned = plan(tmp_path, slides[0], FeatureRecipe(5, 20, 0.1, "macenko", ENCODER))
    stained, plain = extract([planned])[0], extract([plan(tmp_path, slides[0])])[0]
    assert planned.stain is not None
    parent = plain.low[0].reshape(3, -1).T.round().astype(np.uint8)
    expected = planned.stain.apply(parent).T.ravel()
    assert np.abs(stained.low[0] - plain.low[0]).mean() > 5
    assert np.abs(stained.low[0] - expected).mean() < 3


def test_stains_are_of_parents_all_over_the_slide(
    tmp_path: Path, slides: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.extraction_plan.STAIN_SAMPLE", 3)
    read: list[tuple[Any, ...]] = []

    def watch(slide: Any, *area: Any) -> Any:
        read.append(area)
        return read_area(slide, *area)

    monkeypatch.setattr("datasets.extraction_plan.read_area", watch)
    parents = plan(tmp_path, slides[0], FeatureRecipe(5, 20, 0.1, "macenko", ENCODER)).grid.parents.tolist()
    assert len(parents) > 3
    corners, sizes, shapes = zip(*read, strict=True)
    assert len(corners) == 3 and (corners[0], corners[-1]) == (tuple(parents[0]), tuple(parents[-1]))
    assert set(sizes) == {(1024, 1024)} and set(shapes) == {(256, 256)}


@pytest.mark.parametrize(
    ("reader", "method"), [("openslide", (openslide.OpenSlide, "read_region")), ("tiles", (TileReader, "read"))]
)
def test_each_region_is_read_once(
    tmp_path: Path, slides: list[Path], monkeypatch: pytest.MonkeyPatch, reader: str, method: tuple[type, str]
) -> None:
    planned = plan(tmp_path, slides[0], reader=reader)
    reads: list[tuple[int, int]] = []
    original = getattr(*method)

    def read(self: Any, at: tuple[int, int], *more: Any) -> Any:
        reads.append(at)
        return original(self, at, *more)

    monkeypatch.setattr(*method, read)
    extract([planned])
    assert sorted(reads) == sorted(map(tuple, planned.grid.parents.tolist()))


def test_progress_counts_all_patches(tmp_path: Path, slides: list[Path]) -> None:
    counted: list[int] = []

    class Counted(Pace):
        def add(self, more: Pace) -> None:
            counted.append(more.patches)
            super().add(more)

    plans, pace = [plan(tmp_path, file) for file in slides], Counted()
    list(extract_features(plans, shrink, WIDTH, 40, 0, pace=pace))
    assert sum(counted) == pace.patches == sum(planned.grid.num_patches for planned in plans)
    assert max(counted) <= 40 and pace.reading > 0 and pace.encoding > 0


# ---- slides that cannot be read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 64), (2, 64), (0, 1000)])
def test_other_slides_go_on(tmp_path: Path, slides: list[Path], workers: int, batch_size: int) -> None:
    """Also where the last slide's patches are encoded with those that were read of the bad one."""
    bad = pyramids.write_pyramid(tmp_path / "bad.tif", tissue(2700, 2200, [SPOT]), compression="deflate")
    plans = [plan(tmp_path, slides[0]), plan(tmp_path, bad), plan(tmp_path, slides[2])]
    content = bytearray(bad.read_bytes())
    content[len(content) * 2 // 3 :] = bytes(len(content) - len(content) * 2 // 3)
    content[: len(content) * 2 // 3] = bad.read_bytes()[: len(content) * 2 // 3]
    bad.write_bytes(content)
    first, (failed, fault), last = extract(plans, batch_size, workers)
    assert (failed.slide_id, fault.code, fault.where) == ("bad", "slide.unreadable", str(bad))
    check_against_openslide(slides[0], first, tolerance=0.6)
    check_against_openslide(slides[2], last, tolerance=0.6)


def test_a_slide_without_magnification_is_refused(tmp_path: Path, slides: list[Path]) -> None:
    with expect_faults("slide.magnification"):
        plan(tmp_path, slides[0], level0=None)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files(tmp_path: Path, slides: list[Path]) -> None:
    folders = FeatureFolders(tmp_path, "task", "pixels")
    planned = plan(tmp_path, slides[1])
    assert not planned.grid.is_child.all()
    slide = extract([planned])[0]
    write_slide_features(folders, slide, "bf16")
    with h5py.File(folders.hierarchical_file("slide_1")) as file:
        np.testing.assert_array_equal(file["features"], slide.high)
        np.testing.assert_array_equal(file["mask"], planned.grid.is_child.reshape(-1, 16))
        coords = planned.grid.child_coords().reshape(-1, 16, 2)
        np.testing.assert_array_equal(file["coords"], coords * planned.grid.is_child.reshape(-1, 16, 1))
        assert dict(file.attrs) | {
            "encoder": "pixels", "projected": True, "patch_size_level0": 256, "parent_size_level0": 1024,
            "level0_magnification": 20, "magnification_from": "--level0-mag", "min_tissue": 0.1, "slots": "grid",
            "low_magnification": 5, "high_magnification": 20, "stain_normalisation": "none",
        } == dict(file.attrs)  # fmt: skip
    with h5py.File(folders.low_file("slide_1")) as file:
        np.testing.assert_array_equal(file["features"], slide.low)
        np.testing.assert_array_equal(file["coords"], planned.grid.parents)
        assert (file.attrs["magnification"], file.attrs["patch_size_level0"]) == (5, 1024)
        assert file.attrs["precision"] == "bf16"
    with h5py.File(folders.high_file("slide_1")) as file:
        np.testing.assert_array_equal(file["features"], slide.high[planned.grid.is_child.reshape(-1, 16)])
        assert (file.attrs["magnification"], file.attrs["patch_size_level0"]) == (20, 256)


def test_finished_slides_are_known_and_others_refused(tmp_path: Path, slides: list[Path]) -> None:
    folders = FeatureFolders(tmp_path, "task", "pixels")
    files = folders.low_file("slide_2"), folders.high_file("slide_2"), folders.hierarchical_file("slide_2")

    def again(settings: FeatureRecipe = PLAIN, level0: float = 20, overwrite: bool = False) -> SlidePlan | None:
        given = Magnification(level0, "--level0-mag")
        return plan_slide(PlanJob("slide_2", slides[2], given, settings, folders, None, overwrite)).plan

    planned = again()
    assert planned is not None
    write_slide_features(folders, extract([planned])[0])
    assert again() is None and again(overwrite=True) is None
    for other, level0 in [
        (FeatureRecipe(5, 20, 0.2, "none", ENCODER), 20),
        (FeatureRecipe(5, 20, 0.1, "macenko", ENCODER), 20),
        (FeatureRecipe(5, 20, 0.1, "none", {**ENCODER, "model_sha256": "1"}), 20),
        (PLAIN, 40),
    ]:
        with expect_faults("features.made_otherwise"):
            again(other, level0)
        assert again(other, level0, overwrite=True) is not None
    other_slide = pyramids.write_pyramid(tmp_path / "slide_2.tif", tissue(2700, 3300, [SPOT]))
    with pytest.raises(UserError, match=r"made otherwise \(slide_bytes"):
        plan(tmp_path, other_slide)
    for file in files:
        kept = file.read_bytes()
        file.unlink()
        assert again() is not None
        file.write_bytes(kept[:100])
        with pytest.raises(UserError, match="delete it, or replace it with --overwrite"):
            again()
        assert again(overwrite=True) is not None
        file.write_bytes(kept)
    with h5py.File(files[0], "r+") as opened:
        opened.attrs.clear()
    with expect_faults("features.made_otherwise"):
        again()
