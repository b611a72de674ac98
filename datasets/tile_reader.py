"""Areas of tiled TIFF slides, from their tiles: each is decoded once, reduced by itself and put in its place.

The pixels are those of ``datasets.slides.read_area``, which reads through OpenSlide.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import tifffile
from PIL import Image

from datasets.slides import fitted, level_for
from datasets.tile_decoding import JPEG, Decode, TileError, UnsuitedSlideError, tile_decoder

VENDORS = "aperio", "generic-tiff"
"""What OpenSlide calls the formats whose levels are pages of one TIFF file, tile by tile."""
CACHE_BYTES = 2**28
"""Of decoded tiles, of all processes that read together."""
WHOLE = 1e-6  # of a pixel

cv2.setNumThreads(0)  # slides are read in processes


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, without its right and lower edge."""

    left: int
    top: int
    right: int
    bottom: int

    def within(self, other: "Box") -> "Box":
        """The part of it that lies in another one."""
        return Box(
            max(self.left, other.left), max(self.top, other.top),
            min(self.right, other.right), min(self.bottom, other.bottom),
        )  # fmt: skip

    def part_of(self, array: np.ndarray, unit: int = 1) -> np.ndarray:
        """A view of it in an array whose elements are ``unit`` pixels wide."""
        return array[self.top // unit : self.bottom // unit, self.left // unit : self.right // unit]

    def moved(self, x: int, y: int) -> "Box":
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def edges(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class TileLevel:
    """A level of the pyramid. offsets, counts: (tiles) int64, where in the file the bytes of each tile lie, row by row;
    a count of 0 is a tile that was left out. tile, size: (width, height) in pixels."""

    offsets: np.ndarray
    counts: np.ndarray
    tile: tuple[int, int]
    size: tuple[int, int]
    columns: int
    decode: Decode

    @classmethod
    def of(cls, page: Any) -> "TileLevel":
        """Raises UnsuitedSlideError for a page whose tiles cannot be decoded here."""
        decode = tile_decoder(page)
        tile, size = (page.tilewidth, page.tilelength), (page.imagewidth, page.imagelength)
        columns, rows = (-(-edge // of_tile) for edge, of_tile in zip(size, tile, strict=True))
        offsets, counts = (np.asarray(values, np.int64) for values in (page.dataoffsets, page.databytecounts))
        if not len(offsets) == len(counts) == columns * rows:
            raise UnsuitedSlideError(f"its index has {len(offsets)} tiles, expected {columns * rows}")
        return cls(offsets, counts, tile, size, columns, decode)

    def halved(self, page: Any) -> "TileLevel | None":
        """The same tiles, decoded at half their width and height; None where they cannot be."""
        if page.compression != JPEG or any(edge % 2 for edge in self.tile):
            return None
        tile, size = (self.tile[0] // 2, self.tile[1] // 2), (-(-self.size[0] // 2), -(-self.size[1] // 2))
        return replace(self, tile=tile, size=size, decode=tile_decoder(page, half=True))

    def parts(self, area: Box) -> Iterator[tuple[int, Box, Box]]:
        """(number, box, the box's part in the area and in the level) of the tiles that have pixels in an area."""
        inside = area.within(Box(0, 0, *self.size))
        width, height = self.tile
        for row in range(inside.top // height, -(-inside.bottom // height)):
            for column in range(inside.left // width, -(-inside.right // width)):
                left, top = column * width, row * height
                box = Box(left, top, left + width, top + height)
                yield row * self.columns + column, box, box.within(inside)


class TileReader:
    """Reads areas of one slide, one after the other.

    Tiles that reach beyond an area to the right or below are kept, as far as ``cache_bytes`` allow: where areas are
    read row by row, a neighbour still to come needs them.
    """

    def __init__(
        self, file: Path, slide: openslide.OpenSlide, half_decode: bool = False, cache_bytes: int = CACHE_BYTES
    ):
        """half_decode: JPEG tiles of which at most every second pixel is asked are decoded at half their size. Raises
        UnsuitedSlideError where the slide is no TIFF of tiles."""
        if (vendor := slide.properties.get(openslide.PROPERTY_NAME_VENDOR)) not in VENDORS:
            raise UnsuitedSlideError(f"its format is {vendor}")
        try:
            tiff = tifffile.TiffFile(file)
            self._pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        except Exception as error:  # of many kinds; OpenSlide has read the index
            raise UnsuitedSlideError(f"its index cannot be read ({error})") from error
        self.slide, self._half, self._cache_bytes = slide, half_decode, cache_bytes
        self._levels: dict[int, TileLevel] = {}
        self._half_levels: dict[int, TileLevel | None] = {}
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._kept_bytes = 0
        self._file = tiff.filehandle

    def check(self, corners: np.ndarray, size: tuple[int, int], out: tuple[int, int]) -> None:
        """Raise UnsuitedSlideError where OpenSlide would draw the areas otherwise: between two pixels of the level, or
        with pixels of another level in place of tiles that were left out. corners: (N, 2) level-0 pixels (x, y)."""
        index = level_for(self.slide, min(size[0] / out[0], size[1] / out[1]))
        places = corners / self.slide.level_downsamples[index]
        if np.abs(places - places.round()).max(initial=0) > WHOLE:
            raise UnsuitedSlideError(f"patches begin between two pixels of its level {index}")
        is_aperio = self.slide.properties[openslide.PROPERTY_NAME_VENDOR] == "aperio"
        if is_aperio and index and not self._level(index).counts.all():
            raise UnsuitedSlideError(f"tiles of its level {index} were left out")

    def read(self, corner: tuple[int, int], size: tuple[int, int], out: tuple[int, int]) -> np.ndarray:
        """As ``read_area``: (height, width, 3) uint8. Raises TileError, UnsuitedSlideError, OSError."""
        index = level_for(self.slide, min(size[0] / out[0], size[1] / out[1]))
        downsample = self.slide.level_downsamples[index]
        x, y = (round(edge / downsample) for edge in corner)
        area = Box(x, y, *(start + max(1, round(edge / downsample)) for start, edge in zip((x, y), size, strict=True)))
        factor = _factor(area, out)
        level = self._level(index)
        half = self._halved(index) if self._half and factor % 2 == 0 else None
        if half and not any(edge % 2 for edge in area.edges()):
            level, area, factor = half, Box(*(edge // 2 for edge in area.edges())), factor // 2
        parts = [(number, box, inside.moved(-area.left, -area.top)) for number, box, inside in level.parts(area)]
        by_tile = factor and not any(edge % factor for *_, place in parts for edge in place.edges())
        unit = factor if by_tile else 1
        image = np.full(((area.bottom - area.top) // unit, (area.right - area.left) // unit, 3), 255, np.uint8)
        for number, box, place in parts:
            if level.counts[number]:
                pixels = self._tile(level, number, box, area)
                inside = place.moved(area.left - box.left, area.top - box.top)
                put_reduced(inside.part_of(pixels), unit, place.part_of(image, unit))
        return image if image.shape[1::-1] == out else np.asarray(fitted(Image.fromarray(image), out))

    def _page(self, index: int) -> Any:
        """The page of a level: the first one of its size that has tiles."""
        for page in self._pages:
            if page.is_tiled and (page.imagewidth, page.imagelength) == self.slide.level_dimensions[index]:
                return page
        raise UnsuitedSlideError(f"its level {index} is no page of tiles")

    def _level(self, index: int) -> TileLevel:
        if index not in self._levels:
            self._levels[index] = TileLevel.of(self._page(index))
        return self._levels[index]

    def _halved(self, index: int) -> TileLevel | None:
        if index not in self._half_levels:
            self._half_levels[index] = self._level(index).halved(self._page(index))
        return self._half_levels[index]

    def _tile(self, level: TileLevel, number: int, box: Box, area: Box) -> np.ndarray:
        """A tile's pixels, good until the next call. Those that later areas may need are kept."""
        key = id(level), number
        kept = self._kept.pop(key, None)
        pixels = self._decoded(level, number) if kept is None else kept
        self._kept_bytes -= 0 if kept is None else kept.nbytes
        if min(box.right, level.size[0]) > area.right or min(box.bottom, level.size[1]) > area.bottom:
            self._kept[key] = pixels.copy() if kept is None else kept
            self._kept_bytes += pixels.nbytes
            while self._kept_bytes > self._cache_bytes:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

    def _decoded(self, level: TileLevel, number: int) -> np.ndarray:
        offset, count = int(level.offsets[number]), int(level.counts[number])
        where = f"tile {number} of the level of {level.size[0]} x {level.size[1]} pixels"
        if offset + count > self._file.size:
            raise TileError(f"{where} lies outside the file")
        self._file.seek(offset)
        try:
            return level.decode(self._file.read(count))
        except TileError as error:
            raise TileError(f"{where} is damaged: {error}") from error


def _factor(area: Box, out: tuple[int, int]) -> int:
    """How many times larger an area is than its image; 0 where that is no whole number, the same in both directions."""
    factor, rest = divmod(area.right - area.left, out[0])
    return factor if rest == 0 and area.bottom - area.top == factor * out[1] else 0


def put_reduced(pixels: np.ndarray, factor: int, place: np.ndarray) -> None:
    """Write pixels (H, W, 3) into a view of (H / factor, W / factor, 3), each the mean of factor x factor, rounded as
    Pillow's ``reduce`` does."""
    if factor == 1:
        place[...] = pixels
    elif factor == 2:  # several times faster than Pillow, whose images have four bytes a pixel; others round otherwise
        place[...] = cv2.resize(pixels, place.shape[1::-1], interpolation=cv2.INTER_AREA)
    else:
        place[...] = np.asarray(Image.fromarray(pixels).reduce(factor))
