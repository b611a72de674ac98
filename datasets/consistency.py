"""Hierarchical files held against the low and high files of the same slides.

The low file gives the parents, the high file the children; without a high file the hierarchical file's own children are
held against the parents alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from datasets.features_model import shared_model
from datasets.folders import FeatureFolders
from datasets.hierarchy import Stored, read_stored
from datasets.link_rules import RELEASED
from datasets.linked_patches import refuse_swapped
from datasets.links import NONE, find_rows, link, repeated_rows
from datasets.patch_sizes import PatchSizes, patch_sizes
from datasets.patches import Patches, read_patches, row_norms
from datasets.projection import TOLERANCE, Projection, projection_fault
from utils.errors import Attempt, UserError

BEYOND_REPAIR = {"sizes", "swapped", "projection", "model"}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Inconsistency(NamedTuple):
    """A fault of a slide's files.

    kind: file, values, masks, counts, order, coordinates, features, sizes, swapped, projection or model.
    """

    kind: str
    text: str


@dataclass
class SlideCheck:
    """What was found in one slide's files. has_mask: False for files of the released form, which is no fault.
    to_project: some features of some file need the projection that was asked for. notes: what is no fault; a
    number of rows stands in front."""

    slide_id: str
    parents: int = 0
    children: int = 0
    childless: int = 0
    has_mask: bool = True
    to_project: bool = False
    faults: list[Inconsistency] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, number: int, text: str) -> None:
        """A fault of this many rows; none where there are none."""
        if number:
            self.faults.append(Inconsistency(kind, f"{number} {text}"))

    def attempt(
        self, kind: str, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Attempt[Result]:
        """Take a step; where it raises a UserError, its faults are of this kind."""
        try:
            return Attempt(step(*args, **kwargs))
        except UserError as error:
            self.faults += [Inconsistency(kind, str(fault)) for fault in error.faults]
            return Attempt()

    @property
    def is_repairable(self) -> bool:
        return not self.has_mask or any(fault.kind not in BEYOND_REPAIR for fault in self.faults)


# ---- check -----------------------------------------------------------------------------------------------------------


def check_slide(
    folders: FeatureFolders, slide_id: str, level0: float | None = None, projection: Projection | None = None
) -> SlideCheck:
    """Check a slide's hierarchical file, alone and against its low and high files, as far as they are there.

    level0: magnification of level 0, where neither attributes nor coordinates tell the patch sizes. projection: the one
    that is asked for.
    """
    check = SlideCheck(slide_id)
    low = check.attempt("file", read_patches, folders.low_file(slide_id), folders.low_magnification)
    high: Attempt[Patches] = Attempt()
    if folders.high_file(slide_id).is_file():
        high = check.attempt("file", read_patches, folders.high_file(slide_id), folders.high_magnification)
    else:
        check.notes.append(f"no {folders.high_magnification}x file: children not compared")
    stored = check.attempt("file", read_stored, folders.hierarchical_file(slide_id))
    if stored:
        _check_rows(check, stored.value)
        if low and projection:
            of_slide = [low.value, stored.value.children(), *([high.value] if high else [])]
            check.to_project = any(projection.needed_by(patches) for patches in of_slide)
        if low:
            _check_against_low(check, folders, stored.value, low.value, high.value if high else None, level0)
    return check


def _check_rows(check: SlideCheck, stored: Stored) -> None:
    """What a file must fulfil by itself."""
    check.parents, check.children = len(stored.real), int(stored.real.sum())
    check.childless = int((~stored.real.any(1)).sum())
    check.has_mask = stored.mask is not None
    check.add("values", int((~np.isfinite(row_norms(stored.features))).sum()), "children with NaN or infinite values")
    if stored.mask is None:
        check.notes.append("no mask, as in released files: rows that are not zero are the children")
    else:
        check.add("masks", int((stored.nonzero & ~stored.mask).sum()), "rows with features where the mask is False")
        check.add("masks", int((stored.mask & ~stored.nonzero).sum()), "all-zero rows where the mask is True")
        empty = ~stored.nonzero & ~stored.mask
        check.add("coordinates", int(stored.coords[empty].any(-1).sum()), "empty slots with coordinates other than 0")


def _check_against_low(
    check: SlideCheck,
    folders: FeatureFolders,
    stored: Stored,
    low: Patches,
    high: Patches | None,
    level0: float | None,
) -> None:
    """The file's rows are the parents of the low file, of the same features; its children are where they belong."""
    if stored.features.shape[-1] != low.features.shape[-1]:
        wide = f"features are {stored.features.shape[-1]} wide, those of {low.file} {low.features.shape[-1]}"
        check.faults.append(Inconsistency("features", f"{stored.file}: {wide}"))
        return
    children = stored.children()
    norms = children.norms[np.isfinite(children.norms)]
    if told := projection_fault(folders, low.norms, norms if len(norms) else low.norms):
        check.faults.append(Inconsistency("projection", told))
    for other in (children, *([high] if high else [])):
        check.attempt("model", shared_model, low, other)
    if len(stored.real) != len(low.coords):
        check.faults.append(Inconsistency("counts", f"{len(stored.real)} parents; {low.file} has {len(low.coords)}"))
    if len(children.coords) == 0 and high is None:
        return
    magnifications = folders.low_magnification, folders.high_magnification
    if sizes := check.attempt("sizes", patch_sizes, low, high or children, magnifications, level0):
        _check_places(check, stored, low, sizes.value)
        if high is not None and check.attempt("swapped", refuse_swapped, low, high, sizes.value):
            _check_against_high(check, stored, low, high, sizes.value)


