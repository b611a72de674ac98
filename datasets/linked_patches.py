"""A slide's patches of both magnifications, linked: what create_hierarchical_features.py writes, and what a run reads
that links features in place."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.hierarchy import Hierarchy, build_hierarchy
from datasets.link_rules import CENTRE
from datasets.links import NONE, link_children
from datasets.patch_sizes import PatchSizes, patch_sizes
from datasets.patches import Patches
from utils.errors import Fault, UserError

MAX_PATCHES, SEED = 16, 1
FEW, MANY = 0.75, 0.9
"""Shares of children with a parent: at most and at least so many where the coordinates of one scale are swapped."""


@dataclass(frozen=True)
class Linking:
    """How children are given to parents. rule: one of the ``LINK_RULES``. max_patches: children of a parent at most.
    seed: of the choice among more."""

    rule: str = CENTRE
    max_patches: int = MAX_PATCHES
    seed: int = SEED


class LinkedPatches(NamedTuple):
    """A slide's patches, and which belongs to which."""

    low: Patches
    high: Patches
    sizes: PatchSizes
    hierarchy: Hierarchy


def link_patches(
    low: Patches, high: Patches, magnifications: tuple[int, int], level0: float | None, slide_id: str, how: Linking
) -> LinkedPatches:
    """Link a slide's patches. level0: magnification of level 0, where the table has it.

    Raises UserError where features are of two widths, as ``patch_sizes`` does, where no child lies in any parent, and
    where x and y are swapped at one scale.
    """
    if low.features.shape[1] != high.features.shape[1]:
        told = f"features are {low.features.shape[1]} wide, those of {high.file} {high.features.shape[1]}"
        raise UserError(Fault("features.width", str(low.file), told, expected="the same encoder"))
    sizes = patch_sizes(low, high, magnifications, level0)
    refuse_swapped(low, high, sizes)
    hierarchy = build_hierarchy(low, high, sizes, how.max_patches, how.seed, slide_id, how.rule)
    if not hierarchy.mask.any():
        told = f"none of {len(high.coords)} children lies in any of {len(low.coords)} parents of {low.file}"
        expected = "coordinates of the same slide, in level-0 pixels"
        raise UserError(Fault("features.unrelated", str(high.file), told, expected))
    return LinkedPatches(low, high, sizes, hierarchy)


def refuse_swapped(low: Patches, high: Patches, sizes: PatchSizes) -> None:
    """Raises UserError where few children lie in parents, and many would if x and y of one scale were swapped: nearly
    all of them, or most and twice as many as do."""
    total = len(high.coords)
    found = _number_linked(low.coords, high.coords, sizes)
    if found > FEW * total:
        return
    swapped = _number_linked(low.coords, high.coords[:, ::-1], sizes)
    if swapped >= MANY * total or (2 * swapped > total and swapped >= 2 * found):
        told = (
            f"{found} of {total} children lie in parents of {low.file}, and {swapped} with x and y of one of the two "
            "files swapped"
        )
        mend = "write the coordinates of that file as (x, y), or extract this slide again"
        raise UserError(Fault("features.swapped", str(high.file), told, "coordinates (x, y) at both scales", mend))


def _number_linked(parents: np.ndarray, children: np.ndarray, sizes: PatchSizes) -> int:
    return int((link_children(parents, children, sizes.parent, sizes.child) != NONE).sum())
