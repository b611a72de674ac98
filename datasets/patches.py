"""One slide's patches at one magnification: what a file of features holds, whichever tool wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets.numbers import positive_number
from utils.errors import Fault, UserError
from utils.h5 import read_attributes, read_h5
from utils.model_identity import ModelIdentity

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


def read_patches(file: Path, magnification: int, coords_file: Path | None = None) -> Patches:
    """Read one file: a batch dimension of 1 is dropped, features become float32, coordinates int64.

    coords_file: a tool's own file of coordinates, read for its attributes where it is there. Raises UserError, naming
    the file: missing or damaged, no patch in it, shapes that do not fit, NaN, infinite or all-zero rows, another
    magnification than expected.
    """
    arrays = read_h5(file, ("features", "coords"))
    attributes = read_attributes(file)
    if coords_file and coords_file.is_file():
        attributes |= read_attributes(coords_file)
    features, coords = (_without_batch(arrays[name]) for name in ("features", "coords"))
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
    patches = Patches(
        file,
        np.ascontiguousarray(features, dtype=np.float32),
        whole_coords(file, coords, (len(features), 2)),
        attributes,
        as_is=arrays["features"].ndim == 2 and arrays["coords"].ndim == 2,
    )
    bad, zero = int((~np.isfinite(patches.norms)).sum()), int((patches.norms == 0).sum())
    if bad or zero:
        found = (
            f"of {len(features)} feature rows {bad} have NaN or infinite values and {zero} are all zero, which no "
            "encoder gives"
        )
        raise UserError(Fault("features.values", str(file), found, mend="extract this slide again"))
    return patches


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


def attribute_number(file: Path, attributes: Mapping[str, Any], name: str) -> float | None:
    """An attribute's (first) number, written 20 or 20x; None where it is absent. Raises UserError for anything else."""
    if name not in attributes:
        return None
    text = str(next(iter(np.ravel(attributes[name])), ""))
    number = positive_number(text)
    if number is None:
        found = f"attribute {name} is {text!r}"
        raise UserError(Fault("features.attribute", str(file), found, expected="a number above 0"))
    return number
