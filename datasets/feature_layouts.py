"""Feature files of one magnification, in the layouts of this project, TRIDENT and CLAM: found, read into one form, and
the size of their patches told.

reference  <folder>/<slide>.h5 with ``features`` and ``coords`` (this project, the released code, ViLa-MIL)
trident    <job>/{mag}x_{size}px_{overlap}px_overlap/features_{encoder}/<slide>.h5, sizes as attributes of ``coords``
clam       <folder>/h5_files/<slide>.h5, sizes as attributes of ``coords`` in <folder>/patches/<slide>.h5
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from datasets.folders import FeatureFolders
from datasets.task import read_table
from utils.errors import UserError
from utils.h5 import read_h5

TRIDENT_FOLDER = re.compile(r"(\d+)x_\d+px_\d+px_overlap")
NUMBER = re.compile(r"\d+(\.\d*)?")
PATCHES_SUFFIX = "_patches"
PATCH_SIZE = 256  # pixels at its own magnification, where only the magnification is known


@dataclass(frozen=True)
class Patches:
    """One slide's patches at one magnification.

    features: (N, D) float32. coords: (N, 2) int64, level-0 pixels (x, y) of the top-left corners. attributes: all that
    the file (and CLAM's file of coordinates) says of itself. as_is: the file has this form already, so that main.py
    reads it.
    """

    file: Path
    features: np.ndarray
    coords: np.ndarray
    attributes: dict[str, Any]
    as_is: bool = True

    @cached_property
    def norms(self) -> np.ndarray:
        """(N,) lengths of the feature rows; NaN or infinite where a row has such a value."""
        return row_norms(self.features)


def row_norms(features: np.ndarray) -> np.ndarray:
    """features (..., D) -> (...) Euclidean lengths, without a copy of the features."""
    return np.sqrt(np.einsum("...d,...d->...", features, features))


@dataclass(frozen=True)
class Source:
    """Where the features of one magnification lie. coords_folder: CLAM's patches/, where there is one."""

    layout: str
    folder: Path
    coords_folder: Path | None = None

    def files(self) -> dict[str, Path]:
        """{slide_id: file}; the suffix ``_patches`` is no part of a slide's name (of two files the one without it)."""
        names = sorted(file for file in self.folder.glob("*.h5") if not file.name.startswith("."))
        found = {file.stem.removesuffix(PATCHES_SUFFIX): file for file in names}
        return {**found, **{file.stem: file for file in names if file.stem in found}}

    def coords_file(self, slide_id: str) -> Path | None:
        return self.coords_folder / f"{slide_id}.h5" if self.coords_folder else None


# ---- finding ---------------------------------------------------------------------------------------------------------


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.h5"))


def _clam(place: Path, encoder: str, magnification: int) -> list[Path]:
    candidates = place, place / "h5_files", place / f"{encoder}_{magnification}x" / "h5_files"
    return [folder for folder in candidates if folder.name == "h5_files"]


def _trident(place: Path, encoder: str, magnification: int) -> list[Path]:
    names = {f"features_{encoder}".lower(), f"features_{encoder}_v1".lower()}
    below = [folder for pattern in ("features_*", "*x_*px_*px_overlap/features_*") for folder in place.glob(pattern)]
    candidates = [place, *(folder for folder in below if folder.name.lower() in names)]
    found = [(folder, TRIDENT_FOLDER.fullmatch(folder.resolve().parent.name)) for folder in sorted(candidates)]
    return [folder for folder, parts in found if parts and int(parts[1]) == magnification]


def _reference(place: Path, encoder: str, magnification: int) -> list[Path]:
    return [place / f"{encoder}_{magnification}x"]


# those of others first: the project's own folders may hold the copies made of them
FINDERS: dict[str, Callable[[Path, str, int], list[Path]]] = {
    "clam": _clam, "trident": _trident, "reference": _reference,
}  # fmt: skip


def find_source(
    folders: FeatureFolders, magnification: int, layout: str = "auto", given: Path | None = None, option: str = ""
) -> Source:
    """The features of one magnification: in the folder ``given`` (by the option named), else in the task's folder
    (<root>/<task>_<fe>, <root>/<task>). Raises UserError where there are none, or several to choose from."""
    encoder = folders.feature_extractor
    places = [given] if given else [folders.root, folders.data_root / folders.task]
    for name in FINDERS if layout == "auto" else [layout]:
        candidates = [folder for place in places for folder in FINDERS[name](place, encoder, magnification)]
        found = list(dict.fromkeys(folder for folder in candidates if _has_files(folder)))
        if len(found) > 1:
            several = ", ".join(map(str, found))
            raise UserError(f"several folders hold {magnification}x features: {several}; name one with {option}")
        if found:
            beside = [above / "patches" for above in found[0].parents[:2] if name == "clam"]
            return Source(name, found[0], next(filter(Path.is_dir, beside), None))
    # a folder of files that was named is taken as it is, unless it is TRIDENT's of another magnification
    is_trident = given and TRIDENT_FOLDER.fullmatch(given.resolve().parent.name)
    if given and layout in ("auto", "reference") and _has_files(given) and not is_trident:
        return Source("reference", given)
    raise UserError(
        f"{' and '.join(map(str, places))}: no {magnification}x features of {encoder} ({layout} layout); expected "
        f"{encoder}_{magnification}x/*.h5, {magnification}x_*px_*px_overlap/features_{encoder}/*.h5 (TRIDENT) or "
        f"h5_files/*.h5 (CLAM). Name their folder with {option}, or make them: {folders.extract_command()}"
    )


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_patches(file: Path, magnification: int, patches_file: Path | None = None) -> Patches:
    """Read one file, whatever tool wrote it: a batch dimension of 1 is dropped, features become float32, coordinates
    int64. patches_file: CLAM's file of coordinates, read for its attributes where it is there.

    Raises UserError, naming the file: missing or damaged, no patch in it, shapes that do not fit, NaN, infinite or
    all-zero rows, another magnification than expected.
    """
    arrays = read_h5(file, ("features", "coords"))
    attributes = read_attributes(file)
    if patches_file and patches_file.is_file():
        attributes |= read_attributes(patches_file)
    features, coords = (_without_batch(arrays[name]) for name in ("features", "coords"))
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise UserError(f"{file}: features are {features.dtype} {features.shape}, expected floats (patches, width)")
    if len(features) == 0:
        raise UserError(f"{file}: empty, no {magnification}x patch; was tissue found on this slide?")
    said = _number(file, attributes, "magnification" if "magnification" in attributes else "target_magnification")
    if said not in (None, magnification):
        raise UserError(f"{file}: holds patches at {said:g}x, expected {magnification}x")
    patches = Patches(
        file,
        np.ascontiguousarray(features, dtype=np.float32),
        whole_coords(file, coords, (len(features), 2)),
        attributes,
        as_is=arrays["features"].ndim == 2 and arrays["coords"].ndim == 2,
    )
    bad, zero = int((~np.isfinite(patches.norms)).sum()), int((patches.norms == 0).sum())
    if bad or zero:
        raise UserError(
            f"{file}: of {len(features)} feature rows {bad} have NaN or infinite values and {zero} are all zero, which "
            "no encoder gives; extract this slide again"
        )
    return patches


def _without_batch(array: np.ndarray) -> np.ndarray:
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def whole_coords(file: Path, coords: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Coordinates as int64, rounded where they are floats. Raises UserError where they are no numbers of this shape."""
    if coords.shape != shape or not np.issubdtype(coords.dtype, np.number) or not np.isfinite(coords).all():
        raise UserError(f"{file}: coords are {coords.dtype} {coords.shape}, expected finite numbers {shape}")
    return np.rint(coords).astype(np.int64) if np.issubdtype(coords.dtype, np.floating) else coords.astype(np.int64)


def read_attributes(file: Path) -> dict[str, Any]:
    """The attributes of a file, of its ``features`` and of its ``coords``."""
    try:
        with h5py.File(file, "r") as opened:
            parts = [opened, *(opened[name] for name in ("features", "coords") if name in opened)]
            return {name: value for part in parts for name, value in part.attrs.items()}
    except (OSError, RuntimeError) as error:
        raise UserError(f"{file}: not a readable HDF5 file, it may be cut off ({error})") from error


# ---- sizes of patches ------------------------------------------------------------------------------------------------


class PatchSizes(NamedTuple):
    """Edges of the square patches in level-0 pixels, and what they were taken from."""

    parent: int
    child: int
    parent_from: str
    child_from: str


def size_from_attributes(patches: Patches) -> int | None:
    """Level-0 patch size as the file says it: this project and TRIDENT (patch_size_level0), TRIDENT's magnifications,
    or CLAM (patch_size * downsample). Raises UserError where it is not a number."""

    names = "patch_size_level0", "patch_size", "level0_magnification", "target_magnification", "downsample"
    known, size, level0, target, downsample = (_number(patches.file, patches.attributes, name) for name in names)
    if size and level0 and target:
        return round(known or size * level0 / target)
    if size and downsample:
        return round(known or size * downsample)
    return round(known) if known else None


def _number(file: Path, attributes: dict[str, Any], name: str) -> float | None:
    """An attribute's (first) number, written 20 or 20x; None where it is absent."""
    if name not in attributes:
        return None
    text = str(next(iter(np.ravel(attributes[name])), "")).lower().removesuffix("x")
    if not NUMBER.fullmatch(text) or float(text) <= 0:
        raise UserError(f"{file}: attribute {name} is {text!r}, expected a number above 0")
    return float(text)


def stride(coords: np.ndarray) -> tuple[int, bool] | None:
    """The most common distance between neighbours in a row or column of patches, and whether it is well supported: at
    least 8 times, and half of all. coords: (N, 2). None where no two patches share a row or column."""
    steps = []
    for axis in (0, 1):
        along, across = coords[:, axis], coords[:, 1 - axis]
        order = np.lexsort((along, across))
        steps.append(np.diff(along[order])[np.diff(across[order]) == 0])
    distances, counts = np.unique(np.concatenate(steps), return_counts=True)
    distances, counts = distances[distances > 0], counts[distances > 0]
    if len(counts) == 0:
        return None
    return int(distances[counts.argmax()]), bool(counts.max() >= max(8, counts.sum() / 2))


def patch_sizes(low: Patches, high: Patches, magnifications: tuple[int, int], level0: float | None) -> PatchSizes:
    """Level-0 sizes of parents and children: from attributes, else the coordinates' stride, else level 0's
    magnification (patches of 256 pixels).

    A stride of few patches may span a gap: it counts where both sizes then stand as the magnifications (low, high) do.
    Raises UserError where a size is not to be had, and where parents are no whole multiple of children.
    """
    both = (low, high)
    found = [size_from_attributes(patches) for patches in both]
    origin = ["attributes" if size else "" for size in found]
    strides = [stride(patches.coords) for patches in both]
    parent, child = (size or (step[0] if step else 0) for size, step in zip(found, strides, strict=True))
    fits = parent * magnifications[0] == child * magnifications[1] > 0
    for index, (patches, step) in enumerate(zip(both, strides, strict=True)):
        if found[index] is None and step and (step[1] or fits):
            found[index], origin[index] = step[0], "stride"
        elif found[index] is None:
            found[index], origin[index] = _size_from_table(patches, step, magnifications[index], level0), "level0_mag"
    parent, child = (size or 0 for size in found)
    if parent % child or parent == child:
        raise UserError(
            f"{low.file}: patches of {parent} level-0 pixels (by {origin[0]}) do not nest with those of {child} (by "
            f"{origin[1]}) in {high.file}; expected a whole multiple, {magnifications[1] / magnifications[0]:g} times. "
            "Extract both scales with the same patch size in pixels, or name the right folders"
        )
    return PatchSizes(parent, child, *origin)


def _size_from_table(patches: Patches, step: tuple[int, bool] | None, magnification: int, level0: float | None) -> int:
    if level0 is None:
        raise UserError(
            f"{patches.file}: no attribute tells the level-0 patch size, and the coordinates of {len(patches.coords)} "
            "patches do not; write its level0_mag into the table of slides (--dataset_csv), or the attribute "
            "patch_size_level0 into the file"
        )
    size = round(PATCH_SIZE * level0 / magnification)
    if step and step[0] % size:
        raise UserError(
            f"{patches.file}: neighbours lie {step[0]} level-0 pixels apart, but {PATCH_SIZE} pixels at "
            f"{magnification}x are {size} on a slide of level0_mag {level0:g}; was another patch size used? Then "
            "write it into the file, as the attribute patch_size_level0"
        )
    return size


def read_level0_magnifications(path: Path) -> dict[str, float]:
    """{slide_id: magnification of level 0} from the column level0_mag of the table of slides, where it is filled in.
    Raises UserError where it is not a number above 0."""
    table = read_table(path)
    found = {}
    for slide_id, text in zip(table["slide_id"], table.get("level0_mag", [""] * len(table)), strict=True):
        if text := str(text).strip().lower().removesuffix("x"):
            if not NUMBER.fullmatch(text) or float(text) <= 0:
                raise UserError(f"{path}: level0_mag of {slide_id} is {text!r}, expected 20 or 40, say")
            found[slide_id] = float(text)
    return found
