"""Heat maps of patches as small images, to be laid over a slide."""

import base64
import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image

COLOUR_MAP = "viridis"
MOST_PIXELS = 1200  # along an edge
PIXELS_PER_CHILD = 2
NO_PATCH = -1


@dataclass(frozen=True)
class Canvas:
    """An area of a slide. frame: (x, y, width, height) in level-0 pixels. pixel: the edge of a map's pixel in them."""

    frame: tuple[int, int, int, int]
    pixel: float

    @classmethod
    def of(cls, frame: tuple[int, int, int, int], child_size: int) -> "Canvas":
        return cls(frame, max(child_size / PIXELS_PER_CHILD, max(frame[2:]) / MOST_PIXELS))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the maps."""
        return max(1, round(self.frame[2] / self.pixel)), max(1, round(self.frame[3] / self.pixel))

    def place(self, coords: np.ndarray, size: int) -> np.ndarray:
        """Which patch covers each pixel: (height, width) indices into ``coords`` (N, 2), NO_PATCH where none does."""
        width, height = self.size
        places = np.full((height, width), NO_PATCH)
        first = np.rint((coords - self.frame[:2]) / self.pixel).astype(int)
        last = np.rint((coords + size - self.frame[:2]) / self.pixel).astype(int)
        for index, ((left, top), (right, bottom)) in enumerate(zip(first, last, strict=True)):
            places[top : max(bottom, top + 1), left : max(right, left + 1)] = index
        return places


def heat_map(places: np.ndarray, values: np.ndarray, limits: tuple[float, float]) -> Image.Image:
    """Patches in colour, everything else transparent. places: see ``Canvas.place``. values: (N,), NaN for patches
    without one. limits: the values of the first and the last colour."""
    lowest, highest = limits
    shares = (values - lowest) / ((highest - lowest) or 1)
    colours = np.where(np.isnan(values), 0, 1 + np.rint(254 * np.clip(np.nan_to_num(shares), 0, 1))).astype(np.uint8)
    image = Image.fromarray(np.append(colours, np.uint8(0))[places], mode="P")  # NO_PATCH is the last one
    palette = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 255), bytes=True)[:, :3]
    image.putpalette(bytes(3) + palette.tobytes())
    image.info["transparency"] = 0
    return image


def limits(values: np.ndarray) -> tuple[float, float]:
    """The 1st and the 99th percentile; (0, 1) where there is no value."""
    if np.isnan(values).all():
        return 0.0, 1.0
    lowest, highest = np.nanpercentile(values, [1, 99])
    return float(lowest), float(highest)


def colour_bar() -> str:
    """The colours as a CSS gradient."""
    colours = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 9))
    return f"linear-gradient(to right, {', '.join(matplotlib.colors.to_hex(colour) for colour in colours)})"


def image_uri(image: Image.Image, form: str = "PNG") -> str:
    """The image as the source of an HTML <img>: PNG, or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 85} if form == "JPEG" else {"optimize": True}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def scale_bar(width: int, microns: float | None) -> tuple[float, str]:
    """A length of 1, 2 or 5 times a power of ten, at most a quarter of ``width`` level-0 pixels: as a share of the
    width, and in words (micrometres; level-0 pixels where a pixel's size in ``microns`` is not known)."""
    longest = width / 4 * (microns or 1)
    power = 10.0 ** np.floor(np.log10(longest))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= longest)
    share = length / (width * (microns or 1))
    if microns is None:
        return share, f"{length:,.0f} level-0 pixels"
    return share, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
