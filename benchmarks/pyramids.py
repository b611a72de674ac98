"""Generated slides: pyramids that OpenSlide reads, with the tags of an Aperio scanner or none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

APERIO = "Aperio Image Library v11.2.1\r\n{width}x{height} -> {width}x{height} - |AppMag = {power}|MPP = {mpp}"


def write_pyramid(
    file: Path,
    image: np.ndarray,
    power: float | None = None,
    mpp: float | None = None,
    levels: Sequence[int] = (1,),
    compression: str | None = None,
    tile: int = 256,
) -> Path:
    """Write (H, W, 3) uint8 as a tiled TIFF; levels: downsamples, each the mean of the pixels it covers. With a
    ``power`` it is an Aperio slide; with ``mpp`` alone a plain TIFF that knows the size of its pixels (in microns)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = image.shape[:2]
    said = APERIO.format(width=width, height=height, power=power, mpp=mpp) if power else None
    pixels: dict[str, Any] = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(file, bigtiff=False) as tiff:
        for level in levels:
            tiff.write(
                _smaller(image, level), photometric="rgb", tile=(tile, tile),
                compression=compression, description=said, metadata=None, subfiletype=int(level > 1), **pixels,
            )  # fmt: skip
    return file


def _smaller(image: np.ndarray, level: int) -> np.ndarray:
    if level == 1:
        return image
    rows, columns = image.shape[0] // level, image.shape[1] // level
    blocks = image[: rows * level, : columns * level].reshape(rows, level, columns, level, 3)
    means: np.ndarray = blocks.mean((1, 3))
    return means.round().astype(np.uint8)


def tissue(height: int, width: int, spots: Sequence[tuple[int, int, int, int]], seed: int = 0) -> np.ndarray:
    """A white slide with noise, and rectangles (top, left, bottom, right) of pink and purple texture."""
    generator = np.random.default_rng(seed)
    image = generator.integers(236, 244, (height, width, 1), dtype=np.uint8).repeat(3, 2)
    for top, left, bottom, right in spots:
        shape = bottom - top, right - left
        stain = generator.random(((shape[0] + 3) // 4, (shape[1] + 3) // 4, 1)).repeat(4, 0).repeat(4, 1)
        stain = stain[: shape[0], : shape[1]]
        colours = stain * np.array([110, 60, 150]) + (1 - stain) * np.array([220, 130, 180])
        image[top:bottom, left:right] = (colours + generator.normal(0, 6, colours.shape)).clip(0, 255)
    return image
