"""Children given to their parents by coordinates: a slide's (P, C, D) array, built from its patches at both scales.

A child belongs to the parent whose square holds the child's centre, so that at least half of it lies there along each
axis; where squares overlap, to the parent with the nearest centre, and among equals to the first in the file.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.patch_sizes import PatchSizes
from datasets.patches import Patches, whole_coords
from utils import __version__
from utils.errors import Fault, UserError
from utils.h5 import read_attributes, read_h5, write_h5

NONE = -1


@dataclass(frozen=True)
class Hierarchy:
    """One slide's children by parent.

    features: (P, C, D) float32, zero rows where a slot is empty. coords: (P, C, 2) int64 top-left corners, 0 there.
    mask: (P, C) bool, True for real children. on_grid: slot = place in the parent's own grid, row by row; otherwise
    the children come first, ordered by row and column. orphans, repeated, dropped: patches left out because no parent
    holds them, because they stand twice in the file, because their parent has more than C (``crowded`` parents do).
    """

    features: np.ndarray
    coords: np.ndarray
    mask: np.ndarray
    on_grid: bool
    orphans: int
    repeated: int
    dropped: int
    crowded: int

    @property
    def childless(self) -> int:
        return int((~self.mask.any(1)).sum())


# ---- which parent ----------------------------------------------------------------------------------------------------


def link_children(parents: np.ndarray, children: np.ndarray, parent_size: int, child_size: int) -> np.ndarray:
    """The parent of every child: (N,) int64 rows of ``parents``, or -1.

    parents: (P, 2), children: (N, 2) int64 level-0 top-left corners; sizes: edges in level-0 pixels.
    """
    centres = 2 * children + child_size  # doubled coordinates keep half pixels whole
    if not ((parents - parents[0]) % parent_size).any():
        return _link_on_grid(parents, centres, parent_size)
    return _link_by_window(parents, centres, parent_size)


def _link_on_grid(parents: np.ndarray, centres: np.ndarray, size: int) -> np.ndarray:
    """Parents on one regular grid: a child's cell is a division. centres: doubled."""
    origin = parents.min(0)
    cells, wanted = (parents - origin) // size, (centres - 2 * origin) // (2 * size)
    num_columns = cells[:, 0].max() + 1
    order, keys = _sorted_keys(cells[:, 1] * num_columns + cells[:, 0])
    wanted_keys = wanted[:, 1] * num_columns + wanted[:, 0]
    place = np.searchsorted(keys, wanted_keys).clip(max=len(keys) - 1)
    found = (wanted[:, 0] >= 0) & (wanted[:, 0] < num_columns) & (keys[place] == wanted_keys)
    return np.where(found, order[place], NONE)


def _link_by_window(parents: np.ndarray, centres: np.ndarray, size: int) -> np.ndarray:
    """Parents anywhere: they are sorted into cells as large as themselves, and a child looks at the four cells from
    which a square can reach its centre. The work grows with the children times the squares that overlap at a point.
    centres: doubled."""
    distinct = np.sort(np.unique(parents, axis=0, return_index=True)[1])
    origin = parents.min(0) - size
    cells, wanted = (parents[distinct] - origin) // size, (centres - 2 * origin) // (2 * size)
    num_columns = max(cells[:, 0].max(), wanted[:, 0].max(initial=0)) + 2  # no neighbour wraps into the next row
    order, keys = _sorted_keys(cells[:, 1] * num_columns + cells[:, 0])
    best = np.full(len(centres), NONE)
    nearest = np.full(len(centres), np.iinfo(np.int64).max)
    for row, column in ((-1, -1), (-1, 0), (0, -1), (0, 0)):
        wanted_keys = (wanted[:, 1] + row) * num_columns + wanted[:, 0] + column
        place, end = np.searchsorted(keys, wanted_keys), np.searchsorted(keys, wanted_keys, side="right")
        child = np.flatnonzero((place < end) & (wanted[:, 0] + column >= 0))
        while len(child):
            parent = distinct[order[place[child]]]
            away = centres[child] - 2 * parents[parent]
            distance = ((away - size) ** 2).sum(1)
            closer = (distance < nearest[child]) | ((distance == nearest[child]) & (parent < best[child]))
            closer &= ((away >= 0) & (away < 2 * size)).all(1)
            best[child[closer]], nearest[child[closer]] = parent[closer], distance[closer]
            place[child] += 1
            child = child[place[child] < end[child]]
    return best


def _sorted_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    return order, keys[order]


def repeated_rows(coords: np.ndarray) -> np.ndarray:
    """(N,) bool: the same coordinates stand further up. coords: (N, 2)."""
    order = np.lexsort((coords[:, 0], coords[:, 1]))  # stable: the first of equals stays first
    repeated = np.zeros(len(coords), dtype=bool)
    repeated[order[1:]] = (coords[order[1:]] == coords[order[:-1]]).all(1)
    return repeated


