"""Children given to their parents by coordinates: a slide's (P, C, D) array, built from its patches at both scales."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.link_rules import CENTRE, LINK_RULES, RELEASED
from datasets.links import NONE, Links, link, repeated_rows
from datasets.patch_sizes import PatchSizes
from datasets.patches import Patches, whole_coords
from utils import __version__
from utils.errors import Fault, UserError
from utils.h5 import read_attributes, read_h5, write_h5


@dataclass(frozen=True)
class Hierarchy:
    """One slide's children by parent.

    features: (P, C, D) float32, zero rows where a slot is empty. coords: (P, C, 2) int64 top-left corners, 0 there.
    mask: (P, C) bool, True for real children. on_grid: slot = place in the parent's own grid, row by row; otherwise
    the children come first, ordered by row and column, by the rule ``released`` as in their file. orphans, repeated,
    dropped: patches left out because no parent holds them, because they stand twice in the file, because their parent
    has more than C (``crowded`` parents do). rule: one of the ``LINK_RULES``.
    """

    features: np.ndarray
    coords: np.ndarray
    mask: np.ndarray
    on_grid: bool
    orphans: int
    repeated: int
    dropped: int
    crowded: int
    rule: str = CENTRE

    @property
    def childless(self) -> int:
        return int((~self.mask.any(1)).sum())


# ---- which slot ------------------------------------------------------------------------------------------------------


def assign_slots(
    links: Links,
    rule: str,
    parents: np.ndarray,
    children: np.ndarray,
    sizes: PatchSizes,
    max_patches: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, bool]:
    """The child in every slot: (P, max_patches) int64 rows of ``children``, or -1; and whether slots are places.

    They are places in the parent's grid where every child lies on it and the grid has at most ``max_patches`` places.
    Else a parent's children come first, by row and column; of more than ``max_patches`` the generator draws some. By
    the rule ``released`` a parent's children come first as well, in the order of their file.
    """
    slots = np.full((len(parents), max_patches), NONE)
    linked, owner = links
    if rule == RELEASED:
        order = np.lexsort((linked, owner))
    else:
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
    low: Patches, high: Patches, sizes: PatchSizes, max_patches: int, seed: int, slide_id: str, rule: str = CENTRE
) -> Hierarchy:
    """Link a slide's children to its parents; every parent stays, in the order of ``low``. The choice among a crowded
    parent's children depends on the seed and the slide alone."""
    links = link(rule, low.coords, high.coords, sizes)
    return gather_children(links, rule, low, high, sizes, max_patches, seed, slide_id)


def gather_children(
    links: Links,
    rule: str,
    low: Patches,
    high: Patches,
    sizes: PatchSizes,
    max_patches: int,
    seed: int,
    slide_id: str,
) -> Hierarchy:
    """The hierarchy of children whose parents are known. rule: the one that the links follow."""
    repeated = repeated_rows(high.coords)
    links = links.without(repeated)
    generator = np.random.default_rng([seed, zlib.crc32(slide_id.encode())])
    slots, on_grid = assign_slots(links, rule, low.coords, high.coords, sizes, max_patches, generator)
    mask = slots != NONE
    features = np.empty((*slots.shape, high.features.shape[1]), dtype=np.float32)
    np.take(high.features, slots, axis=0, out=features, mode="clip")
    features[~mask] = 0
    counts = np.bincount(links.parent, minlength=len(low.coords))
    return Hierarchy(
        features=features,
        coords=high.coords[slots] * mask[..., None],
        mask=mask,
        on_grid=on_grid,
        orphans=int((~repeated).sum()) - len(np.unique(links.child)),
        repeated=int(repeated.sum()),
        dropped=int(counts.sum() - mask.sum()),
        crowded=int((counts > max_patches).sum()),
        rule=rule,
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
        "link_rule": hierarchy.rule,
        "child_order": "file" if hierarchy.rule == RELEASED else "row-major",
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

    @property
    def rule(self) -> str:
        """The rule that links the children: as the file says, else the released code's of a file of the released form,
        without a mask and attributes."""
        said = self.attributes.get("link_rule")
        if said in LINK_RULES:
            return str(said)
        return RELEASED if self.mask is None and "slots" not in self.attributes else CENTRE

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