def _check_places(check: SlideCheck, stored: Stored, low: Patches, sizes: PatchSizes) -> None:
    """Every child in its parent, none twice, parents in the order of the low file, children in rows and columns."""
    coords, rows = stored.coords[stored.real], np.nonzero(stored.real)[0]
    owners, outside = row_owners(stored, low, sizes)
    if len(owners) == len(low.coords):
        displaced = (owners != np.arange(len(owners))) & (owners != NONE)
        check.add("order", int(displaced.sum()), f"rows hold the children of another parent of {low.file}")
    check.add("coordinates", int(outside.sum()), "children lie outside their parent")
    _check_repeated(check, stored.rule, coords, rows, outside)
    (x, y), same_row = np.diff(coords, axis=0).T, np.diff(rows) == 0
    disordered = int((same_row & ((y < 0) | ((y == 0) & (x < 0)))).sum())
    text = "children stand before one of a row or column further up"
    if stored.attributes.get("child_order") == "row-major":
        check.add("order", disordered, text)
    elif disordered:
        check.notes.append(f"{disordered} {text} (the model does not mind, and this file promises no order)")


def _check_repeated(check: SlideCheck, rule: str, coords: np.ndarray, rows: np.ndarray, outside: np.ndarray) -> None:
    """No child stands twice; by the rule ``released`` in no row, and in several rows where all these parents hold it.

    coords: (N, 2) of the children. rows: (N,) theirs. outside: (N,) bool, those outside their parent.
    """
    repeated = repeated_rows(coords)
    if rule == RELEASED:
        in_a_row = repeated_rows(np.column_stack([coords, rows]))
        if shared := int((repeated & ~in_a_row & ~outside).sum()):
            text = "children stand in another overlapping parent as well, as the released code links them"
            check.notes.append(f"{shared} {text}")
        repeated = in_a_row
    check.add("coordinates", int(repeated.sum()), "children stand twice")


def _check_against_high(check: SlideCheck, stored: Stored, low: Patches, high: Patches, sizes: PatchSizes) -> None:
    """The children are those of the high file: none missing, none unknown, with its features."""
    if high.features.shape[1] != stored.features.shape[2]:
        check.faults.append(Inconsistency("features", f"{high.file}: features are {high.features.shape[1]} wide"))
        return
    children = stored.children()
    place = find_rows(children.coords, high.coords)
    known = place != NONE
    check.add("coordinates", int((~known).sum()), f"children are not in {high.file}")
    finite = known & np.isfinite(children.norms)
    wanted = high.features[place[finite]]
    apart = row_norms(children.features[finite] - wanted) > TOLERANCE * row_norms(wanted)
    check.add("features", int(apart.sum()), f"children have other features than in {high.file}")
    links = link(stored.rule, low.coords, high.coords, sizes).without(find_rows(high.coords, children.coords) != NONE)
    owners, _ = row_owners(stored, low, sizes)
    is_full = np.zeros(len(low.coords) + 1, dtype=bool)  # the last: of rows without a parent
    is_full[owners[stored.real.all(1)]] = True
    missing = np.unique(links.child[~is_full[links.parent]])
    check.add("counts", len(missing), f"children of {high.file} are missing")


def row_owners(stored: Stored, low: Patches, sizes: PatchSizes) -> tuple[np.ndarray, np.ndarray]:
    """The parent of every row of the file, (R,) rows of ``low`` or -1, and which children lie outside it, (real,) bool.

    Row i is parent i's, unless the files differ in length or none of its children lie in parent i: then the parent's
    that holds most of them by the file's rule, of equals the nearest to row i. A child lies in a parent by its centre
    or its corner (released files go by the corner).
    """
    rows, coords = np.nonzero(stored.real)[0], stored.coords[stored.real]
    links = link(stored.rule, low.coords, coords, sizes)
    num_rows, num_parents = len(stored.real), len(low.coords)
    pairs, counts = np.unique(rows[links.child] * num_parents + links.parent, return_counts=True)
    row_of_pair, parent = np.divmod(pairs, num_parents)
    owners = np.full(num_rows, NONE)
    by_count = np.lexsort((-np.abs(parent - row_of_pair), counts))
    owners[row_of_pair[by_count]] = parent[by_count]  # the last written has the most
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
    by_centre = ((away >= -sizes.child) & (away < 2 * sizes.parent - sizes.child)).all(1)
    is_inside: np.ndarray = by_corner | by_centre
    return is_inside
