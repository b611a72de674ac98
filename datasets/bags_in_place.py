"""A slide's features read where another tool wrote them, and linked whenever they are read: the bag is the one that the
linked files would give."""

from dataclasses import replace

import numpy as np
import torch

from datasets.folders import FeatureFolders
from datasets.linked_patches import Linking, link_patches
from datasets.missing_features import how_to_make
from datasets.patches import Patches, read_patches
from datasets.task import Slide
from utils.errors import Fault, Faults, UserError
from utils.h5 import aligned
from utils.interface import Bag, BagForm


def read_bag_in_place(folders: FeatureFolders, slide: Slide, feature_dim: int | None, form: BagForm) -> Bag:
    """Read a slide, check it and link it as create_hierarchical_features.py does by default. feature_dim: the width
    that the model wants. Raises UserError as ``read_patches`` and ``link_patches``, and for another width."""
    if form == "patches":
        return _flat_bag(slide, _read(folders, slide, folders.high_magnification, feature_dim))
    faults = Faults()
    low, high = (
        faults.attempt(_read, folders, slide, magnification, feature_dim)
        for magnification in (folders.low_magnification, folders.high_magnification)
    )
    faults.raise_any()
    if form == "both":
        return _flat_bag(slide, high.value, low.value)
    scales = folders.low_magnification, folders.high_magnification
    linked = link_patches(low.value, high.value, scales, slide.level0_mag, slide.slide_id, Linking())
    return Bag(
        slide_id=slide.slide_id,
        low_features=_tensor(linked.low.features),
        high_features=_tensor(linked.hierarchy.features),
        child_mask=_tensor(linked.hierarchy.mask),
        label=slide.label,
        low_coords=_tensor(linked.low.coords),
        high_coords=_tensor(linked.hierarchy.coords),
    )


def _flat_bag(slide: Slide, high: Patches, low: Patches | None = None) -> Bag:
    """All high patches, and the parents where they are read; no children."""
    width = high.features.shape[1]
    low_features = low.features if low else np.empty((0, width), dtype=np.float32)
    return Bag(
        slide_id=slide.slide_id,
        low_features=_tensor(low_features),
        high_features=torch.empty(len(low_features), 0, width),
        child_mask=torch.zeros(len(low_features), 0, dtype=torch.bool),
        label=slide.label,
        low_coords=_tensor(low.coords) if low else None,
        high_coords=_tensor(high.coords),
        patch_features=_tensor(high.features),
    )


def _read(folders: FeatureFolders, slide: Slide, magnification: int, feature_dim: int | None) -> Patches:
    file = folders.low_file if magnification == folders.low_magnification else folders.high_file
    try:
        patches = read_patches(file(slide.slide_id), magnification)
    except UserError as error:
        mend = how_to_make(folders)
        missing = {fault: replace(fault, mend=mend) for fault in error.faults if fault.code == "file.missing"}
        raise UserError([missing.get(fault, fault) for fault in error.faults]) from error
    if feature_dim not in (None, patches.features.shape[1]):
        found = f"features are {patches.features.shape[1]} wide"
        expected = f"{feature_dim}, the width of the text features or of the other slides"
        mend = "were they made with another --feature_extractor, or is --vlm_path another model?"
        raise UserError(Fault("features.width", str(patches.file), found, expected, mend))
    return patches


def _tensor(array: np.ndarray) -> torch.Tensor:
    """In memory that begins where that of a file's own data set would, on which the last bits of products depend."""
    placed = aligned(array.shape, array.dtype)
    placed[...] = array
    return torch.from_numpy(placed)
