"""Generated slides: pyramids that OpenSlide reads, with the tags of an Aperio scanner or none."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

APERIO = "Aperio Image Library v11.2.1\r\n{width}x{height} -> {width}x{height} - |AppMag = {power}|MPP = {mpp}"


STORED: dict[str | None, dict[str, Any]] = {
    "jpeg 4:2:0": {"compression": "jpeg", "subsampling": (2, 2)},
    "jpeg rgb": {"compression": "jpeg", "compressionargs": {"outcolorspace": "rgb"}},
    "jpeg 2000": {"compression": 33005, "compressionargs": {"level": 35, "codecformat": "J2K"}},
    "deflate, differences": {"compression": "deflate", "predictor": True},
    "lzw, differences": {"compression": "lzw", "predictor": True},
}
"""What tifffile is told of tiles. JPEG RGB and JPEG 2000 (33005) are of Aperio's scanners."""


def write_pyramid(
    file: Path,
    image: np.ndarray,
    power: float | None = None,
    mpp: float | None = None,
    levels: Sequence[int] = (1,),
    compression: str | None = None,
    tile: int = 256,
    missing: Collection[tuple[int, int]] = (),
) -> Path:
    """Write (H, W, 3) uint8 as a tiled TIFF; levels: downsamples, each the mean of the pixels it covers. With a
    ``power`` it is an Aperio slide; with ``mpp`` alone a plain TIFF that knows the size of its pixels (in microns).
    compression: a name of ``STORED``, or of tifffile. missing: (level, tile) of tiles that are left out."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = image.shape[:2]
    said = APERIO.format(width=width, height=height, power=power, mpp=mpp) if power else None
    pixels: dict[str, Any] = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(file, bigtiff=False) as tiff:
        for number, level in enumerate(levels):
            smaller = _smaller(image, level)
            left_out = {index for of_level, index in missing if of_level == number}
            pixels_or_tiles = _tiles(smaller, tile, left_out) if left_out else smaller
            tiff.write(
                pixels_or_tiles, shape=smaller.shape, dtype=np.uint8, photometric="rgb",
                tile=(tile, tile), description=said, metadata=None, subfiletype=int(level > 1), **pixels,
                **STORED.get(compression, {"compression": compression}),
            )  # fmt: skip
    return file


def _tiles(image: np.ndarray, edge: int, left_out: Collection[int]) -> Iterator[np.ndarray | None]:
    """Row by row, those at the right and lower border filled up with their last pixels."""
    height, width = image.shape[:2]
    corners = [(top, left) for top in range(0, height, edge) for left in range(0, width, edge)]
    for number, (top, left) in enumerate(corners):
        part = image[top : top + edge, left : left + edge]
        beyond = (0, edge - part.shape[0]), (0, edge - part.shape[1]), (0, 0)
        yield None if number in left_out else np.pad(part, beyond, mode="edge")


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
