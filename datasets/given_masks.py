"""Masks of tissue that other tools made: images, and contours in level-0 pixels as TRIDENT and QuPath write them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from datasets.slide_names import slide_name
from utils.errors import Fault, UserError
from utils.files import files_below, read_json

TIFF, CONTOURS = (".tif", ".tiff"), (".geojson", ".json")
SUFFIXES = (".png", *TIFF, *CONTOURS)
FEW_LEVELS = 32  # labels of a mask; more grey levels are those of a blurred or compressed one
MOST_PIXELS = 2**28
STRETCH = 0.01  # by which the proportions of a mask may differ
PIXELS_OF_ROUNDING = 2
OUTSIDE = 0.05  # of the slide's edge: contours may reach beyond it by as much

Rectangle = tuple[float, float, float, float]
"""(x, y, width, height) in level-0 pixels."""


@dataclass(frozen=True)
class Window:
    """An area that is asked for. area: in level-0 pixels. shape: (width, height) in pixels of the mask to be made."""

    area: Rectangle
    shape: tuple[int, int]


def find_masks(folder: Path) -> dict[str, Path]:
    """{slide_id: file} of the masks in or below a folder: named as the slide, with or without _mask behind it.

    Raises UserError where the folder is missing, and for slides of several masks.
    """
    if not folder.is_dir():
        raise UserError(Fault("folder.missing", str(folder), "no such folder", f"masks ({', '.join(SUFFIXES)})"))
    found: dict[str, Path] = {}
    faults = []
    for file in files_below(folder):
        if file.suffix.lower() in SUFFIXES:
            name = slide_name(file.with_suffix("").name).removesuffix("_mask")
            if found.setdefault(name, file) != file:
                told = f"a mask of this slide is there already: {found[name]}"
                faults.append(Fault("mask.repeated", str(file), told, "one mask for each slide"))
    if faults:
        raise UserError(faults)
    return found


def missing_mask(folder: Path, slide_id: str) -> Fault:
    """The fault of a slide without a mask."""
    expected = ", ".join(f"{slide_id}{suffix}" for suffix in SUFFIXES)
    return Fault("mask.missing", str(folder), f"no mask of {slide_id!r}", f"one of {expected}")


def draw_mask(file: Path, size: tuple[int, int], scanned: Rectangle, window: Window) -> np.ndarray:
    """A mask of the window's shape (height, width), bool, from a file.

    size: (width, height) of the slide. scanned: the scanned area, which a mask may cover in place of the whole slide.
    Raises UserError, naming the file, where it is not readable, no mask, or of other proportions than the slide.
    """
    if file.suffix.lower() in CONTOURS:
        return _draw_contours(file, size, window)
    values = _read_image(file)
    height, width = values.shape
    areas = [area for area in ((0, 0, *size), scanned) if _fits((width, height), area)]
    if not areas:
        turned = _fits((height, width), (0, 0, *size))
        found = f"is {width} x {height} pixels, the slide {size[0]} x {size[1]}" + ", turned by 90 degrees" * turned
        raise UserError(Fault("mask.proportions", str(file), found, "the slide's proportions"))
    return _sample(values, areas[0], window)


# ---- images ----------------------------------------------------------------------------------------------------------


def _fits(mask: tuple[int, int], area: Rectangle) -> bool:
    """Whether a mask (width, height) has an area's proportions, but for rounding."""
    width, height = mask
    stretch = (area[2] / width) / (area[3] / height)
    return abs(stretch - 1) <= STRETCH + PIXELS_OF_ROUNDING / min(width, height)


def _sample(values: np.ndarray, area: Rectangle, window: Window) -> np.ndarray:
    """The mask of an area, at the centres of the window's pixels; False outside of the area."""
    inside, places = [], []
    for axis, edge in ((1, values.shape[0]), (0, values.shape[1])):  # rows, then columns
        start, length, number = window.area[axis], window.area[2 + axis], window.shape[axis]
        centres = start + (np.arange(number) + 0.5) * length / number
        index = np.floor((centres - area[axis]) * edge / area[2 + axis]).astype(int)
        inside.append((index >= 0) & (index < edge))
        places.append(index.clip(0, edge - 1))
    sampled: np.ndarray = values[np.ix_(*places)] & np.logical_and.outer(*inside)
    return sampled


