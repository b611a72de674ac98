"""Hierarchical files held against the low and high files of the same slides, and repaired from them.

The low file gives the parents, the high file the children; without a high file the hierarchical file's own children are
held against the parents alone.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from datasets.feature_layouts import Patches, PatchSizes, patch_sizes, read_patches, row_norms
from datasets.folders import FeatureFolders
from datasets.hierarchy import (
    NONE,
    Hierarchy,
    Stored,
    build_hierarchy,
    find_rows,
    gather_children,
    link_children,
    read_stored,
    repeated_rows,
    write_hierarchy,
)  # fmt: skip
from datasets.projection import TOLERANCE, Projection, has_unit_rows, projection_attributes, projection_fault
from utils.errors import UserError
from utils.h5 import write_h5

CHILDREN_PER_PARENT = 16  # of a file that is made anew
BEYOND_REPAIR = {"sizes", "projection"}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Fault(NamedTuple):
    """kind: file, values, masks, counts, order, coordinates, features, sizes or projection."""

    kind: str
    text: str


@dataclass
class SlideCheck:
    """What was found in one slide's files. has_mask: False for files of the released form, which is no fault.
    normalised: all features of all files are of unit length."""

    slide_id: str
    parents: int = 0
    children: int = 0
    childless: int = 0
    has_mask: bool = True
    normalised: bool = True
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, number: int, text: str) -> None:
        """A fault of this many rows; none where there are none."""
        if number:
            self.faults.append(Fault(kind, f"{number} {text}"))

    def attempt(
        self, kind: str, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        """The step's result, or None where it raised a UserError, which is a fault of this kind."""
        try:
            return step(*args, **kwargs)
        except UserError as error:
            self.faults += [Fault(kind, str(fault)) for fault in error.faults]
            return None

    @property
    def is_repairable(self) -> bool:
        return not self.has_mask or any(fault.kind not in BEYOND_REPAIR for fault in self.faults)


# ---- check -----------------------------------------------------------------------------------------------------------


def check_slide(folders: FeatureFolders, slide_id: str, level0: float | None = None) -> SlideCheck:
    """Check a slide's hierarchical file, alone and against its low and high files, as far as they are there.

    level0: magnification of level 0, where neither attributes nor coordinates tell the patch sizes.
    """
    check = SlideCheck(slide_id)
    low = check.attempt("file", read_patches, folders.low_file(slide_id), folders.low_magnification)
    high = None
    if folders.high_file(slide_id).is_file():
        high = check.attempt("file", read_patches, folders.high_file(slide_id), folders.high_magnification)
    else:
        check.notes.append(f"no {folders.high_magnification}x file: children not compared")
    stored = check.attempt("file", read_stored, folders.hierarchical_file(slide_id))
    if stored is None:
        return check
    check.parents, check.children = len(stored.real), int(stored.real.sum())
    check.childless = int((~stored.real.any(1)).sum())
    check.has_mask = stored.mask is not None
    _check_rows(check, stored)
    if low is None:
        return check
    if stored.features.shape[-1] != low.features.shape[-1]:
        wide = f"features are {stored.features.shape[-1]} wide, those of {low.file} {low.features.shape[-1]}"
        check.faults.append(Fault("features", f"{stored.file}: {wide}"))
        return check
    children = stored.children()
    norms = children.norms[np.isfinite(children.norms)]
    check.normalised = all(map(has_unit_rows, (low.norms, norms, high.norms if high else norms)))
    if fault := projection_fault(folders, low.norms, norms if len(norms) else low.norms):
        check.faults.append(Fault("projection", fault))
    if len(stored.real) != len(low.coords):
        check.faults.append(Fault("counts", f"{len(stored.real)} parents; {low.file} has {len(low.coords)}"))
    if len(children.coords) == 0 and high is None:
        return check
    magnifications = folders.low_magnification, folders.high_magnification
    sizes = check.attempt("sizes", patch_sizes, low, high or children, magnifications, level0)
    if sizes is not None:
        _check_places(check, stored, low, sizes)
        if high is not None:
            _check_against_high(check, stored, low, high, sizes)
    return check


