"""Whole-slide images through OpenSlide: found in folders, their magnification told, areas of them read."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import openslide
from PIL import Image

from datasets.numbers import positive_number
from datasets.slide_names import SUFFIXES, slide_name
from utils.errors import Fault, UserError
from utils.files import files_below
from utils.names import check_names
from utils.words import listed

NOMINAL_MAGNIFICATIONS = 5, 10, 20, 40, 60, 80
MICRONS_AT_1X = 10.0  # a pixel at 20x is 0.5 microns wide, at 40x 0.25
MPP_TOLERANCE = 0.2  # scanners differ in what they call 20x or 40x
LEVEL_TOLERANCE = 0.01  # the levels of a pyramid are not exact: 2.0005 for 2
MOST_PIXELS = 2**26  # of a level, read at once


@dataclass(frozen=True)
class Magnification:
    """value: of level 0. origin: what it was taken from, for the report."""

    value: float
    origin: str


def find_slides(folder: Path, wanted: Collection[str] | None = None) -> dict[str, Path]:
    """{slide_id: file} of all slides in or below a folder, or of those ``wanted``, sorted; the id is the file's name
    without its extension (``slide_name``).

    Raises UserError where the folder is missing, has no slide, lacks a wanted one, or has two of one name.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        expected = f"a folder with slides ({', '.join(SUFFIXES)})"
        raise UserError(Fault("folder.missing", str(folder), problem, expected))
    files = [file for file in files_below(folder) if file.suffix.lower() in SUFFIXES]
    if wanted is not None:
        files = [file for file in files if slide_name(file.name) in wanted]
        there = {slide_name(file.name) for file in files}
        missing = [slide_id for slide_id in wanted if slide_id not in there]
        if missing:
            told = f"{len(missing)} of {len(wanted)} slides of the table are not there ({listed(missing)})"
            raise UserError(Fault("slide.missing", str(folder), told))
    if not files:
        expected = f"files such as {', '.join(SUFFIXES)}"
        raise UserError(Fault("slide.missing", str(folder), "no slides in it or below it", expected))
    return dict(sorted(by_name(files).items()))


def by_name(files: Iterable[Path]) -> dict[str, Path]:
    """{name without extension: file}. Raises UserError for each file whose name another one has, and for names
    that ``check_names`` refuses."""
    files = list(files)
    check_names([file.stem for file in files], str(files[0].parent) if files else "", "slides")
    found: dict[str, Path] = {}
    faults = [
        Fault("slide.repeated", str(file), f"a slide of this name is there already: {found[slide_name(file.name)]}")
        for file in files
        if found.setdefault(slide_name(file.name), file) != file
    ]
    if faults:
        raise UserError(faults)
    return found


def open_slide(file: Path) -> openslide.OpenSlide:
    """Raises UserError where the file is missing, or none that OpenSlide reads."""
    if not file.is_file():
        raise UserError(Fault("slide.missing", str(file), "file not found"))
    try:
        return openslide.OpenSlide(file)
    except openslide.OpenSlideError as error:
        found = f"not readable as a slide, it may be cut off ({error})"
        raise UserError(Fault("slide.unreadable", str(file), found)) from error


@contextmanager
def reading(file: Path) -> Iterator[openslide.OpenSlide]:
    """An open slide; what goes wrong with it is raised as a UserError that names the file."""
    try:
        with open_slide(file) as slide:
            yield slide
    except openslide.OpenSlideError as error:
        found = f"cannot be read, it may be damaged ({error})"
        raise UserError(Fault("slide.unreadable", str(file), found)) from error
    except UserError as error:
        raise UserError([replace(fault, where=fault.where or str(file)) for fault in error.faults]) from error


