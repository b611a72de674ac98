"""Where the tissue is, and the grid of patches laid over it.

The grid begins at the scanned area's corner. A parent is a square of 256 pixels at the low magnification, and exactly
its children, squares of 256 pixels at the high one: 4 x 4 of them for 5x and 20x.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion, distance_transform_edt, median_filter
from skimage.filters import threshold_otsu

from datasets.given_masks import Window, draw_mask
from datasets.ink import DARK, find_ink
from datasets.patches import PATCH_SIZE
from datasets.slides import bounds, read_overview
from utils.errors import Fault, UserError

CELLS_PER_CHILD = 8  # mask pixels along a child's edge
MEDIAN = 7  # mask pixels, as CLAM
# of 255, bounds on Otsu's threshold: it divides the noise of an empty slide, and the tissue of one without background
LEAST_SATURATION, MOST_SATURATION = 8, 64
OVERVIEW_EDGE = 1000  # pixels at least along the overview's longer edge
OUTLINE = 2  # pixels
HALF = 0.5  # of a mask's pixel: the least share of a given mask
GREEN, ORANGE = (0, 160, 60), (255, 140, 0)
PARENT_COLOUR, CHILD_COLOUR = "black", "steelblue"


@dataclass(frozen=True)
class PatchGrid:
    """A slide's patches, on a grid of R x R children a parent.

    parents: (P, 2) int64, level-0 pixels (x, y) of the top-left corners, row by row. is_child: (P, R, R) bool, which of
    a parent's children (row, column) are patches. parent_size, child_size: edges in level-0 pixels, R times apart.
    """

    parents: np.ndarray
    is_child: np.ndarray
    parent_size: int
    child_size: int

    @property
    def num_patches(self) -> int:
        return len(self.parents) + int(self.is_child.sum())

    def child_coords(self) -> np.ndarray:
        """(P, R, R, 2) int64, level-0 pixels (x, y) of all children's top-left corners."""
        rows, columns = np.indices(self.is_child.shape[1:])
        return self.parents[:, None, None] + self.child_size * np.stack([columns, rows], -1)


@dataclass(frozen=True)
class Overview:
    """image: all of the grid's area in RGB, from level-0 pixel ``corner`` (x, y) on. tissue, ink: (height, width) bool,
    masks of the same area, CELLS_PER_CHILD elements a child."""

    image: Image.Image
    tissue: np.ndarray
    ink: np.ndarray
    corner: tuple[int, int]


@dataclass(frozen=True)
class TissueRule:
    """What counts as tissue. share: the least of a patch. threshold: of the saturation, of 255 (default: Otsu's).
    mask: a file that says where tissue is (``draw_mask``), in place of the saturation."""

    share: float
    threshold: int | None = None
    mask: Path | None = None


def tissue_mask(image: np.ndarray, ink: np.ndarray, threshold: int | None = None) -> np.ndarray:
    """Saturation above a threshold, by default Otsu's (within bounds), after a median filter, outside of ink.

    image: (H, W, 3) uint8. ink: (H, W) bool, left out before the threshold is sought. Returns (H, W) bool.
    """
    largest, smallest = image.max(-1).astype(np.int32), image.min(-1)
    saturation = (255 * (largest - smallest) // np.maximum(largest, 1)) * (largest >= DARK)
    if ink.any() and not ink.all():  # the median filter sees the nearest pixel outside
        saturation = saturation[tuple(distance_transform_edt(ink, return_distances=False, return_indices=True))]
    smooth = median_filter(saturation, MEDIAN, mode="nearest")
    if threshold is None:
        outside = smooth[~ink] if not ink.all() else smooth
        threshold = np.clip(threshold_otsu(outside), LEAST_SATURATION, MOST_SATURATION)
    is_tissue: np.ndarray = (smooth > threshold) & ~ink
    return is_tissue


def lay_grid(
    slide: openslide.OpenSlide, level0: float, magnifications: tuple[int, int], rule: TissueRule
) -> tuple[PatchGrid, Overview]:
    """The patches with a share of at least ``rule.share`` tissue; children of other parents are left out.

    level0: the slide's magnification. magnifications: (low, high). A patch at the slide's right or lower border may
    reach beyond it; what lies outside is no tissue. Raises UserError for a slide of less than the high magnification,
    and as ``draw_mask``.
    """
    low, high = magnifications
    ratio, rest = divmod(high, low)
    if rest or ratio < 2:
        where, found = f"--low_mag {low} --high_mag {high}", f"{high} is not a multiple of {low}"
        raise UserError(Fault("option.value", where, found, "the second to be a whole multiple of the first"))
    child_size = round(PATCH_SIZE * level0 / high)
    if child_size < PATCH_SIZE:
        expected = f"at least --high_mag {high}x: pixels are not made up"
        raise UserError(Fault("slide.magnification", "", f"its level 0 has {level0:g}x", expected))
    parent_size = ratio * child_size
    x, y, width, height = scanned = bounds(slide)
    columns, rows = -(-width // parent_size), -(-height // parent_size)
    cells = ratio * CELLS_PER_CHILD
    finer = -(-OVERVIEW_EDGE // (max(columns, rows) * cells))
    shape = columns * cells * finer, rows * cells * finer
    area = columns * parent_size, rows * parent_size
    overview = read_overview(slide, (x, y), area, shape)
    pixels = np.asarray(overview.reduce(finer))
    ink = find_ink(pixels)
    if rule.mask is None:
        tissue = tissue_mask(pixels, ink, rule.threshold)
    else:
        drawn = draw_mask(rule.mask, slide.dimensions, scanned, Window((x, y, *area), shape))
        tissue = _blocks(drawn, finer).mean((1, 3)) >= HALF
    child_share = _blocks(tissue, CELLS_PER_CHILD).mean((1, 3))
    parent_share = _blocks(child_share, ratio).mean((1, 3))
    row, column = np.nonzero(parent_share >= rule.share)
    is_child = _blocks(child_share >= rule.share, ratio).transpose(0, 2, 1, 3)[row, column]
    parents = np.stack([x + column * parent_size, y + row * parent_size], -1)
    return PatchGrid(parents, is_child, parent_size, child_size), Overview(overview, tissue, ink, (x, y))


def _blocks(array: np.ndarray, side: int) -> np.ndarray:
    """(H, W) -> (H / side, side, W / side, side)"""
    height, width = array.shape
    return array.reshape(height // side, side, width // side, side)


def draw_grid(grid: PatchGrid, overview: Overview) -> Image.Image:
    """The overview with the outlines of tissue (green) and ink (orange), the children (thin) and the parents (thick)
    drawn on it."""
    scale = overview.image.width // overview.tissue.shape[1]
    pixels = np.array(overview.image)
    for mask, colour in ((overview.tissue, GREEN), (overview.ink, ORANGE)):
        drawn = np.kron(mask, np.ones((scale, scale), dtype=bool))
        pixels[drawn & ~binary_erosion(drawn, iterations=OUTLINE)] = colour
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    child_edge = scale * CELLS_PER_CHILD

    def draw(corner: np.ndarray, edge: int, width: int, colour: str) -> None:
        left, top = (corner - overview.corner) // grid.child_size * child_edge
        pen.rectangle((left, top, left + edge - 1, top + edge - 1), outline=colour, width=width)

    for corner in grid.child_coords()[grid.is_child]:
        draw(corner, child_edge, 1, CHILD_COLOUR)
    for corner in grid.parents:
        draw(corner, child_edge * grid.is_child.shape[1], 2, PARENT_COLOUR)
    return image
