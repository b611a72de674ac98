"""Which reader a slide gets, that files do not depend on it, and what waits between reading and encoding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.pyramids import tissue, write_pyramid
from datasets import slide_features
from datasets.extraction_plan import FeatureRecipe, SlidePlan
from datasets.folders import FeatureFolders
from datasets.slide_features import SlideFeatures, extract_features, read_batches, walk, write_slide_features
from datasets.slide_readers import ReaderChoice
from datasets.tile_reader import TileReader
from tests.support.faults import expect_faults
from tests.support.planned_slides import ENCODER, PLAIN, plan
from tests.support.real_slides import real_slide
from tests.support.run_contents import files_below
from utils.h5 import read_attributes

HALF = FeatureRecipe(5, 20, 0.1, "none", ENCODER, half_decode=True)
WIDTH = 3 * 16**2
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return tissue(2600, 3200, [(0, 0, 2500, 3100)])


@pytest.fixture
def write(tmp_path: Path, picture: np.ndarray) -> Write:
    def write(compression: str | None = "jpeg", levels: tuple[int, ...] = (1, 4), tile: int = 240, **how: Any) -> Path:
        return write_pyramid(tmp_path / "slide.svs", picture, 40, 0.25, levels, compression, tile, **how)

    return write


def shrink(patches: Tensor) -> Tensor:
    """(N, 3, 256, 256) uint8 -> (N, WIDTH), means of 16 x 16 pixels."""
    return torch.nn.functional.avg_pool2d(patches.float(), 16).flatten(1)


def files_of(folder: Path, planned: SlidePlan, workers: int = 0) -> dict[str, bytes]:
    """The files that a plan gives."""
    folders = FeatureFolders(folder, "task", "pixels")
    (slide,) = extract_features([planned], shrink, WIDTH, 64, workers)
    assert isinstance(slide, SlideFeatures)
    write_slide_features(folders, slide)
    return files_below(folders.root, "*.h5")


# ---- which reader ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compression", "tile"), [("jpeg", 240), ("jpeg rgb", 256), ("deflate", 256)])
def test_files_are_those_of_openslide(tmp_path: Path, write: Write, compression: str, tile: int) -> None:
    file = write(compression, tile=tile)
    by_tiles, through_openslide = (plan(tmp_path, file, level0=None, reader=reader) for reader in ("auto", "openslide"))
    assert (by_tiles.reader, through_openslide.reader) == (ReaderChoice(by_tiles=True), ReaderChoice())
    expected = files_of(tmp_path / "openslide", through_openslide)
    assert len(expected) == 3
    assert files_of(tmp_path / "tiles", by_tiles) == expected


@pytest.mark.parametrize(("name", "level0"), [("cmu-1-small-region.svs", None), ("tcga-cr-7395.svs", 20)])
def test_files_of_real_slides_are_those_of_openslide(tmp_path: Path, name: str, level0: float | None) -> None:
    planned = [plan(tmp_path, real_slide(name), level0=level0, reader=reader) for reader in ("auto", "openslide")]
    assert planned[0].reader == ReaderChoice(by_tiles=True)
    assert files_of(tmp_path / "tiles", planned[0]) == files_of(tmp_path / "openslide", planned[1])


@pytest.mark.parametrize(("apart", "by_tiles"), [(0, True), (1, True), (2, False), (40, False)])
def test_a_slide_whose_pixels_differ_is_left_to_openslide(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch, apart: int, by_tiles: bool
) -> None:
    original = TileReader._decoded

    def brighter(*tile: Any) -> np.ndarray:
        return np.minimum(original(*tile).astype(int) + apart, 255).astype(np.uint8)

    monkeypatch.setattr(TileReader, "_decoded", brighter)
    choice = plan(tmp_path, write(), level0=None).reader
    assert choice.by_tiles == by_tiles
    assert (f"by {apart} grey levels" in choice.note) != by_tiles
    forced = plan(tmp_path, write(), level0=None, reader="tiles").reader
    assert forced.by_tiles and (f"by {apart} grey levels" in forced.note) != by_tiles


def test_levels_between_whose_pixels_patches_begin(tmp_path: Path, picture: np.ndarray) -> None:
    """The second level is 2.0008 times smaller."""
    file = write_pyramid(tmp_path / "slide.svs", picture[:2599, :3199], 40, 0.25, (1, 2), "jpeg")
    choice = plan(tmp_path, file, level0=None).reader
    assert not choice.by_tiles and "level 1" in choice.note
    with expect_faults("slide.reader") as faults:
        plan(tmp_path, file, level0=None, reader="tiles")
    assert faults[0].where == str(file)


def test_another_format_is_left_to_openslide_without_a_note(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tile_reader", "slide_readers"):
        monkeypatch.setattr(f"datasets.{module}.VENDORS", ("generic-tiff",))
    assert plan(tmp_path, write(), level0=None).reader == ReaderChoice()


@pytest.mark.parametrize("reader", ["auto", "tiles"])
def test_damage_is_told_of_with_its_place(tmp_path: Path, write: Write, reader: str) -> None:
    """Deflate, of which OpenSlide says nothing: the second half of a tile's bytes are zeros."""
    file = write("deflate", tile=256)
    planned = plan(tmp_path, file, level0=None, reader=reader)
    content = bytearray(file.read_bytes())
    content[500_000:500_400] = bytes(400)
    file.write_bytes(content)
    planned = plan(tmp_path, file, level0=None, reader=reader)
    ((failed, fault),) = extract_features([planned], shrink, WIDTH, 64, 0)
    assert failed == planned and (fault.code, fault.where) == ("slide.unreadable", str(file))
    assert "cannot be read at (" in fault.found and "tile " in fault.found