def tagged_magnification(slide: openslide.OpenSlide) -> Magnification | None:
    """Magnification of level 0 by the slide's own tags: the objective's power, else the size of a pixel, taken to the
    nominal magnification that it is near to; None where neither tells."""
    power = positive_number(slide.properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER, ""))
    mpp = positive_number(slide.properties.get(openslide.PROPERTY_NAME_MPP_X, ""))
    nominal = _nominal(MICRONS_AT_1X / mpp) if mpp else None
    pixel = f"{mpp:.4g} microns per pixel" if mpp else ""
    if power:
        doubt = f", although {pixel} say {nominal}x" if nominal and nominal != power else ""
        return Magnification(power, f"objective power {power:g}{doubt}")
    return Magnification(nominal, pixel) if nominal else None


def _nominal(exact: float) -> int | None:
    nearest = min(NOMINAL_MAGNIFICATIONS, key=lambda value: abs(value / exact - 1))
    return nearest if abs(nearest / exact - 1) <= MPP_TOLERANCE else None


def level0_magnification(file: Path) -> float | None:
    """Magnification of a slide's level 0 by its own tags, or None. Raises UserError where it is no readable slide."""
    with reading(file) as slide:
        tagged = tagged_magnification(slide)
    return tagged.value if tagged else None


def bounds(slide: openslide.OpenSlide) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the scanned area in level-0 pixels: the whole slide, where the file does not say."""
    names = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
    values = [positive_number(slide.properties.get(f"openslide.{name}", "")) or 0 for name in names]
    x, y = round(values[0]), round(values[1])
    return x, y, round(values[2]) or slide.dimensions[0] - x, round(values[3]) or slide.dimensions[1] - y


def read_area(
    slide: openslide.OpenSlide, corner: tuple[int, int], size: tuple[int, int], out: tuple[int, int]
) -> Image.Image:
    """An area of the slide as an RGB image, averaged over pixels; what lies outside the slide is white.

    corner, size: (x, y) and (width, height) in level-0 pixels. out: (width, height) of the image, not larger than that.
    It is read once, at the coarsest level that is not coarser than the image.
    """
    level = level_for(slide, min(size[0] / out[0], size[1] / out[1]))
    downsample = slide.level_downsamples[level]
    width, height = (max(1, round(edge / downsample)) for edge in size)
    pixels = slide.read_region(corner, level, (width, height))
    return fitted(_on_white(pixels), out)


def fitted(image: Image.Image, out: tuple[int, int]) -> Image.Image:
    """An image averaged to (width, height) ``out``, not larger than the image."""
    factor, rest = divmod(image.width, out[0])
    if rest == 0 and image.size == (factor * out[0], factor * out[1]):
        return image.reduce(factor) if factor > 1 else image  # the same as BOX, faster
    return image.resize(out, Image.Resampling.BOX)


def _on_white(pixels: Image.Image) -> Image.Image:
    alpha = pixels.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return pixels.convert("RGB")
    white = Image.new("RGB", pixels.size, "white")
    white.paste(pixels, mask=alpha)
    return white


def level_for(slide: openslide.OpenSlide, downsample: float) -> int:
    """The coarsest level that is not coarser than ``downsample`` level-0 pixels per pixel; 0 where all are."""
    fine_enough = [
        level for level, found in enumerate(slide.level_downsamples) if found <= downsample * (1 + LEVEL_TOLERANCE)
    ]
    return fine_enough[-1] if fine_enough else 0


def read_overview(
    slide: openslide.OpenSlide, corner: tuple[int, int], size: tuple[int, int], out: tuple[int, int]
) -> Image.Image:
    """As ``read_area``, in tiles: an area of a slide of a single level need not fit into memory."""
    pixel = size[0] / out[0], size[1] / out[1]
    tile = max(1, int(MOST_PIXELS**0.5 * slide.level_downsamples[level_for(slide, min(pixel))] / max(pixel)))
    image = Image.new("RGB", out, "white")
    for top in range(0, out[1], tile):
        for left in range(0, out[0], tile):
            shape = min(tile, out[0] - left), min(tile, out[1] - top)
            start = corner[0] + round(left * pixel[0]), corner[1] + round(top * pixel[1])
            image.paste(
                read_area(slide, start, (round(shape[0] * pixel[0]), round(shape[1] * pixel[1])), shape), (left, top)
            )
    return image
