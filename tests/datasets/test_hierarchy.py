"""Linking by coordinates against plain double loops, on random regular and irregular grids."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasets.hierarchy import Hierarchy, build_hierarchy, read_stored, write_hierarchy
from datasets.links import NONE, find_rows, link_children, repeated_rows
from datasets.patch_sizes import PatchSizes
from tests.support.faults import expect_faults
from tests.support.linking_slides import Slide, as_array, patches, regular_slides, sizes_of, slides
from tests.support.linking_twin import children_by_loops, parent_by_loops


def build(low: np.ndarray, high: np.ndarray, sizes: PatchSizes, max_patches: int = 16, seed: int = 1) -> Hierarchy:
    return build_hierarchy(patches(low), patches(high), sizes, max_patches, seed, "slide")


few = settings(max_examples=150, deadline=None)


@few
@given(slides)
def test_parents_are_those_of_the_double_loop(slide: Slide) -> None:
    low, high, sizes = slide
    expected = [parent_by_loops(low, child, sizes) for child in high]
    assert link_children(low, high, sizes.parent, sizes.child).tolist() == expected


@few
@given(slides)
def test_the_hierarchy_is_that_of_the_double_loop(slide: Slide) -> None:
    low, high, sizes = slide
    expected = children_by_loops(low, high, sizes)
    made = build(low, high, sizes, max_patches=max(16, *map(len, expected)))
    assert made.mask.sum(1).tolist() == [len(members) for members in expected]
    for row, members in enumerate(expected):  # the children in their order, wherever the empty slots are
        kept = made.mask[row]
        np.testing.assert_array_equal(made.features[row, kept][:, 0], np.array(members) + 1)
        np.testing.assert_array_equal(made.coords[row, kept], high[members].reshape(-1, 2))
        assert not made.features[row, ~kept].any() and not made.coords[row, ~kept].any()
        if not made.on_grid:
            assert not kept[len(members) :].any()
    linked = sum(map(len, expected))
    assert made.childless == sum(not members for members in expected)
    assert made.repeated == len(high) - len({tuple(child) for child in high})
    assert (made.dropped, made.crowded) == (0, 0)
    assert made.orphans == len(high) - made.repeated - linked
    assert (made.features.dtype, made.coords.dtype, made.mask.dtype) == (np.float32, np.int64, bool)


@few
@given(regular_slides())
def test_slots_of_a_regular_grid_are_places(slide: Slide) -> None:
    low, high, sizes = slide
    side = sizes.parent // sizes.child
    made = build(low, high, sizes)
    assert made.on_grid
    for row, slot in zip(*np.nonzero(made.mask), strict=True):
        down, right = divmod(int(slot), side)
        assert made.coords[row, slot].tolist() == (low[row] + sizes.child * np.array([right, down])).tolist()


@few
@given(slides, st.integers(1, 6), st.integers(0, 5))
def test_of_too_many_children_some_are_drawn(slide: Slide, most: int, seed: int) -> None:
    low, high, sizes = slide
    expected = children_by_loops(low, high, sizes)
    made = build(low, high, sizes, most, seed)
    for row, members in enumerate(expected):
        kept = (made.features[row, made.mask[row], 0] - 1).astype(int).tolist()
        assert kept == [index for index in members if index in kept]  # some of the members, in their order
        assert len(kept) == min(len(members), most)
    assert made.crowded == sum(len(members) > most for members in expected)
    assert made.dropped == sum(max(0, len(members) - most) for members in expected)
    again = build(low, high, sizes, most, seed)
    np.testing.assert_array_equal(made.features, again.features)


@few
@given(regular_slides(), st.integers(0, 100))
def test_the_order_of_rows_does_not_matter(slide: Slide, seed: int) -> None:
    low, high, sizes = slide
    assume(len(np.unique(low, axis=0)) == len(low))
    generator = np.random.default_rng(seed)
    parents, children = generator.permutation(len(low)), generator.permutation(len(high))
    plain, mixed = build(low, high, sizes), build(low[parents], high[children], sizes)
    np.testing.assert_array_equal(plain.coords[parents], mixed.coords)
    np.testing.assert_array_equal(plain.mask[parents], mixed.mask)


def test_the_draw_depends_on_seed_and_slide_and_is_even() -> None:
    low = np.zeros((1, 2), dtype=np.int64)
    high = np.array([(x, y) for y in range(8) for x in range(8)])
    sizes = sizes_of(8, 1)

    def drawn(seed: int, slide_id: str) -> list[int]:
        made = build_hierarchy(patches(low), patches(high), sizes, 16, seed, slide_id)
        return made.features[0, :, 0].astype(int).tolist()

    assert drawn(1, "a") == drawn(1, "a")
    assert len({tuple(drawn(seed, slide_id)) for seed in (1, 2) for slide_id in ("a", "b")}) == 4
    counts = np.bincount(np.concatenate([drawn(seed, "a") for seed in range(400)]), minlength=65)[1:]
    assert counts.min() > 60 and counts.max() < 140  # 100 expected of each


def test_a_child_between_two_parents_goes_to_one_alone() -> None:
    low = np.array([[0, 0], [8, 0]])
    for x, expected in ((5, 0), (6, 1), (7, 1), (13, 1), (14, NONE), (-2, 0), (-3, NONE)):
        assert link_children(low, np.array([[x, 0]]), 8, 4).tolist() == [expected]
    overlapping = np.array([[6, 0], [0, 0], [0, 0]])  # squares of 8: the nearest centre, the first of equals
    centres = {3: 1, 4: 1, 5: 0, 6: 0}
    for x, expected in centres.items():
        assert link_children(overlapping, np.array([[x, 2]]), 8, 4).tolist() == [expected], x


def test_large_slides_and_far_coordinates() -> None:
    generator = np.random.default_rng(0)
    cells = generator.permutation(200 * 200)[:2000]
    low = np.stack([cells % 200, cells // 200], axis=1) * 2048 + 10**9
    rows, columns = np.divmod(np.arange(16), 4)
    high = (low[:, None] + 512 * np.stack([columns, rows], axis=1)).reshape(-1, 2)
    owner = np.repeat(np.arange(2000), 16)
    assert (link_children(low, high, 2048, 512) == owner).all()
    shifted = low + generator.integers(0, 2, low.shape)  # no longer regular, hardly moved
    linked = link_children(shifted, high, 2048, 512)
    assert (linked == owner).all()
    assert build(low, high, sizes_of(2048, 512)).mask.all()


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=30))
def test_repeated_rows(points: list[tuple[int, int]]) -> None:
    expected = [point in points[:index] for index, point in enumerate(points)]
    assert repeated_rows(as_array(points)).tolist() == expected


@given(*[st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=20)] * 2)
def test_find_rows(wanted: list[tuple[int, int]], table: list[tuple[int, int]]) -> None:
    expected = [table.index(point) if point in table else NONE for point in wanted]
    assert find_rows(as_array(wanted), as_array(table)).tolist() == expected


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_written_file_is_read_as_it_was(tmp_path: Path) -> None:
    low = np.array([[0, 0], [8, 0], [40, 40]])
    high = np.array([[4, 0], [0, 4], [8, 0], [8, 0], [20, 20]])
    made = build(low, high, sizes_of(8, 4), 4)
    write_hierarchy(tmp_path / "a.h5", made, sizes_of(8, 4), {"encoder": "plip"})
    stored = read_stored(tmp_path / "a.h5")
    for name in ("features", "coords", "mask"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(made, name))
    np.testing.assert_array_equal(stored.real, made.mask)
    assert stored.attributes.items() >= {
        "encoder": "plip", "patch_size_level0": 4, "parent_size_level0": 8, "slots": "grid",
        "child_order": "row-major", "children_without_parent": 1, "children_repeated": 1, "children_dropped": 0,
        "patch_sizes_from": "attributes, attributes",
    }.items()  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("features", np.ones((2, 3)), "features.shape"),
        ("features", np.ones((2, 4, 3), dtype=int), "features.shape"),
        ("coords", np.zeros((2, 3, 2)), "features.coords"),
        ("mask", np.ones((2, 4)), "features.mask"),
        ("mask", np.ones((4, 2), dtype=bool), "features.mask"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, name: str, values: np.ndarray, code: str) -> None:
    arrays = {"features": np.ones((2, 4, 3)), "coords": np.zeros((2, 4, 2)), "mask": np.ones((2, 4), dtype=bool)}
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        for key, array in {**arrays, name: values}.items():
            opened[key] = array
    with expect_faults(code):
        read_stored(tmp_path / "a.h5")
