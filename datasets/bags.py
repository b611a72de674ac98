"""One slide's features: read, checked, and handed over as a Bag."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.bags_in_place import read_bag_in_place
from datasets.folders import FeatureFolders
from datasets.missing_features import how_to_make
from datasets.patches import whole_coords
from datasets.task import Slide
from utils.errors import Fault, Faults, UserError
from utils.h5 import aligned, read_h5, read_shapes
from utils.interface import Bag, BagForm

Mend = Callable[[], str]
"""Gives a sentence that tells what to do; asked for where there is a fault alone, since it looks at folders."""


def read_bag(folders: FeatureFolders, slide: Slide, feature_dim: int | None = None, form: BagForm = "hierarchy") -> Bag:
    """Read a slide and check it; features become float32.

    feature_dim: the width that the model wants. form: what of the slide is read; the flat bag of high patches comes
    from its own folder or, where the task has none, from the children in the hierarchical file. Raises UserError with
    what is wrong and the command that mends it: a missing, damaged or empty file, shapes that do not fit each other,
    another width, NaN or infinite features.
    """
    if folders.features_from:
        return read_bag_in_place(folders, slide, feature_dim, form)
    read = {"hierarchy": _read_hierarchy, "both": _read_both, "patches": _read_flat}[form]
    return read(folders, slide, feature_dim)


def feature_width(folders: FeatureFolders, slides: Iterable[Slide], form: BagForm) -> int | None:
    """The width of the features of the first slide whose files can be read."""
    for slide in slides:
        try:
            return read_shapes(folders.files(slide.slide_id, form)[0])["features"][-1]
        except (UserError, KeyError, IndexError):
            continue
    return None


def _read_hierarchy(folders: FeatureFolders, slide: Slide, feature_dim: int | None) -> Bag:
    low_file, high_file = folders.low_file(slide.slide_id), folders.hierarchical_file(slide.slide_id)
    faults = Faults()
    low = faults.attempt(_read_low, folders, slide, feature_dim)
    width = feature_dim or (low.value["features"].shape[-1] if low else None)
    high = faults.attempt(_read_children, folders, slide, width)
    faults.raise_any()
    parents, children = low.value, high.value
    if len(parents["features"]) != len(children["features"]):
        found = f"{len(children['features'])} parents found, but {low_file} has {len(parents['features'])}"
        expected, mend = "the same parents in the rows of both", f"make it with: {folders.hierarchy_command()}"
        raise UserError(Fault("features.parents", str(high_file), found, expected, mend))
    return Bag(
        slide_id=slide.slide_id,
        low_features=torch.from_numpy(parents["features"]),
        high_features=torch.from_numpy(children["features"]),
        child_mask=torch.from_numpy(children["mask"]),
        label=slide.label,
        low_coords=_coords(parents),
        high_coords=_coords(children),
    )


def _read_both(folders: FeatureFolders, slide: Slide, feature_dim: int | None) -> Bag:
    faults = Faults()
    low = faults.attempt(_read_low, folders, slide, feature_dim)
    width = feature_dim or (low.value["features"].shape[-1] if low else None)
    flat = faults.attempt(_read_flat, folders, slide, width)
    faults.raise_any()
    features = torch.from_numpy(low.value["features"])
    return replace(flat.value, low_features=features, low_coords=_coords(low.value), **_no_children(features))


def _read_flat(folders: FeatureFolders, slide: Slide, feature_dim: int | None) -> Bag:
    """All real high patches; no parents."""
    if folders.has_flat_patches():
        mend = partial(how_to_make, folders, "patches", slide.slide_id)
        patches = _read_rows(folders.high_file(slide.slide_id), "(patches, width)", feature_dim, mend)
        features, coords = torch.from_numpy(patches["features"]), _coords(patches)
    else:
        children = _read_children(folders, slide, feature_dim)
        mask = torch.from_numpy(children["mask"])
        if not mask.any():
            where = str(folders.hierarchical_file(slide.slide_id))
            raise UserError(Fault("features.childless", where, "no parent has a child", expected="patches"))
        features, coords = torch.from_numpy(children["features"])[mask], _coords(children)[mask]
    none = features.new_empty(0, features.shape[1])
    return Bag(
        slide.slide_id, none, **_no_children(none), label=slide.label, high_coords=coords, patch_features=features
    )


def _no_children(low_features: Tensor) -> dict[str, Any]:
    num_parents, width = low_features.shape
    return {
        "high_features": low_features.new_empty(num_parents, 0, width),
        "child_mask": torch.zeros(num_parents, 0, dtype=torch.bool),
    }


def _coords(arrays: dict[str, np.ndarray]) -> Tensor:
    return torch.from_numpy(arrays["coords"])


def _read_low(folders: FeatureFolders, slide: Slide, width: int | None) -> dict[str, np.ndarray]:
    mend = partial(how_to_make, folders, "hierarchy", slide.slide_id)
    return _read_rows(folders.low_file(slide.slide_id), "(parents, width)", width, mend)


def _read_rows(file: Path, axes: str, width: int | None, mend: Mend) -> dict[str, np.ndarray]:
    """As ``_read_patches``, of a file whose rows are all patches."""
    arrays = _read_patches(file, axes, width, mend)
    return {**arrays, "coords": _checked_coords(file, arrays["coords"], None, mend)}


def _checked_coords(file: Path, coords: np.ndarray, mask: np.ndarray | None, mend: Mend) -> np.ndarray:
    """``whole_coords``, whose fault names the command that makes the file."""
    try:
        return whole_coords(file, coords, coords.shape, mask)
    except UserError as error:
        raise UserError([replace(fault, mend=mend()) for fault in error.faults]) from error


def _read_children(folders: FeatureFolders, slide: Slide, width: int | None) -> dict[str, np.ndarray]:
    """features, coords and mask; features are 0 where the mask is."""
    file, made_with = folders.hierarchical_file(slide.slide_id), f"make it with: {folders.hierarchy_command()}"
    high = _read_patches(file, "(parents, children, width)", width, lambda: made_with)
    features = high["features"]
    mask = high["mask"] if "mask" in high else (features != 0).any(-1)
    if mask.shape != features.shape[:2] or mask.dtype != bool:
        found, expected = f"mask is {mask.dtype} {mask.shape}", f"bool {features.shape[:2]}"
        raise UserError(Fault("features.mask", str(file), found, expected, made_with))
    features[~mask] = 0
    return {**high, "mask": mask, "coords": _checked_coords(file, high["coords"], mask, lambda: made_with)}


def _read_patches(file: Path, axes: str, width: int | None, mend: Mend) -> dict[str, np.ndarray]:
    """features, coords and, where there is one, mask of a file, checked; ``axes`` names those of the features. mend:
    what to do about a file that cannot be used, where its fault does not say."""
    try:
        arrays = read_h5(file, ("features", "coords"), ("mask",))
    except UserError as error:
        raise UserError([replace(fault, mend=fault.mend or mend()) for fault in error.faults]) from error
    fault = _fault_of_form(file, arrays["features"], arrays["coords"], axes, width)
    if fault is None:
        arrays["features"] = _as_float32(arrays["features"])
        size = arrays["features"].size
        if bad := int(size - np.isfinite(arrays["features"]).sum()):
            found = f"{bad} of {size} feature values are NaN or infinite"
            fault = Fault("features.values", str(file), found, expected="finite numbers")
    if fault:
        raise UserError(fault if fault.mend else replace(fault, mend=mend()))
    return arrays


def _as_float32(features: np.ndarray) -> np.ndarray:
    """The same array where it is float32, else a converted one; numbers that are too large become infinite."""
    if features.dtype == np.float32:
        return features
    converted = aligned(features.shape, np.float32)
    with np.errstate(over="ignore"):
        converted[...] = features
    return converted


def _fault_of_form(file: Path, features: np.ndarray, coords: np.ndarray, axes: str, width: int | None) -> Fault | None:
    """What is wrong with kinds and shapes, if anything."""
    where = str(file)
    if not np.issubdtype(features.dtype, np.floating):
        return Fault("features.kind", where, f"features are {features.dtype}", expected="floating point numbers")
    if features.ndim != len(axes.split(",")) or features.size == 0:
        expected = f"{axes} with at least one patch"
        return Fault("features.shape", where, f"features have shape {features.shape}", expected)
    places = (*features.shape[:-1], 2)
    if coords.shape != places or coords.dtype.kind not in "iuf":
        found = f"coords are {coords.dtype} of shape {coords.shape}"
        return Fault("features.coords", where, found, expected=f"numbers of shape {places} (x, y of each patch)")
    if width is not None and features.shape[-1] != width:
        mend = (
            "were they made with another --feature_extractor (or before its projection), or is --vlm_path another "
            "model?"
        )
        expected = f"{width}, the width of the text features or of the other slides"
        return Fault("features.width", where, f"features are {features.shape[-1]} wide", expected, mend)
    return None
