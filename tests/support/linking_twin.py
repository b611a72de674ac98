"""Which children a parent has, by plain double loops."""

import numpy as np

from datasets.links import NONE
from datasets.patch_sizes import PatchSizes


def parent_by_loops(parents: np.ndarray, child: np.ndarray, sizes: PatchSizes) -> int:
    """The nearest of all parents whose square holds the child's centre; the first of equals."""
    best, nearest = NONE, float("inf")
    centre = [value + sizes.child / 2 for value in child.tolist()]
    for index, (left, top) in enumerate(parents.tolist()):
        if left <= centre[0] < left + sizes.parent and top <= centre[1] < top + sizes.parent:
            middle = left + sizes.parent / 2, top + sizes.parent / 2
            distance = (centre[0] - middle[0]) ** 2 + (centre[1] - middle[1]) ** 2
            if distance < nearest:
                best, nearest = index, distance
    return best


def children_by_loops(low: np.ndarray, high: np.ndarray, sizes: PatchSizes) -> list[list[int]]:
    """The children of every parent, by row and column; of children that stand twice the first."""
    found: list[list[int]] = [[] for _ in low]
    seen = set()
    for index, child in enumerate(high):
        owner = parent_by_loops(low, child, sizes)
        if tuple(child) not in seen and owner != NONE:
            found[owner].append(index)
        seen.add(tuple(child))
    return [sorted(members, key=lambda index: (high[index, 1], high[index, 0])) for members in found]