def _read_image(file: Path) -> np.ndarray:
    """(H, W) bool: where the mask is not zero; where it has more levels than labels, above the middle of its range."""
    try:
        pixels = _pixels(file)
    except Exception as error:  # on damaged files the readers raise errors of any kind
        raise UserError(Fault("mask.unreadable", str(file), f"not readable as a mask ({error})")) from error
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]  # opacity
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3):
        raise UserError(Fault("mask.form", str(file), f"is an array of shape {pixels.shape}", "an image"))
    if pixels.dtype == bool:
        return pixels
    levels = len(np.unique(pixels.reshape(-1, *pixels.shape[2:]), axis=0))
    if pixels.ndim == 3 and levels > FEW_LEVELS:
        found = f"has {levels} colours, as a picture of the slide has"
        raise UserError(Fault("mask.form", str(file), found, "a mask: 0 where there is no tissue"))
    is_set = np.atleast_3d(pixels > (pixels.max() / 2 if levels > FEW_LEVELS else 0))
    mask: np.ndarray = np.asarray(is_set.any(-1))
    return mask


def _pixels(file: Path) -> np.ndarray:
    """(H, W) or (H, W, channels): the pixels of an image; of a pyramid the largest level that is not too large."""
    if file.suffix.lower() in TIFF:
        with tifffile.TiffFile(file) as tiff:
            levels = [level for level in tiff.series[0].levels if level.shape[0] * level.shape[1] <= MOST_PIXELS]
            return levels[0].asarray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB") if image.mode == "P" else image)


# ---- contours --------------------------------------------------------------------------------------------------------


def _draw_contours(file: Path, size: tuple[int, int], window: Window) -> np.ndarray:
    """Each polygon is drawn with its holes, and all are joined."""
    polygons = list(_polygons(file, read_json(file, "mask.unreadable", "GeoJSON")))
    points = np.concatenate([np.empty((0, 2)), *(ring for polygon in polygons for ring in polygon)])
    if (points < -OUTSIDE * np.array(size)).any() or (points > (1 + OUTSIDE) * np.array(size)).any():
        found = f"its contours reach from {points.min(0).tolist()} to {points.max(0).tolist()}"
        expected = f"level-0 pixels of the slide, which has {size[0]} x {size[1]}"
        raise UserError(Fault("mask.coords", str(file), found, expected))
    x, y, width, height = window.area
    scale = np.array(window.shape) / (width, height)
    drawn = np.zeros(window.shape[::-1], dtype=bool)
    for outer, *holes in polygons:
        image = Image.new("1", window.shape)
        pen = ImageDraw.Draw(image)
        for ring, value in [(outer, 1), *((hole, 0) for hole in holes)]:
            pen.polygon([tuple(point) for point in ((ring - (x, y)) * scale - 0.5).tolist()], fill=value)
        drawn |= np.asarray(image)
    return drawn


def _polygons(file: Path, value: Any) -> Iterator[list[np.ndarray]]:
    """The rings (N, 2) of each polygon, the outer one first: of a feature, a geometry, or a collection of these."""
    try:
        if isinstance(value, list):
            for member in value:
                yield from _polygons(file, member)
        elif value["type"] in ("FeatureCollection", "GeometryCollection"):
            yield from _polygons(file, value.get("features", value.get("geometries")))
        elif value["type"] == "Feature":
            yield from _polygons(file, value["geometry"])
        elif value["type"] in ("Polygon", "MultiPolygon"):
            of_polygons = value["coordinates"] if value["type"] == "MultiPolygon" else [value["coordinates"]]
            for rings in of_polygons:
                yield [np.array([point[:2] for point in ring], dtype=float).reshape(-1, 2) for ring in rings]
        else:
            found = f"has a geometry of the type {value['type']!r}"
            raise UserError(Fault("mask.form", str(file), found, "polygons"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(Fault("mask.form", str(file), f"no GeoJSON of polygons ({error!r})")) from error
