"""One slide's features: read, checked, and handed over as a Bag."""

from pathlib import Path

import numpy as np
import torch

from datasets.layout import FeatureFolders
from datasets.task import Slide
from utils.errors import Faults, UserError
from utils.h5 import read_h5
from utils.interface import Bag


def read_bag(folders: FeatureFolders, slide: Slide, feature_dim: int | None = None) -> Bag:
    """Read a slide and check it; features become float32.

    feature_dim: the width that the text tower wants. Raises UserError with what is wrong and the command that mends
    it: a missing, damaged or empty file, shapes that do not fit each other, another width, NaN or infinite features.
    """
    low_file, high_file = folders.low_file(slide.slide_id), folders.hierarchical_file(slide.slide_id)
    extract, link = folders.extract_command(), folders.hierarchy_command()
    faults = Faults()
    low = faults.attempt(_read_patches, low_file, "(parents, width)", feature_dim, extract)
    width = feature_dim or (low["features"].shape[-1] if low else None)
    high = faults.attempt(_read_patches, high_file, "(parents, children, width)", width, link)
    faults.raise_any()
    assert low and high
    low_features, high_features = low["features"], high["features"]
    if len(low_features) != len(high_features):
        raise UserError(
            f"{high_file}: {len(high_features)} parents found, but {low_file} has {len(low_features)}; the rows of "
            f"both must be the same parents. Make it with: {link}"
        )
    mask = high["mask"] if "mask" in high else (high_features != 0).any(-1)
    if mask.shape != high_features.shape[:2] or mask.dtype != bool:
        raise UserError(
            f"{high_file}: mask is {mask.dtype} {mask.shape}, expected bool {high_features.shape[:2]}. "
            f"Make it with: {link}"
        )
    high_features[~mask] = 0
    return Bag(
        slide_id=slide.slide_id,
        low_features=torch.from_numpy(low_features),
        high_features=torch.from_numpy(high_features),
        child_mask=torch.from_numpy(mask),
        label=slide.label,
        low_coords=torch.from_numpy(low["coords"].astype(np.int64)),
        high_coords=torch.from_numpy(high["coords"].astype(np.int64)),
    )


def _read_patches(file: Path, axes: str, width: int | None, command: str) -> dict[str, np.ndarray]:
    """features, coords and, where there is one, mask of a file, checked; ``axes`` names those of the features."""
    try:
        arrays = read_h5(file, ("features", "coords"), ("mask",))
    except UserError as error:
        raise UserError(f"{error.faults[0]}. Make it with: {command}") from error
    features, coords = arrays["features"], arrays["coords"]
    fault = ""
    if not np.issubdtype(features.dtype, np.floating):
        fault = f"features are {features.dtype}, expected floating point numbers"
    elif features.ndim != len(axes.split(",")) or features.size == 0:
        fault = f"features have shape {features.shape}, expected {axes} with at least one patch"
    elif coords.shape != (*features.shape[:-1], 2) or coords.dtype.kind not in "iuf":
        expected = (*features.shape[:-1], 2)
        fault = (
            f"coords are {coords.dtype} of shape {coords.shape}, expected numbers of shape {expected} (x, y a patch)"
        )
    elif width is not None and features.shape[-1] != width:
        raise UserError(
            f"{file}: features are {features.shape[-1]} wide, expected {width}, the width of the text features; were "
            "they made with another --feature_extractor (or before its projection), or is --vlm_path another model?"
        )
    else:
        with np.errstate(over="ignore"):
            arrays["features"] = features.astype(np.float32, copy=False)
        bad = int(features.size - np.isfinite(arrays["features"]).sum())
        if bad:
            fault = f"{bad} of {features.size} feature values are NaN or infinite, expected finite numbers"
    if fault:
        raise UserError(f"{file}: {fault}. Make it with: {command}")
    return arrays