def _check_rows(check: SlideCheck, stored: Stored) -> None:
    """What a file must fulfil by itself."""
    check.add("values", int((~np.isfinite(row_norms(stored.features))).sum()), "children with NaN or infinite values")
    if stored.mask is None:
        check.notes.append("no mask, as in released files: rows that are not zero are the children")
    else:
        check.add("masks", int((stored.nonzero & ~stored.mask).sum()), "rows with features where the mask is False")
        check.add("masks", int((stored.mask & ~stored.nonzero).sum()), "all-zero rows where the mask is True")
        empty = ~stored.nonzero & ~stored.mask
        check.add("coordinates", int(stored.coords[empty].any(-1).sum()), "empty slots with coordinates other than 0")


def _check_places(check: SlideCheck, stored: Stored, low: Patches, sizes: PatchSizes) -> None:
    """Every child in its parent, none twice, parents in the order of the low file, children in rows and columns."""
    coords, rows = stored.coords[stored.real], np.nonzero(stored.real)[0]
    owners, outside = _owners(stored, low, sizes)
    if len(owners) == len(low.coords):
        displaced = (owners != np.arange(len(owners))) & (owners != NONE)
        check.add("order", int(displaced.sum()), f"rows hold the children of another parent of {low.file}")
    check.add("coordinates", int(outside.sum()), "children lie outside their parent")
    check.add("coordinates", int(repeated_rows(coords).sum()), "children stand twice")
    (x, y), same_row = np.diff(coords, axis=0).T, np.diff(rows) == 0
    disordered = int((same_row & ((y < 0) | ((y == 0) & (x < 0)))).sum())
    text = "children stand before one of a row or column further up"
    if stored.attributes.get("child_order") == "row-major":
        check.add("order", disordered, text)
    elif disordered:
        check.notes.append(f"{disordered} {text} (the model does not mind, and this file promises no order)")


def _check_against_high(check: SlideCheck, stored: Stored, low: Patches, high: Patches, sizes: PatchSizes) -> None:
    """The children are those of the high file: none missing, none unknown, with its features."""
    if high.features.shape[1] != stored.features.shape[2]:
        check.faults.append(Fault("features", f"{high.file}: features are {high.features.shape[1]} wide"))
        return
    children = stored.children()
    place = find_rows(children.coords, high.coords)
    known = place != NONE
    check.add("coordinates", int((~known).sum()), f"children are not in {high.file}")
    finite = known & np.isfinite(children.norms)
    wanted = high.features[place[finite]]
    apart = row_norms(children.features[finite] - wanted) > TOLERANCE * row_norms(wanted)
    check.add("features", int(apart.sum()), f"children have other features than in {high.file}")
    owner = link_children(low.coords, high.coords, sizes.parent, sizes.child)
    absent = (find_rows(high.coords, children.coords) == NONE) & (owner != NONE)
    row_owners, _ = _owners(stored, low, sizes)
    is_full = np.zeros(len(low.coords) + 1, dtype=bool)  # the last: of rows without a parent
    is_full[row_owners[stored.real.all(1)]] = True
    check.add("counts", int((absent & ~is_full[owner]).sum()), f"children of {high.file} are missing")


