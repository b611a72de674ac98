"""One slide's patches at one magnification: what a file of features holds, whichever tool wrote it."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from datasets.microns import in_pixels
from datasets.numbers import attribute_number
from utils.errors import Fault, UserError
from utils.h5 import read_attributes, read_h5, read_shapes
from utils.model_identity import ModelIdentity
from utils.tensors import is_weight, read_tensors

INSTANCES = "source_sha256"
"""The attribute of feature files that were made of a table of instances, whose features may be zero."""
WIDEST_SLIDE = 50_000_000  # level-0 pixels; slides have some hundred thousand
OVERHANG = 10_000  # by which patches at the upper and left border may begin outside
PATCH_SIZE = 256  # pixels at its own magnification, where only the magnification is known


@dataclass(frozen=True)
class Patches:
    """One slide's patches at one magnification.

    features: (N, D) float32. coords: (N, 2) int64, level-0 pixels (x, y) of the top-left corners. attributes: all that
    the file (and a file of coordinates beside it) says of itself. as_is: the file has this form already, so main.py
    reads it.
    """

    file: Path
    features: np.ndarray
    coords: np.ndarray
    attributes: dict[str, Any]
    as_is: bool = True

    @property
    def model(self) -> ModelIdentity | None:
        """The model that the features are of, where the file says."""
        return ModelIdentity.of(self.attributes)

    @cached_property
    def norms(self) -> np.ndarray:
        """(N,) lengths of the feature rows; NaN or infinite where a row has such a value."""
        return row_norms(self.features)


def row_norms(features: np.ndarray) -> np.ndarray:
    """features (..., D) -> (...) Euclidean lengths, without a copy of the features."""
    squares: np.ndarray = np.einsum("...d,...d->...", features, features)
    lengths: np.ndarray = np.sqrt(squares)
    return lengths


def read_patches(file: Path, magnification: int, coords_file: Path | None = None, mpp: float | None = None) -> Patches:
    """Read one file: a batch dimension of 1 is dropped, features become float32, coordinates int64.

    file: HDF5 with ``features`` (or ``feats``, as STAMP calls them) and ``coords``, or a .pt of PyTorch with the
    features alone. coords_file: a tool's own file of coordinates, where it is there: read for its attributes, and for
    the coordinates where ``file`` has none. mpp: microns per level-0 pixel of the slide, for coordinates in microns.
    Raises UserError, naming the file: missing or damaged, no patch in it, shapes that do not fit, NaN, infinite or
    all-zero rows, another magnification than expected, coordinates in microns without ``mpp``.
    """
    read = _read_tensors(file, coords_file) if file.suffix == ".pt" else _read_h5(file, coords_file)
    features, coords = _without_batch(read.features), _without_batch(read.coords)
    attributes = read.attributes
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        found = f"features are {features.dtype} {features.shape}"
        raise UserError(Fault("features.shape", str(file), found, expected="floats (patches, width)"))
    if len(features) == 0:
        found = f"empty, no {magnification}x patch"
        raise UserError(Fault("features.empty", str(file), found, mend="was tissue found on this slide?"))
    name = "magnification" if "magnification" in attributes else "target_magnification"
    said = attribute_number(file, attributes, name)
    if said not in (None, magnification):
        found = f"holds patches at {said:g}x"
        raise UserError(Fault("features.magnification", str(file), found, expected=f"{magnification}x"))
    pixels, attributes = in_pixels(file, coords, attributes, mpp)
    patches = Patches(
        file,
        np.ascontiguousarray(features, dtype=np.float32),
        whole_coords(file, pixels, (len(features), 2)),
        attributes,
        as_is=read.as_is and read.features.ndim == 2 and read.coords.ndim == 2 and pixels is coords,
    )
    bad, zero = int((~np.isfinite(patches.norms)).sum()), int((patches.norms == 0).sum())
    if bad or zero:
        found = (
            f"of {len(features)} feature rows {bad} have NaN or infinite values and {zero} are all zero, which no "
            "encoder gives"
        )
        raise UserError(Fault("features.values", str(file), found, mend="extract this slide again"))
    return patches


class _Arrays(NamedTuple):
    """What a tool's files hold. as_is: in one HDF5 file, under this project's names."""

    features: np.ndarray
    coords: np.ndarray
    attributes: dict[str, Any]
    as_is: bool


def _read_h5(file: Path, coords_file: Path | None) -> _Arrays:
    there = read_shapes(file)
    beside = coords_file if coords_file and coords_file.is_file() else None
    attributes = read_attributes(file) | (read_attributes(beside) if beside else {})
    name = _name_of_features(there)
    if "coords" not in there and beside:
        coords = read_h5(beside, ("coords",))["coords"]
        return _Arrays(read_h5(file, (name,))[name], coords, attributes, as_is=False)
    arrays = read_h5(file, (name, "coords"))
    return _Arrays(arrays[name], arrays["coords"], attributes, as_is=name == "features")


def _name_of_features(there: Collection[str]) -> str:
    return "feats" if "feats" in there and "features" not in there else "features"


def _read_tensors(file: Path, coords_file: Path | None) -> _Arrays:
    features = _saved_features(file)
    if coords_file is None:
        found = "features alone, and no file with their coordinates (patches/<slide>.h5 beside or one folder up)"
        raise UserError(Fault("features.no_coords", str(file), found, "features and coordinates of the same patches"))
    coords = read_h5(coords_file, ("coords",))["coords"]
    return _Arrays(features.float().numpy(), coords, read_attributes(coords_file), as_is=False)


def _saved_features(file: Path) -> Tensor:
    """The tensor of a .pt file. Raises UserError where the file holds anything else."""
    saved = read_tensors(file)
    if not is_weight(saved):
        found, expected = f"holds a {type(saved).__name__}", "one tensor (patches, width)"
        raise UserError(Fault("features.shape", str(file), found, expected))
    features: Tensor = saved.detach()
    return features


def shape_of_features(file: Path) -> tuple[int, ...]:
    """(patches, width) of the features in a file that ``read_patches`` reads. Raises UserError as it does, and KeyError
    where there are none."""
    if file.suffix == ".pt":
        return tuple(_saved_features(file).shape[-2:])
    there = read_shapes(file)
    return there[_name_of_features(there)][-2:]


def _without_batch(array: np.ndarray) -> np.ndarray:
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def whole_coords(file: Path, coords: np.ndarray, shape: tuple[int, ...], real: np.ndarray | None = None) -> np.ndarray:
    """Coordinates as int64, rounded where they are floats.

    shape: (*N, 2). real: (*N) bool, which slots hold a patch; in the others 0 stands for what cannot be. Raises
    UserError where the coordinates are no level-0 pixels of a slide: no numbers of this shape, not finite, left of
    or above any slide, farther out than any slide is wide, or so close together that rounding makes them the same.
    """
    if coords.shape != shape or coords.dtype.kind not in "iuf":
        found = f"coords are {coords.dtype} of shape {coords.shape}"
        expected = f"numbers of shape {shape} (x, y of each patch)"
        raise UserError(Fault("features.coords", str(file), found, expected))
    with np.errstate(invalid="ignore"):
        within = np.asarray(((coords >= -OVERHANG) & (coords < WIDEST_SLIDE)).all(-1))
    wrong = ~within if real is None else ~within & real
    if wrong.any():
        first = coords[wrong][0].tolist()
        found = f"coords of {int(wrong.sum())} of {wrong.size} patches are of no slide, such as {first}"
        expected = f"level-0 pixels (x, y), {-OVERHANG} up to {WIDEST_SLIDE}"
        raise UserError(Fault("features.coords", str(file), found, expected))
    places = np.where(within[..., None], coords, 0)
    whole: np.ndarray = np.rint(places).astype(np.int64)
    if places.dtype.kind == "f" and (number := _distinct(whole)) < _distinct(places):
        found = f"coords are fractions of pixels ({_distinct(places)} places that round to {number})"
        raise UserError(Fault("features.coords", str(file), found, "level-0 pixels (x, y)"))
    return whole


def _distinct(places: np.ndarray) -> int:
    return len(np.unique(places.reshape(-1, 2), axis=0))
