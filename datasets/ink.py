"""Pen and ink on slides: colours that no stained tissue has at low resolution."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation, median_filter

SPECK = 3  # mask pixels: smaller areas are no ink
RIM = 1  # mask pixels around ink, in which its colour mixes with what lies beside it
GREY_STEPS = 24  # of 255 between the largest and smallest of red, green and blue: black ink has less
BLACK = 80  # of 255: black ink is darker
DARK = 30  # of 255: in pixels as dark, saturation is noise


class Colour(NamedTuple):
    """A colour of ink. hues: degrees, from and up to (beyond 360 the circle begins again). saturation: at least, of
    255; tissue of these hues stays below."""

    hues: tuple[int, int]
    saturation: int


COLOURS = {
    "blue": Colour((185, 250), 100),  # haematoxylin alone, as in immunohistochemistry, has 80
    "green": Colour((65, 185), 75),
    "red": Colour((352, 370), 150),  # eosin has hues of 320 to 348, and DAB of 15 to 40
}


def find_ink(image: np.ndarray) -> np.ndarray:
    """Where ink is, with its rim: (H, W, 3) uint8 -> (H, W) bool. Blue, green and red ink are known by their saturation
    at hues that stained tissue does not have, black ink by being dark and grey."""
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    largest, smallest = image.max(-1).astype(np.int32), image.min(-1).astype(np.int32)
    spread = largest - smallest
    saturation = 255 * spread // np.maximum(largest, 1)
    is_ink = (largest < BLACK) & (spread < GREY_STEPS)
    hue = _hue(red, green, blue, largest, spread)
    for (start, end), least in COLOURS.values():
        is_ink |= ((hue - start) % 360 <= end - start) & (saturation >= least) & (largest >= DARK)
    specks_gone = median_filter(is_ink, SPECK, mode="nearest")
    with_rim: np.ndarray = binary_dilation(specks_gone, iterations=RIM)
    return with_rim


def _hue(red: np.ndarray, green: np.ndarray, blue: np.ndarray, largest: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Degrees on the circle of colours, as in HSV; 0 for greys."""
    step = np.maximum(spread, 1)
    sector = np.select(
        [largest == red, largest == green],
        [(green - blue) / step % 6, (blue - red) / step + 2],
        (red - green) / step + 4,
    )
    degrees: np.ndarray = 60 * sector
    return degrees
