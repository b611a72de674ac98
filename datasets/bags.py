"""One slide's features: read, checked, and handed over as a Bag."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.layout import FeatureFolders
from datasets.task import Slide
from utils.errors import UserError
from utils.h5 import read_h5
from utils.interface import Bag


def read_bag(folders: FeatureFolders, slide: Slide, feature_dim: int | None = None) -> Bag:
    """Read a slide and check it; features become float32.

    feature_dim: the width that the text tower wants. Raises UserError with what is wrong and the command that mends
    it: a missing, damaged or empty file, shapes that do not fit each other, another width, NaN or infinite features.
    """
    low_file, hierarchical_file = folders.low_file(slide.slide_id), folders.hierarchical_file(slide.slide_id)
    low = _read(low_file, folders.extract_command(), ())
    high = _read(hierarchical_file, folders.hierarchy_command(), ("mask",))
    low_features, high_features = low["features"], high["features"]
    _check_shape(low_file, low_features, 2, "(parents, width)", feature_dim)
    _check_shape(
        hierarchical_file, high_features, 3, "(parents, children, width)", feature_dim or low_features.shape[-1]
    )
    if len(low_features) != len(high_features):
        raise UserError(
            f"{hierarchical_file}: {len(high_features)} parents found, but {low_file} has {len(low_features)}; the "
            f"rows of both must be the same parents. Make the file again: {folders.hierarchy_command()}"
        )
    for file, arrays, shape in ((low_file, low, low_features.shape), (hierarchical_file, high, high_features.shape)):
        if arrays["coords"].shape != (*shape[:-1], 2):
            raise UserError(
                f"{file}: coords have shape {arrays['coords'].shape}, expected {(*shape[:-1], 2)} (one x, y per patch)"
            )
    mask = high.get("mask")
    if mask is None:
        mask = (high_features != 0).any(-1)
    elif mask.shape != high_features.shape[:2] or mask.dtype != bool:
        raise UserError(
            f"{hierarchical_file}: mask is {mask.dtype} {mask.shape}, expected bool {high_features.shape[:2]}; make "
            f"the file again: {folders.hierarchy_command()}"
        )
    return Bag(
        slide_id=slide.slide_id,
        low_features=torch.from_numpy(low_features.astype(np.float32, copy=False)),
        high_features=torch.from_numpy(high_features.astype(np.float32, copy=False) * mask[..., None]),
        child_mask=torch.from_numpy(mask),
        label=slide.label,
        low_coords=torch.from_numpy(low["coords"].astype(np.int64)),
        high_coords=torch.from_numpy(high["coords"].astype(np.int64)),
    )


def _read(file: Path, command: str, optional: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        return read_h5(file, ("features", "coords"), optional)
    except UserError as error:
        raise UserError(f"{error.faults[0]}. Make it with: {command}") from error


def _check_shape(file: Path, features: np.ndarray, ndim: int, meaning: str, width: int | None) -> None:
    if not np.issubdtype(features.dtype, np.floating):
        raise UserError(f"{file}: features are {features.dtype}, expected floating point numbers")
    if features.ndim != ndim or len(features) == 0 or 0 in features.shape:
        raise UserError(f"{file}: features have shape {features.shape}, expected {meaning} with at least one patch")
    if width is not None and features.shape[-1] != width:
        raise UserError(
            f"{file}: features are {features.shape[-1]} wide, expected {width}, the width of the text features; were "
            "they made with another --feature_extractor (or before its projection), or is --vlm_path another model?"
        )
    bad = int(features.size - np.isfinite(features).sum())
    if bad:
        raise UserError(
            f"{file}: {bad} of {features.size} feature values are NaN or infinite, expected finite numbers; extract "
            "this slide again"
        )


class BagDataset(Dataset[Bag]):
    """The bags of some slides, read when asked for."""

    def __init__(self, folders: FeatureFolders, slides: Sequence[Slide], feature_dim: int | None = None):
        self.folders = folders
        self.slides = list(slides)
        self.feature_dim = feature_dim

    def __len__(self) -> int:
        return len(self.slides)

    def __iter__(self) -> Iterator[Bag]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Bag:
        return read_bag(self.folders, self.slides[index], self.feature_dim)
