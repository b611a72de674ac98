"""What reads a slide's areas: its tiles, where they give OpenSlide's pixels, else OpenSlide."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide

from datasets.patches import PATCH_SIZE
from datasets.slides import open_slide, read_area
from datasets.tile_decoding import TileError, UnsuitedSlideError
from datasets.tile_reader import CACHE_BYTES, VENDORS, TileReader
from datasets.tissue import PatchGrid
from utils.errors import Fault, UserError

SAMPLE = 6  # patches of a slide that are read in both ways
MOST_APART = 1  # grey levels

ReadArea = Callable[[tuple[int, int], tuple[int, int], tuple[int, int]], np.ndarray]
"""(corner, size, out) as ``read_area`` -> (height, width, 3) uint8. Raises OpenSlideError, TileError and OSError."""


@dataclass(frozen=True)
class ReaderChoice:
    """What reads a slide. by_tiles: ``TileReader``, else OpenSlide. half_decode: of tiles. note: why a slide that was
    to be read by its tiles is not, or what differs; empty where all is as expected."""

    by_tiles: bool = False
    half_decode: bool = False
    note: str = ""

    def open(self, file: Path, cache_bytes: int = CACHE_BYTES) -> ReadArea:
        """Raises UserError where the slide is not readable."""
        slide = open_slide(file)
        if self.by_tiles:
            return TileReader(file, slide, self.half_decode, cache_bytes).read
        return lambda corner, size, out: np.asarray(read_area(slide, corner, size, out))


def choose_reader(file: Path, grid: PatchGrid, wanted: str = "auto", half_decode: bool = False) -> ReaderChoice:
    """Whether a slide is read by its tiles: tried on patches spread over the slide, which are read in both ways.

    wanted: auto, tiles or openslide. Raises UserError where ``tiles`` are wanted of a slide that has none.
    """
    if wanted == "openslide":
        return ReaderChoice()
    try:
        apart = _grey_levels_apart(file, grid)
    except UnsuitedSlideError as unsuited:
        if wanted == "tiles":
            found, mend = f"cannot be read by its tiles: {unsuited}", "--reader auto reads it through OpenSlide"
            raise UserError(Fault("slide.reader", str(file), found, mend=mend)) from unsuited
        return ReaderChoice(note="" if _is_other_format(file) else str(unsuited))
    except openslide.OpenSlideError:
        return ReaderChoice()  # which names the damage when it comes to the place
    told = f"its tiles differ from OpenSlide's pixels by {apart} grey levels" if apart > MOST_APART else ""
    return ReaderChoice(wanted == "tiles" or not told, half_decode, told)


def _grey_levels_apart(file: Path, grid: PatchGrid) -> int:
    """The largest difference over a sample of patches. A damaged tile is passed over: reading its patch tells of it."""
    with open_slide(file) as slide:
        reader = TileReader(file, slide)
        ratio = grid.is_child.shape[1]
        reader.check(grid.parents, *(2 * (edge,) for edge in (grid.parent_size, ratio * PATCH_SIZE)))
        patches = grid.child_coords()[grid.is_child]
        chosen = np.unique(np.linspace(0, len(patches) - 1, SAMPLE).astype(int))
        size, out = 2 * (grid.child_size,), 2 * (PATCH_SIZE,)
        apart = 0
        for corner in map(tuple, patches[chosen].tolist()):
            try:
                ours = reader.read(corner, size, out)
            except TileError:
                continue
            theirs = np.asarray(read_area(slide, corner, size, out))
            apart = max(apart, int(np.abs(ours.astype(np.int16) - theirs).max()))
    return apart


def _is_other_format(file: Path) -> bool:
    return openslide.OpenSlide.detect_format(file) not in VENDORS