# ---- half size -------------------------------------------------------------------------------------------------------


def test_half_decoding_is_recorded_and_never_mixed(tmp_path: Path, write: Write) -> None:
    file = write()
    full, half = (plan(tmp_path, file, recipe, None) for recipe in (PLAIN, HALF))
    folders = FeatureFolders(tmp_path, "task", "pixels")
    files = folders.low_file("slide"), folders.high_file("slide"), folders.hierarchical_file("slide")
    differing = files_of(tmp_path, half)
    assert all(read_attributes(one)["half_decode"] for one in files)
    with expect_faults("features.made_otherwise") as faults:
        plan(tmp_path, file, PLAIN, None)
    assert "half_decode True, now False" in faults[0].found
    assert differing != files_of(tmp_path, full)
    assert not any(read_attributes(one)["half_decode"] for one in files)
    with expect_faults("features.made_otherwise"):
        plan(tmp_path, file, HALF, None)


# ---- what waits ------------------------------------------------------------------------------------------------------


def contents(batches: Any) -> list[tuple[list[tuple[int, int, int]], bytes]]:
    return sorted((batch.places, batch.patches.numpy().tobytes()) for batch in batches)


def test_batches_do_not_depend_on_the_number_of_workers(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on how much may wait, by which each worker reads a batch or a part of one."""
    planned = plan(tmp_path, write(), level0=None)
    expected = contents(read_batches([planned, planned], 3 * 17, 0))
    assert len(expected) == 4 and len(planned.grid.parents) == 4  # twice 2 parents of each slide
    assert contents(read_batches([planned, planned], 3 * 17, 2)) == expected
    monkeypatch.setattr(slide_features, "WAITING_BYTES", 4 * 17 * 256 * 256 * 3)
    assert contents(read_batches([planned, planned], 3 * 17, 2)) == expected


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> list[SlidePlan]:
    """The plan of 4 regions, 2,000 times."""
    folder = tmp_path_factory.mktemp("many")
    return 2000 * [plan(folder, write_pyramid(folder / "slide.svs", picture, 40, 0.25), level0=None)]


@pytest.mark.parametrize("batch_size", [1, 64, 256, 1000])
@pytest.mark.parametrize("workers", [1, 2, 5, 6, 16, 64, 1000])
def test_what_waits_is_bounded(
    monkeypatch: pytest.MonkeyPatch, many: list[SlidePlan], batch_size: int, workers: int
) -> None:
    """However many workers read: each has so many parts of so many regions ahead."""
    asked: dict[str, Any] = {}

    def loader(reader: Any, **how: Any) -> list[Any]:
        asked.update(how)
        return []

    monkeypatch.setattr(slide_features, "DataLoader", loader)
    with pytest.raises(RuntimeError):
        next(read_batches(many, batch_size, workers))
    longest = max(map(len, asked["batch_sampler"]))
    waiting = asked["num_workers"] * asked["prefetch_factor"] * longest * 17 * 256 * 256 * 3
    assert 1 <= asked["num_workers"] <= workers
    assert waiting <= max(2**29, 2 * longest * 17 * 256 * 256 * 3 if workers == 1 else 0)
    assert [item for part in sorted(asked["batch_sampler"], key=min) for item in part] == list(range(8000))


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_a_worker_walks_a_run_of_each_slide(workers: int) -> None:
    starts = np.array([0, 23, 30, 64])  # three slides, in batches of two regions
    batches = [range(start, min(start + 2, 64)) for start in range(0, 64, 2)]
    walked = walk(batches, starts, workers)
    assert sorted(walked, key=min) == batches
    slides = [int(np.searchsorted(starts, batch[0], "right")) for batch in walked]
    assert slides == sorted(slides)
    for worker in range(workers):
        mine = walked[worker::workers]
        for slide in (1, 2, 3):
            run = [batches.index(batch) for batch in mine if np.searchsorted(starts, batch[0], "right") == slide]
            assert run == list(range(min(run, default=0), min(run, default=0) + len(run)))