def find_rows(wanted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The first row of ``table`` (N, 2) that equals each row of ``wanted`` (M, 2): (M,) int64, or -1."""
    both = np.concatenate([table, wanted])
    _, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
    place = first[which.ravel()[len(table) :]]
    return np.where(place < len(table), place, NONE)


# ---- which slot ------------------------------------------------------------------------------------------------------


def assign_slots(
    parent_of_child: np.ndarray,
    parents: np.ndarray,
    children: np.ndarray,
    sizes: PatchSizes,
    max_patches: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, bool]:
    """The child in every slot: (P, max_patches) int64 rows of ``children``, or -1; and whether slots are places.

    They are places in the parent's grid where every child lies on it and the grid has at most ``max_patches`` places.
    Else a parent's children come first, by row and column; of more than ``max_patches`` the generator draws some.
    """
    slots = np.full((len(parents), max_patches), NONE)
    linked = np.flatnonzero(parent_of_child != NONE)
    owner = parent_of_child[linked]
    side = sizes.parent // sizes.child
    columns, offsets = np.divmod((children[linked] - parents[owner]).T, sizes.child)
    if side**2 <= max_patches and not offsets.any():
        slots[owner, columns[1] * side + columns[0]] = linked
        return slots, True
    order = np.lexsort((children[linked, 0], children[linked, 1], owner))
    linked, owner = linked[order], owner[order]
    by_draw = np.lexsort((generator.random(len(linked)), owner))
    kept = np.empty(len(linked), dtype=bool)
    kept[by_draw] = _rank(owner) < max_patches
    linked, owner = linked[kept], owner[kept]
    slots[owner, _rank(owner)] = linked
    return slots, False


def _rank(groups: np.ndarray) -> np.ndarray:
    """The place of every element within its group. groups: (N,) sorted."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


# ---- the whole slide -------------------------------------------------------------------------------------------------


def build_hierarchy(
    low: Patches, high: Patches, sizes: PatchSizes, max_patches: int, seed: int, slide_id: str
) -> Hierarchy:
    """Link a slide's children to its parents; every parent stays, in the order of ``low``. The choice among a crowded
    parent's children depends on the seed and the slide alone."""
    parent_of_child = link_children(low.coords, high.coords, sizes.parent, sizes.child)
    return gather_children(parent_of_child, low, high, sizes, max_patches, seed, slide_id)


def gather_children(
    parent_of_child: np.ndarray,
    low: Patches,
    high: Patches,
    sizes: PatchSizes,
    max_patches: int,
    seed: int,
    slide_id: str,
) -> Hierarchy:
    """The hierarchy of children whose parents are known: (N,) rows of ``low``, or -1."""
    repeated = repeated_rows(high.coords)
    owners = np.where(repeated, NONE, parent_of_child)
    generator = np.random.default_rng([seed, zlib.crc32(slide_id.encode())])
    slots, on_grid = assign_slots(owners, low.coords, high.coords, sizes, max_patches, generator)
    mask = slots != NONE
    features = np.empty((*slots.shape, high.features.shape[1]), dtype=np.float32)
    np.take(high.features, slots, axis=0, out=features, mode="clip")
    features[~mask] = 0
    counts = np.bincount(owners[owners != NONE], minlength=len(low.coords))
    return Hierarchy(
        features=features,
        coords=high.coords[slots] * mask[..., None],
        mask=mask,
        on_grid=on_grid,
        orphans=int((parent_of_child[~repeated] == NONE).sum()),
        repeated=int(repeated.sum()),
        dropped=int(counts.sum() - mask.sum()),
        crowded=int((counts > max_patches).sum()),
    )


# ---- the file ------------------------------------------------------------------------------------------------------


def write_hierarchy(path: Path, hierarchy: Hierarchy, sizes: PatchSizes, made: dict[str, Any]) -> None:
    """Write a hierarchical file, whole or not at all. made: further attributes."""
    datasets = {"features": hierarchy.features, "coords": hierarchy.coords, "mask": hierarchy.mask}
    attributes = {
        **made,
        "patch_size_level0": sizes.child,
        "parent_size_level0": sizes.parent,
        "patch_sizes_from": f"{sizes.parent_from}, {sizes.child_from}",
        "slots": "grid" if hierarchy.on_grid else "packed",
        "child_order": "row-major",
        "children_without_parent": hierarchy.orphans,
        "children_repeated": hierarchy.repeated,
        "children_dropped": hierarchy.dropped,
        "version": __version__,
    }
    write_h5(path, datasets, attributes)


class Stored(NamedTuple):
    """A hierarchical file. features (R, C, D) float32, coords (R, C, 2) int64, mask (R, C) bool or None; nonzero (R, C)
    bool: rows with features; real (R, C): those that the mask does not exclude."""

    file: Path
    features: np.ndarray
    coords: np.ndarray
    mask: np.ndarray | None
    attributes: dict[str, Any]
    nonzero: np.ndarray
    real: np.ndarray

    def children(self) -> Patches:
        return Patches(self.file, self.features[self.real], self.coords[self.real], self.attributes)


def read_stored(file: Path) -> Stored:
    """Read a hierarchical file. Raises UserError where it is missing, damaged, or its shapes do not fit."""
    arrays = read_h5(file, ("features", "coords"), ("mask",))
    features, mask = arrays["features"], arrays.get("mask")
    if features.ndim != 3 or 0 in features.shape or not np.issubdtype(features.dtype, np.floating):
        found = f"features are {features.dtype} {features.shape}"
        expected = "floating point numbers (parents, children, width)"
        raise UserError(Fault("features.shape", str(file), found, expected))
    coords = whole_coords(file, arrays["coords"], (*features.shape[:2], 2))
    if mask is not None and (mask.dtype != bool or mask.shape != features.shape[:2]):
        found = f"mask is {mask.dtype} {mask.shape}"
        raise UserError(Fault("features.mask", str(file), found, expected=f"bool {features.shape[:2]}"))
    nonzero = (features != 0).any(-1)
    real = nonzero if mask is None else nonzero & mask
    features = features.astype(np.float32, copy=False)
    return Stored(file, features, coords, mask, read_attributes(file), nonzero, real)
