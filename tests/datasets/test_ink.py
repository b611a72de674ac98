"""Pen and ink: on a real section that is faded and written on, and on painted slides."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from skimage.color import rgb2hsv

from benchmarks.pyramids import tissue, write_pyramid
from datasets.ink import find_ink
from datasets.slides import open_slide, read_overview
from datasets.tissue import ORANGE, Overview, PatchGrid, TissueRule, draw_grid, lay_grid, tissue_mask
from tests.support.real_slides import real_slide

BLUE, GREEN, RED, BLACK = (20, 40, 200), (10, 150, 60), (220, 20, 30), (25, 25, 30)
STROKES = [[(60, 130), (1050, 130)], [(60, 2850), (2100, 2850)], [(1750, 60), (2150, 600)]]
WIDTH, CHILD = 90, 256
PLAIN = TissueRule(0.1)


@pytest.fixture(scope="module")
def section() -> np.ndarray:
    """CMU-1: the whole real section at its 20x."""
    with open_slide(real_slide("cmu-1-small-region.svs")) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def faded(image: np.ndarray, share: float) -> np.ndarray:
    """By a share of the distance to white."""
    pale: np.ndarray = (255 - (255 - image.astype(float)) * (1 - share)).round().astype(np.uint8)
    return pale


def written_on(image: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The image with strokes, and where they are."""
    drawn, where = Image.fromarray(image), Image.new("1", image.shape[1::-1])
    for number, stroke in enumerate(STROKES):
        ImageDraw.Draw(drawn).line(stroke, fill=colours[number % len(colours)], width=WIDTH)
        ImageDraw.Draw(where).line(stroke, fill=1, width=WIDTH)
    return np.asarray(drawn), np.asarray(where)


def lay(folder: Path, image: np.ndarray, rule: TissueRule = PLAIN) -> tuple[PatchGrid, Overview]:
    with open_slide(write_pyramid(folder / "slide.tif", image)) as slide:
        return lay_grid(slide, 20, (5, 20), rule)


def children(grid: PatchGrid) -> set[tuple[int, int]]:
    return {(x, y) for x, y in grid.child_coords()[grid.is_child].tolist()}


# ---- the real section ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("fading", [0.25, 0.5])
@pytest.mark.parametrize("colours", [(BLUE, GREEN), (RED,), (BLACK,), (BLUE,)])
def test_tissue_of_a_faded_section_is_found_beside_ink(
    tmp_path: Path, section: np.ndarray, fading: float, colours: Sequence[tuple[int, int, int]]
) -> None:
    """The 45 patches of the faded section are found with strokes beside it too, and next to none of the strokes."""
    pale = faded(section, fading)
    plain = children(lay(tmp_path, pale)[0])
    assert len(plain) == 45
    drawn, ink = written_on(pale, colours)
    found = children(lay(tmp_path, drawn)[0])
    shares = {(x, y): ink[y : y + CHILD, x : x + CHILD].mean() for x, y in found | plain}
    assert {place for place in plain - found if shares[place] < 0.2} == set()
    assert len(plain - found) <= 2
    assert sum(shares[place] > 0.25 for place in found - plain) <= 2


@pytest.mark.slow
def test_ink_that_faded_with_the_section(tmp_path: Path, section: np.ndarray) -> None:
    drawn, ink = written_on(section, (BLUE, GREEN))
    found = children(lay(tmp_path, faded(drawn, 0.25))[0])
    plain = children(lay(tmp_path, faded(section, 0.25))[0])
    assert len(plain) == 45 and len(plain & found) >= 43
    assert sum(ink[y : y + CHILD, x : x + CHILD].mean() > 0.25 for x, y in found - plain) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395.svs"])
