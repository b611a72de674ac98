"""Tiles of a TIFF slide to pixels: JPEG, JPEG 2000, LZW, deflate and none, straight to RGB.

JPEG is decoded by simplejpeg, which like OpenSlide refuses a damaged stream; imagecodecs gives grey pixels in silence.
"""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg

Decode = Callable[[bytes], np.ndarray]
"""The bytes of a tile -> (height, width, 3) uint8, good until the next call. Raises ``TileError``."""

NONE, LZW, JPEG, ADOBE_DEFLATE, DEFLATE, JPEG_2000_RGB = 1, 5, 7, 8, 32946, 33005
"""Values of the tag Compression."""
RGB, YCBCR = 2, 6
"""Values of the tag PhotometricInterpretation."""
HORIZONTAL = 2  # of the tag Predictor
START_OF_IMAGE = b"\xff\xd8"
ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Ends, with one byte more, in the colour space of a JPEG stream: 0 for RGB, 1 for YCbCr."""
TOP_LEFT = 1  # of the tag Orientation


class TileError(Exception):
    """A tile that is damaged, or lies outside the file."""


class UnsuitedSlideError(Exception):
    """Why a slide is left to OpenSlide."""


def tile_decoder(page: Any, half: bool = False) -> Decode:
    """What decodes the tiles of a page of tifffile.

    half: JPEG tiles come at half their width and height. Raises UnsuitedSlideError where the page holds no RGB tiles of
    8 bits, or is compressed otherwise.
    """
    if not page.is_tiled:
        raise UnsuitedSlideError("it is not tiled")
    form = page.samplesperpixel, page.bitspersample, int(page.planarconfig), int(page.fillorder), page.sampleformat
    if form != (3, 8, 1, 1, 1) or page.tiledepth != 1 or page.imagedepth != 1:
        raise UnsuitedSlideError("its pixels are not RGB of 8 bits")
    if page.tags.valueof("Orientation", TOP_LEFT) != TOP_LEFT:
        raise UnsuitedSlideError("it is rotated")
    compression, shape = int(page.compression), (page.tilelength, page.tilewidth, 3)
    if compression == JPEG and page.photometric in (RGB, YCBCR):
        return _jpeg(page.jpegtables, page.photometric == YCBCR, shape, half)
    if page.photometric != RGB:
        raise UnsuitedSlideError(f"its colour space is {page.photometric.name}")
    if compression == JPEG_2000_RGB:
        return _jpeg_2000(shape)
    unpack = _unpackers(int(np.prod(shape))).get(compression)
    if unpack is None or page.predictor not in (1, HORIZONTAL):
        raise UnsuitedSlideError(f"its compression is {getattr(page.compression, 'name', compression)}")
    return _plain(unpack, shape, page.predictor == HORIZONTAL)


def _jpeg(tables: bytes | None, is_ycbcr: bool, shape: tuple[int, int, int], half: bool) -> Decode:
    """Each stream gets the file's tables and colour space in front."""
    head = (tables[:-2] if tables else START_OF_IMAGE) + ADOBE_MARKER + bytes([is_ycbcr])
    if half:
        shape = shape[0] // 2, shape[1] // 2, 3
    least = {"min_height": shape[0], "min_width": shape[1]} if half else {}
    buffer = np.empty(shape, np.uint8)

    def decode(data: bytes) -> np.ndarray:
        try:
            return _checked(simplejpeg.decode_jpeg(head + data[2:], buffer=buffer, **least), shape)
        except ValueError as error:
            raise TileError(str(error)) from error

    return decode


def _jpeg_2000(shape: tuple[int, int, int]) -> Decode:
    def decode(data: bytes) -> np.ndarray:
        try:
            return _checked(imagecodecs.jpeg2k_decode(data), shape)
        except RuntimeError as error:
            raise TileError(str(error)) from error

    return decode


def _unpackers(size: int) -> dict[int, Callable[[bytes], Any]]:
    """By compression. size: bytes of an unpacked tile."""

    def inflate(data: bytes) -> Any:
        return imagecodecs.deflate_decode(data, out=size)

    def lzw(data: bytes) -> Any:
        return imagecodecs.lzw_decode(data, out=size)

    return {NONE: bytes, LZW: lzw, DEFLATE: inflate, ADOBE_DEFLATE: inflate}


def _plain(unpack: Callable[[bytes], Any], shape: tuple[int, int, int], is_difference: bool) -> Decode:
    """is_difference: each pixel is stored as its difference from its left neighbour."""

    def decode(data: bytes) -> np.ndarray:
        try:
            found = unpack(data)
        except RuntimeError as error:
            raise TileError(str(error)) from error
        if len(found) != np.prod(shape):
            raise TileError(f"it holds {len(found)} bytes of pixels, expected {np.prod(shape)}")
        pixels = np.frombuffer(found, np.uint8).reshape(shape)
        return np.cumsum(pixels, axis=1, dtype=np.uint8) if is_difference else pixels

    return decode


def _checked(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise TileError(f"it holds {pixels.dtype} pixels of shape {pixels.shape}, expected {shape}")
    return pixels
