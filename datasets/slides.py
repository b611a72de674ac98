"""Whole-slide images through OpenSlide: their magnification told, areas of them read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import openslide
from PIL import Image

from datasets.numbers import positive_number
from datasets.unreadable_slides import why_tiff, why_unreadable
from utils.errors import Fault, UserError

NOMINAL_MAGNIFICATIONS = 5, 10, 20, 40, 60, 80
MICRONS_AT_1X = 10.0  # a pixel at 20x is 0.5 microns wide, at 40x 0.25
MPP_TOLERANCE = 0.2  # scanners differ in what they call 20x or 40x
LEVEL_TOLERANCE = 0.01  # the levels of a pyramid are not exact: 2.0005 for 2
MOST_PIXELS = 2**26  # of a level, read at once


@dataclass(frozen=True)
class Magnification:
    """value: of level 0. origin: what it was taken from, for the report. is_doubtful: the slide's tags, or a tag and
    the user, say otherwise, as the origin tells."""

    value: float
    origin: str
    is_doubtful: bool = False


def open_slide(file: Path) -> openslide.OpenSlide:
    """Raises UserError where the file is missing, or none that OpenSlide reads."""
    if not file.is_file():
        raise UserError(Fault("slide.missing", str(file), "file not found"))
    try:
        return openslide.OpenSlide(file)
    except openslide.OpenSlideError as error:
        raise UserError(why_unreadable(file, str(error))) from error


@contextmanager
def reading(file: Path) -> Iterator[openslide.OpenSlide]:
    """An open slide; what goes wrong with it is raised as a UserError that names the file."""
    try:
        with open_slide(file) as slide:
            yield slide
    except openslide.OpenSlideError as error:
        found = f"cannot be read, it may be damaged ({error})"
        raise UserError(why_tiff(file) or Fault("slide.unreadable", str(file), found)) from error
    except UserError as error:
        raise UserError([replace(fault, where=fault.where or str(file)) for fault in error.faults]) from error


@dataclass(frozen=True)
class ScaleTags:
    """What a slide's own tags say of its level 0. power: of the objective. microns: the width of a pixel."""

    power: float | None
    microns: float | None

    def magnification(self) -> Magnification | None:
        """The objective's power, else the nominal magnification that the pixel's width is near to; None where neither
        tells."""
        if self.power:
            return self.confirm(Magnification(self.power, f"objective power {self.power:g}"))
        nominal = _nominal(MICRONS_AT_1X / self.microns) if self.microns else None
        return Magnification(nominal, self._pixel()) if nominal else None

    def confirm(self, magnification: Magnification) -> Magnification:
        """The same, or, where the width of a pixel stands for another one, doubtful."""
        exact = MICRONS_AT_1X / self.microns if self.microns else magnification.value
        if abs(magnification.value / exact - 1) <= MPP_TOLERANCE:
            return magnification
        doubt = f"although {self._pixel()} say {_nominal(exact) or exact:.3g}x"
        return Magnification(magnification.value, f"{magnification.origin}, {doubt}", is_doubtful=True)

    def unusual(self) -> str:
        """A pixel's width that is near to no nominal magnification, and what it would mean, in words."""
        if not self.microns or _nominal(MICRONS_AT_1X / self.microns):
            return ""
        nominal = ", ".join(f"{value}x" for value in NOMINAL_MAGNIFICATIONS)
        return f"{self._pixel()} would mean {MICRONS_AT_1X / self.microns:.3g}x, which is none of {nominal}"

    def _pixel(self) -> str:
        return f"{self.microns:.4g} microns per pixel"


def scale_tags(slide: openslide.OpenSlide) -> ScaleTags:
    names = openslide.PROPERTY_NAME_OBJECTIVE_POWER, openslide.PROPERTY_NAME_MPP_X
    return ScaleTags(*(positive_number(slide.properties.get(name, "")) for name in names))


def read_scale_tags(file: Path) -> ScaleTags:
    """Raises UserError where the file is no readable slide."""
    with reading(file) as slide:
        return scale_tags(slide)


def doubtful(magnifications: Mapping[str, Magnification | None]) -> list[Fault]:
    """Notes that name every slide whose magnification is doubtful. magnifications: {slide_id: that of its level 0}."""
    slides: dict[Magnification, list[str]] = {}
    for slide_id, found in magnifications.items():
        if found and found.is_doubtful:
            slides.setdefault(found, []).append(slide_id)
    mend = "extract_features.py --force-magnification overrules, or a column force_magnification in the table"
    return [
        Fault("slide.doubtful_magnification", ", ".join(ids), f"level 0 has {one.value:g}x by {one.origin}", mend=mend)
        for one, ids in slides.items()
    ]


def unusual(tags: Mapping[str, ScaleTags]) -> list[Fault]:
    """Notes that name every slide whose tags tell a pixel's width alone, and an unusual one."""
    slides: dict[str, list[str]] = {}
    for slide_id, of_slide in tags.items():
        if not of_slide.power and (told := of_slide.unusual()):
            slides.setdefault(told, []).append(slide_id)
    mend = "write its level0_mag into the table"
    return [Fault("slide.pixel_size", ", ".join(ids), told, mend=mend) for told, ids in slides.items()]


def _nominal(exact: float) -> int | None:
    nearest = min(NOMINAL_MAGNIFICATIONS, key=lambda value: abs(value / exact - 1))
    return nearest if abs(nearest / exact - 1) <= MPP_TOLERANCE else None


def magnification_of_pixels(microns: float) -> float | None:
    """The nominal magnification at which a pixel is about so many microns wide; None where it is near to none."""
    return _nominal(MICRONS_AT_1X / microns)


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
