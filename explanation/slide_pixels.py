"""How large a slide's patches and pixels are, as far as its files tell."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import openslide

from datasets.folders import FeatureFolders
from datasets.numbers import attribute_number
from datasets.patch_sizes import PatchSizes, patch_sizes
from datasets.patches import Patches
from datasets.slides import MICRONS_AT_1X, reading
from explanation.explained_slide import Pixel
from utils.h5 import read_attributes
from utils.interface import Bag


def sizes_of_patches(folders: FeatureFolders, bag: Bag, level0: float | None) -> PatchSizes:
    """Edges of a slide's parents and children in level-0 pixels. level0: magnification by the table of slides, for
    files that do not tell. Raises UserError where nothing does."""
    assert bag.low_coords is not None and bag.high_coords is not None
    files = folders.files(bag.slide_id, "hierarchy")
    coords = bag.low_coords.numpy(), bag.high_coords[bag.child_mask].numpy()
    low, high = (
        Patches(file, np.empty((0, 0)), places, read_attributes(file))
        for file, places in zip(files, coords, strict=True)
    )
    return patch_sizes(low, high, (folders.low_magnification, folders.high_magnification), level0)


def size_of_pixels(folders: FeatureFolders, slide_id: str, level0: float | None, slide: Path | None) -> Pixel | None:
    """Width of a level-0 pixel: by the slide's own tag, else as its magnification lets expect, by the feature file or
    ``level0``. slide: its file, where it is at hand."""
    if slide is not None:
        with reading(slide) as opened, suppress(ValueError):
            microns = float(opened.properties.get(openslide.PROPERTY_NAME_MPP_X) or 0)
            if microns > 0:
                return Pixel(microns, is_nominal=False)
    file = folders.low_file(slide_id)
    magnification = attribute_number(file, read_attributes(file), "level0_magnification") or level0
    return Pixel(MICRONS_AT_1X / magnification, is_nominal=True) if magnification else None
