"""Random slides for linking: parents and children on grids or not, as corners and as patches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from datasets.patch_sizes import PatchSizes
from datasets.patches import Patches

WIDTH = 3
Draw = Callable[..., int]
Slide = tuple[np.ndarray, np.ndarray, PatchSizes]


def sizes_of(parent: int, child: int) -> PatchSizes:
    return PatchSizes(parent, child, "attributes", "attributes")


def patches(coords: np.ndarray) -> Patches:
    """Patches whose features tell their row: row + 1 everywhere."""
    features = np.repeat(np.arange(1, len(coords) + 1, dtype=np.float32)[:, None], WIDTH, axis=1)
    return Patches(Path("slide.h5"), features, coords, {})


def as_array(points: list[tuple[int, int]]) -> np.ndarray:
    return np.array(points, dtype=np.int64).reshape(-1, 2)


@st.composite
def regular_slides(draw: Draw) -> Slide:
    """Parents on some cells of a grid, children on some cells of the finer one, some of them outside every parent."""
    child, side = draw(st.integers(1, 9)), draw(st.integers(2, 4))
    origin = np.array([draw(st.integers(-50, 50)), draw(st.integers(-50, 50))])
    cells = st.tuples(st.integers(0, 5), st.integers(0, 5))
    low = draw(st.lists(cells, min_size=1, max_size=12))
    finer = st.tuples(st.integers(-side, 6 * side), st.integers(-side, 6 * side))
    high = draw(st.lists(finer, min_size=1, max_size=80))
    sizes = sizes_of(side * child, child)
    return origin + as_array(low) * sizes.parent, origin + as_array(high) * child, sizes


@st.composite
def irregular_slides(draw: Draw) -> Slide:
    """Parents and children anywhere; parents overlap, and stand twice."""
    child, side = draw(st.integers(1, 7)), draw(st.integers(2, 4))
    reach = draw(st.integers(3, 60))
    points = st.tuples(st.integers(-reach, reach), st.integers(-reach, reach))
    low = draw(st.lists(points, min_size=1, max_size=15))
    high = draw(st.lists(points, min_size=1, max_size=60))
    return as_array(low), as_array(high), sizes_of(side * child, child)


@st.composite
def contours(draw: Draw) -> Slide:
    """As CLAM cuts: each piece of tissue has a grid of its own, children aligned or not."""
    child, side = draw(st.integers(2, 6)), draw(st.integers(2, 4))
    parent = side * child
    low, high = [], []
    for _ in range(draw(st.integers(1, 3))):
        x, y = draw(st.integers(0, 80)), draw(st.integers(0, 80))
        columns, rows = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        shift = draw(st.integers(0, child - 1))
        low += [(x + i * parent, y + j * parent) for i in range(columns) for j in range(rows)]
        high += [(x + shift + i * child, y + j * child) for i in range(columns * side) for j in range(rows * side)]
    order = draw(st.permutations(range(len(high))))
    return as_array(low), as_array(high)[list(order)], sizes_of(parent, child)


slides = st.one_of(regular_slides(), irregular_slides(), contours())
