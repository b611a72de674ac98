"""How large the patches of a slide are, in level-0 pixels."""

from functools import partial
from typing import NamedTuple

import numpy as np

from datasets.feature_layouts import LAYOUTS
from datasets.numbers import attribute_number
from datasets.patches import PATCH_SIZE, Patches
from utils.errors import Fault, UserError

ALMOST = 1e-6
"""By which the ratio of two sizes that are no whole pixels may differ from a whole number."""


class PatchSizes(NamedTuple):
    """Edges of the square patches in level-0 pixels, and what they were taken from."""

    parent: int
    child: int
    parent_from: str
    child_from: str


def size_from_attributes(patches: Patches) -> int | None:
    """Level-0 patch size as the file says it, rounded. Raises UserError where an attribute is not a number."""
    size = _exact_size(patches)
    return round(size) if size else None


def _exact_size(patches: Patches) -> float | None:
    """By the file itself, or in the way of one of the tools."""
    number = partial(attribute_number, patches.file, patches.attributes)
    known = number("patch_size_level0")
    sizes = [size for layout in LAYOUTS if (size := layout.patch_size(number))]
    return known or next(iter(sizes), None)


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
    Sizes that are no whole pixels, as those converted from microns are, nest where they do so before they are rounded.
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
    if (parent % child or parent == child) and (times := _whole_ratio(low, high)) > 1:
        parent = times * child
    if parent % child or parent == child:
        raise UserError(
            Fault(
                "features.sizes",
                str(low.file),
                f"patches of {parent} level-0 pixels (by {origin[0]}) do not nest with those of {child} (by "
                f"{origin[1]}) in {high.file}",
                expected=f"a whole multiple, {magnifications[1] / magnifications[0]:g} times",
                mend="extract both scales with the same patch size in pixels, or name the right folders",
            )
        )
    return PatchSizes(parent, child, *origin)


def _whole_ratio(low: Patches, high: Patches) -> int:
    """How many children wide a parent is by sizes that are not rounded; 0 where these do not nest."""
    parent, child = _exact_size(low), _exact_size(high)
    if not (parent and child):
        return 0
    times = round(parent / child)
    return times if abs(parent / child - times) <= ALMOST * times else 0


def _size_from_table(patches: Patches, step: tuple[int, bool] | None, magnification: int, level0: float | None) -> int:
    if level0 is None:
        raise UserError(
            Fault(
                "features.unknown_size",
                str(patches.file),
                f"no attribute tells the level-0 patch size, and the coordinates of {len(patches.coords)} patches do "
                "not",
                mend="write its level0_mag into the table of slides (--dataset_csv), or the attribute "
                "patch_size_level0 into the file",
            )
        )
    size = round(PATCH_SIZE * level0 / magnification)
    if step and step[0] % size:
        raise UserError(
            Fault(
                "features.stride",
                str(patches.file),
                f"neighbours lie {step[0]} level-0 pixels apart, but {PATCH_SIZE} pixels at {magnification}x are "
                f"{size} on a slide of level0_mag {level0:g}",
                mend="was another patch size used? Then write it into the file, as the attribute patch_size_level0",
            )
        )
    return size
