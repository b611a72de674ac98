"""Reading slides: against the pixels they were made of, and against OpenSlide itself on a real slide."""

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest

from benchmarks.pyramids import tissue, write_pyramid
from datasets import slides
from datasets.slides import Magnification, open_slide, read_area, read_overview, read_scale_tags
from tests.support.faults import expect_faults
from tests.support.real_slides import real_slide


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), dtype=np.uint8)


# ---- magnification ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "value", "origin"),
    [
        ({"power": 40, "mpp": 0.25}, 40, "objective power 40"),
        ({"power": 20, "mpp": 0.5}, 20, "objective power 20"),
        ({"power": 20, "mpp": 0.25}, 20, "objective power 20, although 0.25 microns per pixel say 40x"),
        ({"mpp": 0.2325}, 40, "0.2325 microns per pixel"),
        ({"mpp": 0.499}, 20, "0.499 microns per pixel"),
        ({"mpp": 0.55}, 20, "0.55 microns per pixel"),
        ({"mpp": 1.0}, 10, "1 microns per pixel"),
        ({"mpp": 0.33}, None, ""),  # neither 20x nor 40x
        ({"mpp": 3.0}, None, ""),
        ({}, None, ""),
    ],
)
def test_magnification_by_tags(
    tmp_path: Path, image: np.ndarray, tags: dict[str, Any], value: float | None, origin: str
) -> None:
    file = write_pyramid(tmp_path / "slide.svs", image[:300, :300], **tags)
    found = read_scale_tags(file).magnification()
    assert (found.value if found else None) == value
    assert (found.origin if found else "") == origin
    assert (found.is_doubtful if found else False) == ("although" in origin)


def test_magnification_of_real_slides() -> None:
    found = read_scale_tags(real_slide("cmu-1-small-region.svs")).magnification()
    assert found == Magnification(20, "objective power 20")
    assert read_scale_tags(real_slide("tcga-cr-7395.svs")).magnification() is None


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(1,), (1, 2), (1, 4), (1, 2, 4, 8)])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_an_area_is_the_mean_of_its_pixels(
    tmp_path: Path, image: np.ndarray, levels: tuple[int, ...], reduction: int
) -> None:
    left, top, width, height = 80, 240, 400, 320
    expected = image[top : top + height, left : left + width].astype(float)
    expected = expected.reshape(height // reduction, reduction, width // reduction, reduction, 3).mean((1, 3))
    with open_slide(write_pyramid(tmp_path / "slide.tif", image, levels=levels)) as slide:
        area = read_area(slide, (left, top), (width, height), (width // reduction, height // reduction))
    assert np.abs(np.asarray(area) - expected).max() <= (0 if reduction == 1 else 1.5)  # a level is rounded as well


@pytest.mark.parametrize(("downsample", "level"), [(1, 0), (1.9, 0), (2, 1), (2.5, 1), (3.9, 1), (4, 2), (100, 3)])
def test_an_area_is_read_once_at_the_nearest_finer_level(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, downsample: float, level: int
) -> None:
    read: list[int] = []
    with open_slide(write_pyramid(tmp_path / "slide.tif", image, levels=(1, 2, 4, 8))) as slide:
        original = slide.read_region
        monkeypatch.setattr(
            slide, "read_region", lambda at, level, size: (read.append(level), original(at, level, size))[1]
        )
        read_area(slide, (0, 0), (800, 800), (round(800 / downsample), round(800 / downsample)))
    assert read == [level]


def test_a_level_that_is_nearly_exact_counts_as_exact() -> None:
    """The real slide's second level is 2.0005 times smaller, not 2."""
    with open_slide(real_slide("tcga-cr-7395.svs")) as slide:
        area = np.asarray(read_area(slide, (1024, 512), (2048, 2048), (1024, 1024)))
        direct = np.asarray(slide.read_region((1024, 512), 1, (1024, 1024)))[..., :3]
    np.testing.assert_array_equal(area, direct)


def test_outside_of_the_slide_is_white(tmp_path: Path, image: np.ndarray) -> None:
    with open_slide(write_pyramid(tmp_path / "slide.tif", image)) as slide:
        area = np.asarray(read_area(slide, (900, 1100), (256, 256), (256, 256)))
    np.testing.assert_array_equal(area[:100, :100], image[1100:, 900:])
    assert (area[100:] == 255).all() and (area[:, 100:] == 255).all()


@pytest.mark.parametrize("most_pixels", [2**26, 200**2])
def test_an_overview_is_the_same_in_tiles(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, most_pixels: int
) -> None:
    largest: list[int] = []
    monkeypatch.setattr(slides, "MOST_PIXELS", most_pixels)
    with open_slide(write_pyramid(tmp_path / "slide.tif", image, levels=(1, 4))) as slide:
        original = slide.read_region
        monkeypatch.setattr(
            slide, "read_region", lambda at, level, size: (largest.append(max(size)), original(at, level, size))[1]
        )
        overview = np.asarray(read_overview(slide, (0, 0), (1000, 1200), (125, 150)))
    expected = image.reshape(150, 8, 125, 8, 3).mean((1, 3))
    assert np.abs(overview - expected).max() <= 1.5
    assert max(largest) <= most_pixels**0.5


def test_the_scanned_area(tmp_path: Path, image: np.ndarray) -> None:
    class Scanned:
        dimensions = (5000, 4000)

        def __init__(self, **properties: str):
            self.properties = {f"openslide.bounds-{name}": value for name, value in properties.items()}

    def found(slide: Any) -> tuple[int, int, int, int]:
        return slides.bounds(slide)

    assert found(Scanned()) == (0, 0, 5000, 4000)
    assert found(Scanned(x="100", y="200", width="300", height="400")) == (100, 200, 300, 400)
    assert found(Scanned(x="100", y="200")) == (100, 200, 4900, 3800)


def test_a_damaged_tile_is_told_of(tmp_path: Path) -> None:
    file = write_pyramid(tmp_path / "slide.tif", tissue(1024, 1024, [(0, 0, 1024, 1024)]), compression="deflate")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20_000] = bytes(20_000)
    file.write_bytes(content)
    with (
        expect_faults("slide.unreadable"),
        slides.reading(file) as slide,
    ):
        slide.read_region((0, 0), 0, (1024, 1024))
    assert isinstance(slide, openslide.OpenSlide)
