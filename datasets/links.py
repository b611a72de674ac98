"""Which children belong to which parents, by coordinates.

By the rule ``centre`` a child belongs to the parent whose square holds the child's centre, so that at least half of it
lies there along each axis; where squares overlap, to the parent with the nearest centre, and among equals to the first
in the file. By the rule ``released``, that of the released code, a child belongs to every parent whose square holds the
child's top-left corner: where squares overlap, to several.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from datasets.link_rules import RELEASED
from datasets.patch_sizes import PatchSizes

NONE = -1


class Links(NamedTuple):
    """Pairs of a child and its parent, ordered by child: (L,) int64 rows of the children, (L,) rows of the parents."""

    child: np.ndarray
    parent: np.ndarray

    @classmethod
    def of(cls, parent_of_child: np.ndarray) -> "Links":
        """parent_of_child: (N,) rows of the parents, or -1."""
        child = np.flatnonzero(parent_of_child != NONE)
        return cls(child, parent_of_child[child])

    def without(self, is_left_out: np.ndarray) -> "Links":
        """Without some children. is_left_out: (N,) bool, by child."""
        kept = ~is_left_out[self.child]
        return Links(self.child[kept], self.parent[kept])


def link(rule: str, parents: np.ndarray, children: np.ndarray, sizes: PatchSizes) -> Links:
    """The links by one of the ``LINK_RULES``. parents: (P, 2), children: (N, 2) int64 level-0 top-left corners."""
    if rule == RELEASED:
        return _link_corners(parents, children, sizes.parent)
    return Links.of(link_children(parents, children, sizes.parent, sizes.child))


def link_children(parents: np.ndarray, children: np.ndarray, parent_size: int, child_size: int) -> np.ndarray:
    """By the rule ``centre``, the parent of every child: (N,) int64 rows of ``parents``, or -1.

    parents: (P, 2), children: (N, 2) int64 level-0 top-left corners; sizes: edges in level-0 pixels.
    """
    centres = 2 * children + child_size  # doubled coordinates keep half pixels whole
    if not ((parents - parents[0]) % parent_size).any():
        return _link_on_grid(parents, centres, parent_size)
    return _link_nearest(parents, centres, parent_size)


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


def _link_nearest(parents: np.ndarray, centres: np.ndarray, size: int) -> np.ndarray:
    """Parents anywhere: of those that hold a child's centre the nearest. centres: doubled."""
    distinct = np.sort(np.unique(parents, axis=0, return_index=True)[1])
    best = np.full(len(centres), NONE)
    nearest = np.full(len(centres), np.iinfo(np.int64).max)
    for child, place in _holders(parents[distinct], centres, size):
        parent = distinct[place]
        distance = ((centres[child] - 2 * parents[parent] - size) ** 2).sum(1)
        closer = (distance < nearest[child]) | ((distance == nearest[child]) & (parent < best[child]))
        best[child[closer]], nearest[child[closer]] = parent[closer], distance[closer]
    return best


def _link_corners(parents: np.ndarray, children: np.ndarray, size: int) -> Links:
    """Every parent that holds a child's top-left corner, however many."""
    pairs = [np.stack(pair) for pair in _holders(parents, 2 * children, size)]
    child, parent = np.concatenate([np.empty((2, 0), dtype=np.int64), *pairs], axis=1)
    order = np.lexsort((parent, child))
    return Links(child[order], parent[order])


def _holders(parents: np.ndarray, points: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of a point and a parent whose square holds it, as rows of both, in pieces with each point at most once.

    Parents are sorted into cells as large as themselves, and a point looks at the four cells from which a square can
    reach it. The work grows with the points times the squares that overlap at a point. points: doubled.
    """
    origin = parents.min(0) - size
    cells, wanted = (parents - origin) // size, (points - 2 * origin) // (2 * size)
    num_columns = max(cells[:, 0].max(), wanted[:, 0].max(initial=0)) + 2  # no neighbour wraps into the next row
    order, keys = _sorted_keys(cells[:, 1] * num_columns + cells[:, 0])
    for row, column in ((-1, -1), (-1, 0), (0, -1), (0, 0)):
        wanted_keys = (wanted[:, 1] + row) * num_columns + wanted[:, 0] + column
        place, end = np.searchsorted(keys, wanted_keys), np.searchsorted(keys, wanted_keys, side="right")
        point = np.flatnonzero((place < end) & (wanted[:, 0] + column >= 0))
        while len(point):
            parent = order[place[point]]
            away = points[point] - 2 * parents[parent]
            inside = ((away >= 0) & (away < 2 * size)).all(1)
            yield point[inside], parent[inside]
            place[point] += 1
            point = point[place[point] < end[point]]


def _sorted_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    return order, keys[order]


def repeated_rows(rows: np.ndarray) -> np.ndarray:
    """(N,) bool: the same row stands further up. rows: (N, K), coordinates mostly."""
    order = np.lexsort(rows.T)  # stable: the first of equals stays first
    repeated = np.zeros(len(rows), dtype=bool)
    repeated[order[1:]] = (rows[order[1:]] == rows[order[:-1]]).all(1)
    return repeated


def find_rows(wanted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The first row of ``table`` (N, 2) that equals each row of ``wanted`` (M, 2): (M,) int64, or -1."""
    both = np.concatenate([table, wanted])
    _, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
    place = first[which.ravel()[len(table) :]]
    return np.where(place < len(table), place, NONE)