def _owners(stored: Stored, low: Patches, sizes: PatchSizes) -> tuple[np.ndarray, np.ndarray]:
    """The parent of every row of the file, (R,) rows of ``low`` or -1, and which children lie outside it, (real,) bool.

    Row i is parent i's, unless the files differ in length or none of its children lie in parent i: then the parent's
    that holds most of them. A child lies in a parent by its centre or its corner (released files go by the corner).
    """
    rows, coords = np.nonzero(stored.real)[0], stored.coords[stored.real]
    holders = link_children(low.coords, coords, sizes.parent, sizes.child)
    num_rows, num_parents = len(stored.real), len(low.coords)
    pairs, counts = np.unique(rows[holders != NONE] * num_parents + holders[holders != NONE], return_counts=True)
    owners = np.full(num_rows, NONE)
    by_count = np.argsort(counts, kind="stable")
    owners[pairs[by_count] // num_parents] = pairs[by_count] % num_parents  # the last written has the most
    if num_rows == num_parents:
        at_home = np.zeros(num_rows, dtype=bool)
        at_home[rows[_inside(low.coords[rows], coords, sizes)]] = True
        owners = np.where(at_home | (owners == NONE), np.arange(num_rows), owners)
    of_child = owners[rows]
    return owners, (of_child == NONE) | ~_inside(low.coords[of_child], coords, sizes)


def _inside(parents: np.ndarray, children: np.ndarray, sizes: PatchSizes) -> np.ndarray:
    """parents, children: (N, 2) -> (N,) whether the child's centre or top-left corner is in the parent's square."""
    away = 2 * (children - parents)
    by_corner = ((away >= 0) & (away < 2 * sizes.parent)).all(1)
    return by_corner | ((away >= -sizes.child) & (away < 2 * sizes.parent - sizes.child)).all(1)


# ---- repair ----------------------------------------------------------------------------------------------------------


def repair_slide(
    folders: FeatureFolders, slide_id: str, level0: float | None = None, projection: Projection | None = None
) -> None:
    """Write the slide's hierarchical file anew and keep the old one as .bak: from the low and high files or, without a
    high file, from its own children, which stay in their row's parent where they lie in it.

    projection: applied beforehand to those features that are not of unit length; the low and high files are then
    written anew too. Where it is interrupted, another call does what is left.

    Raises UserError, leaving all as it is, where these files are faulty or no child lies in any parent.
    """
    file = folders.hierarchical_file(slide_id)
    magnifications = folders.low_magnification, folders.high_magnification
    low = read_patches(folders.low_file(slide_id), magnifications[0])
    has_high = folders.high_file(slide_id).is_file()
    stored = _read_if_possible(file) if has_high else _with_all_children(read_stored(file))
    if has_high:
        children = read_patches(folders.high_file(slide_id), magnifications[1])
    else:
        assert stored
        children = stored.children()
    found = low, children
    if projection:
        low, children = (
            patches if has_unit_rows(patches.norms) else projection.of_patches(patches) for patches in found
        )
    said = dict(stored.attributes) if stored else {}
    seed = int(said.get("seed", 1))
    sizes = patch_sizes(low, children, magnifications, level0)
    if has_high:
        slots = stored.features.shape[1] if stored else CHILDREN_PER_PARENT
        hierarchy = build_hierarchy(low, children, sizes, slots, seed, slide_id)
    else:
        assert stored
        hierarchy = _rebuild_from_itself(stored, children, low, sizes, seed, slide_id)
    if not hierarchy.mask.any():
        raise UserError(f"{file}: not repaired, no child would lie in any parent of {low.file}")
    for before, after in zip(found, (low, children), strict=True):
        if after is not before and after.file != file:
            keep_backup(after.file)
            write_h5(after.file, {"features": after.features, "coords": after.coords}, after.attributes)
    if file.exists():
        keep_backup(file)
    for name in ("projection_warning", "projection_sha256"):
        said.pop(name, None)
    made = {
        "encoder": folders.feature_extractor,
        "low_magnification": magnifications[0],
        "high_magnification": magnifications[1],
        "seed": seed,
        "repaired_from": "low and high files" if has_high else "low file and its own children",
    }
    write_hierarchy(file, hierarchy, sizes, {**said, **projection_attributes(folders, low, children), **made})


def _with_all_children(stored: Stored) -> Stored:
    """Rows with features and a place of their own are children, whatever the mask says. Raises UserError where one has
    NaN or infinite values."""
    if stored.mask is not None:
        stored = stored._replace(real=stored.nonzero & (stored.mask | stored.coords.any(-1)))
    if not np.isfinite(stored.children().norms).all():
        raise UserError(f"{stored.file}: not repaired, it has NaN or infinite values; extract this slide again")
    return stored


def _rebuild_from_itself(
    stored: Stored, children: Patches, low: Patches, sizes: PatchSizes, seed: int, slide_id: str
) -> Hierarchy:
    owners, outside = _owners(stored, low, sizes)
    holders = link_children(low.coords, children.coords, sizes.parent, sizes.child)
    parent_of_child = np.where(outside, holders, owners[np.nonzero(stored.real)[0]])
    return gather_children(parent_of_child, low, children, sizes, stored.real.shape[1], seed, slide_id)


def _read_if_possible(file: Path) -> Stored | None:
    try:
        return read_stored(file)
    except UserError:
        return None


def keep_backup(file: Path) -> Path:
    """A second name for what a file holds now: <file>.bak, or .bak2 and so on; no earlier one is touched."""
    names = (file.with_name(f"{file.name}.bak{number}") for number in ("", *range(2, 1000)))
    backup = next(name for name in names if not name.exists())
    try:
        os.link(file, backup)
    except OSError:  # a file system without links
        shutil.copy2(file, backup)
    return backup