def test_no_ink_is_seen_in_real_sections(name: str) -> None:
    """Nor does the mask change: it is what saturation alone gives."""
    with open_slide(real_slide(name)) as slide:
        width, height = slide.dimensions
        image = np.asarray(
            read_overview(slide, (0, 0), (width // 32 * 32, height // 32 * 32), (width // 32, height // 32))
        )
    assert not find_ink(image).any()


@pytest.mark.slow
def test_a_share_of_ink_is_told_and_drawn(tmp_path: Path, section: np.ndarray) -> None:
    """In orange: around the strokes, and nowhere else."""
    drawn, ink = written_on(section, (BLUE, GREEN))
    grid, overview = lay(tmp_path, drawn)
    rows, columns = (edge // 32 for edge in ink.shape)
    strokes = ink[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32).mean((1, 3))
    near = np.asarray(Image.fromarray(255 * (strokes > 0).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))) > 0
    assert overview.ink[:rows, :columns][strokes > 0.9].all() and not overview.ink[:rows, :columns][~near].any()
    scale = overview.image.width // overview.ink.shape[1]
    orange = np.argwhere((np.asarray(draw_grid(grid, overview)) == ORANGE).all(-1)) // scale
    assert len(orange) > 500
    assert all(near[row, column] for row, column in orange if row < rows and column < columns)


# ---- painted slides --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "is_ink"),
    [
        (BLUE, True), (GREEN, True), (RED, True), (BLACK, True), ((0, 0, 255), True), ((0, 255, 0), True),
        ((255, 0, 0), True), ((0, 0, 0), True), ((70, 90, 210), True), ((30, 30, 90), True), ((20, 110, 110), True),
        ((190, 120, 180), False),  # eosin and haematoxylin
        ((90, 50, 140), False),  # nuclei
        ((200, 70, 110), False),  # blood
        ((120, 70, 40), False),  # DAB
        ((150, 165, 205), False),  # haematoxylin alone
        ((240, 240, 242), False), ((128, 128, 128), False),
    ],
)  # fmt: skip
def test_colours_of_ink_and_of_tissue(colour: tuple[int, int, int], is_ink: bool) -> None:
    image = np.full((60, 60, 3), 240, np.uint8)
    image[20:40, 20:40] = colour
    found = find_ink(image)
    assert found[20:40, 20:40].mean() == pytest.approx(float(is_ink), abs=0.02)
    assert not found[:18].any() and not found[:, 42:].any()


def test_the_rim_belongs_to_the_ink_and_specks_do_not() -> None:
    image = np.full((60, 60, 3), 240, np.uint8)
    image[20:40, 20:40], image[5, 5] = BLUE, GREEN
    found = find_ink(image)
    assert found[19, 30] and found[30, 40] and not found[17, 30] and not found[5, 5]


def test_hues_are_those_of_hsv() -> None:
    """Of random colours with much saturation: blue, green and red ink lie at hues as HSV counts them."""
    generator = np.random.default_rng(0)
    for colour in generator.integers(0, 256, (200, 3), dtype=np.uint8):
        hue, saturation, value = rgb2hsv(colour[None, None])[0, 0] * (360, 255, 255)
        if min(abs(hue - edge) for edge in (10, 65, 185, 250, 352)) < 2 or saturation < 180 or value < 85:
            continue
        expected = 65 < hue < 250 or hue > 352 or hue < 10
        assert find_ink(np.full((9, 9, 3), colour))[4, 4] == expected, (colour, hue)


def test_a_slide_of_ink_alone_has_no_tissue() -> None:
    for colour in (BLUE, BLACK):
        image = np.full((50, 50, 3), colour, np.uint8)
        assert find_ink(image).all() and not tissue_mask(image, find_ink(image)).any()


def test_tissue_beside_ink_keeps_its_border() -> None:
    """The median filter does not draw ink into the tissue, nor its absence."""
    image = tissue(160, 200, [(20, 30, 120, 90)])
    before = tissue_mask(image, find_ink(image))
    image[20:120, 92:110] = BLUE
    after = tissue_mask(image, find_ink(image))
    assert (before == after).all()


@pytest.mark.parametrize(("threshold", "share"), [(0, 1.0), (40, 0.5), (254, 0.0)])
def test_a_threshold_of_the_users(tmp_path: Path, threshold: int, share: float) -> None:
    """Of saturations 20 and 100, each on half of the slide."""
    image = np.zeros((2048, 1024, 3), np.uint8)
    image[:1024], image[1024:] = (255, 235, 240), (255, 155, 200)
    grid, overview = lay(tmp_path, image, TissueRule(0.5, threshold))
    assert overview.tissue.mean() == pytest.approx(share, abs=0.02)
    assert len(grid.parents) == 2 * share
