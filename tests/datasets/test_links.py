"""The released code's rule against plain double loops: a child in every parent whose square holds its corner."""

import numpy as np
import pytest
from hypothesis import given, settings

from datasets.hierarchy import Hierarchy, build_hierarchy
from datasets.links import Links, link
from tests.support.linking_slides import Slide, patches, sizes_of, slides

few = settings(max_examples=100, deadline=None)
OVERLAPPING = np.array([[0, 0], [4, 0], [4, 0], [20, 0]])  # squares of 8; the second stands twice
CHILDREN = np.array([[0, 0], [4, 4], [7, 7], [8, 0], [12, 0], [-1, 0], [27, 7], [4, 4]])
HOLDERS = [[0], [0, 1, 2], [0, 1, 2], [1, 2], [], [], [3], [0, 1, 2]]


def pairs_by_loops(low: np.ndarray, high: np.ndarray, size: int) -> list[tuple[int, int]]:
    return [
        (child, parent)
        for child, (x, y) in enumerate(high.tolist())
        for parent, (left, top) in enumerate(low.tolist())
        if left <= x < left + size and top <= y < top + size
    ]


def build(max_patches: int = 16) -> Hierarchy:
    return build_hierarchy(patches(OVERLAPPING), patches(CHILDREN), sizes_of(8, 4), max_patches, 1, "s", "released")


@few
@given(slides)
def test_every_parent_that_holds_the_corner(slide: Slide) -> None:
    low, high, sizes = slide
    links = link("released", low, high, sizes)
    assert list(zip(links.child.tolist(), links.parent.tolist(), strict=True)) == pairs_by_loops(
        low, high, sizes.parent
    )


def test_children_in_the_order_of_their_file_and_in_several_parents() -> None:
    made = build()
    rows = [(made.features[row, made.mask[row], 0] - 1).astype(int).tolist() for row in range(4)]
    wanted = [[child for child, held in enumerate(HOLDERS[:7]) if parent in held] for parent in range(4)]
    assert rows == wanted == [[0, 1, 2], [1, 2, 3], [1, 2, 3], [6]]
    assert (made.rule, made.on_grid) == ("released", False)
    assert (made.orphans, made.repeated, made.dropped, made.childless) == (2, 1, 0, 0)


def test_a_crowded_parent_keeps_the_order_too() -> None:
    made = build(max_patches=2)
    for row, members in enumerate([[0, 1, 2], [1, 2, 3], [1, 2, 3]]):
        kept = (made.features[row, made.mask[row], 0] - 1).astype(int).tolist()
        assert len(kept) == 2 and kept == [child for child in members if child in kept]
    assert (made.dropped, made.crowded) == (3, 3)


@pytest.mark.parametrize("rule", ["centre", "released"])
def test_no_child_at_all(rule: str) -> None:
    child, parent = link(rule, OVERLAPPING, np.empty((0, 2), dtype=np.int64), sizes_of(8, 4))
    assert (len(child), len(parent)) == (0, 0)


def test_links_without_some_children() -> None:
    left = Links.of(np.array([2, -1, 0, 0])).without(np.array([False, False, True, False]))
    assert (left.child.tolist(), left.parent.tolist()) == ([0, 3], [2, 0])
