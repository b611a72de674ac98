"""Coordinates that a tool (STAMP) wrote in microns, as pixels of level 0."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.numbers import attribute_number
from utils.errors import Fault, UserError
from utils.words import quoted

MICRONS = {"um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"}
PIXELS = {"", "px", "pixel", "pixels"}
TILE_SIZES = "tile_size_um", "tile_size"
"""Attributes with the edge of a patch in microns, by versions of STAMP."""
MPP = "mpp"
"""The column of the table of slides, or the attribute, that tells the microns per pixel of level 0."""


def in_pixels(
    file: Path, coords: np.ndarray, attributes: Mapping[str, Any], mpp: float | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Coordinates and attributes as they are, or converted where the attributes say that they are in microns.

    coords: (N, 2), as the file has them. mpp: microns per level-0 pixel, by the table of slides; without it by the
    file's attribute. Converted attributes have ``patch_size_level0``, not rounded, where the size of a patch is told.
    Raises UserError where the unit is another one, and where nothing tells the size of a pixel.
    """
    unit = _unit(attributes)
    if unit in PIXELS:
        return coords, dict(attributes)
    if unit not in MICRONS:
        found = f"coords are in the unit {quoted(unit)}"
        raise UserError(Fault("features.unit", str(file), found, "level-0 pixels, or microns (um)"))
    pixel = mpp or attribute_number(file, attributes, MPP)
    if pixel is None:
        found = f"coords are in microns (unit {quoted(unit)}), and nothing tells the size of the slide's pixels"
        mend = (
            f"write each slide's microns per level-0 pixel into the column {MPP} of the table of slides "
            "(--dataset_csv), and link the features with create_hierarchical_features.py"
        )
        raise UserError(Fault("features.unit", str(file), found, "level-0 pixels", mend))
    told = {name: value for name, value in attributes.items() if name not in ("unit", "units", *TILE_SIZES)}
    tile = next((size for name in TILE_SIZES if (size := attribute_number(file, attributes, name))), None)
    return coords / pixel, {**told, MPP: pixel, **({"patch_size_level0": tile / pixel} if tile else {})}


def _unit(attributes: Mapping[str, Any]) -> str:
    """The unit of the coordinates, "" where the file says none; a file that tells its patches' size in microns has
    them in microns."""
    said = str(attributes.get("unit", attributes.get("units", ""))).strip().casefold()
    return said or ("um" if TILE_SIZES[0] in attributes else "")
