"""The tissue mask on painted slides, and the grid against plain loops over patches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2hsv

from benchmarks.pyramids import tissue, write_pyramid
from datasets import tissue as module
from datasets.ink import find_ink
from datasets.slides import open_slide
from datasets.tissue import CELLS_PER_CHILD, Overview, PatchGrid, TissueRule, draw_grid, lay_grid
from datasets.tissue import tissue_mask as mask_outside_ink
from tests.support.faults import expect_faults

pytestmark = pytest.mark.slow

SPOT = (500, 400, 2500, 1500)


def lay(tmp_path: Path, image: np.ndarray, level0: float = 20, min_tissue: float = 0.1) -> tuple[PatchGrid, Overview]:
    with open_slide(write_pyramid(tmp_path / "slide.tif", image)) as slide:
        return lay_grid(slide, level0, (5, 20), TissueRule(min_tissue))


def tissue_mask(image: np.ndarray) -> np.ndarray:
    return mask_outside_ink(image, find_ink(image))


# ---- the mask --------------------------------------------------------------------------------------------------------


def test_the_mask_is_the_painted_tissue() -> None:
    image = tissue(160, 200, [(20, 30, 120, 90), (60, 120, 140, 180)])
    painted = np.zeros((160, 200), dtype=bool)
    painted[20:120, 30:90] = painted[60:140, 120:180] = True
    found = tissue_mask(image)
    assert (found & painted).sum() / (found | painted).sum() > 0.97


def test_the_threshold_separates_as_otsu_says() -> None:
    """No other threshold on the saturation has a larger variance between the two sides."""
    image = tissue(160, 200, [(20, 30, 120, 90)])
    saturation = np.round(255 * rgb2hsv(image)[..., 1])
    found = tissue_mask(image)
    low, high = saturation[~found], saturation[found]
    chosen = len(low) * len(high) * (low.mean() - high.mean()) ** 2
    for threshold in range(10, 200):
        low, high = saturation[saturation <= threshold], saturation[saturation > threshold]
        if len(low) and len(high):
            assert len(low) * len(high) * (low.mean() - high.mean()) ** 2 <= 1.05 * chosen


@pytest.mark.parametrize("name", ["noise", "white", "grey", "black", "dark noise"])
def test_no_tissue(name: str) -> None:
    generator = np.random.default_rng(0)
    images = {
        "noise": generator.integers(235, 243, (200, 200, 3)),
        "white": np.full((200, 200, 3), 255),
        "grey": np.linspace(0, 255, 200)[:, None, None].repeat(200, 1).repeat(3, 2),
        "black": np.zeros((200, 200, 3)),
        "dark noise": generator.integers(0, 25, (200, 200, 3)),
    }
    assert not tissue_mask(images[name].astype(np.uint8)).any()


def test_a_slide_full_of_tissue() -> None:
    assert tissue_mask(tissue(200, 200, [(0, 0, 200, 200)])).all()


def test_specks_are_no_tissue() -> None:
    image = tissue(200, 200, [(50, 50, 150, 150)])
    image[10:12, 10:12] = image[180, 20:60] = (150, 60, 160)
    assert not tissue_mask(image)[:40].any() and not tissue_mask(image)[170:].any()


# ---- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level0", "child", "parent"),
    [(20, 256, 1024), (40, 512, 2048), (30, 384, 1536), (33, 422, 1688), (32.7, 419, 1676)],
)
def test_sizes(tmp_path: Path, level0: float, child: int, parent: int) -> None:
    grid, _ = lay(tmp_path, tissue(3000, 2500, [SPOT]), level0)
    assert (grid.child_size, grid.parent_size) == (child, parent)
    assert len(grid.parents) > 0 and (grid.parents % parent == 0).all()
    assert grid.child_coords().shape == (len(grid.parents), 4, 4, 2)
    for index, (x, y) in enumerate(grid.parents.tolist()):
        for row in range(4):
            for column in range(4):
                assert grid.child_coords()[index, row, column].tolist() == [x + column * child, y + row * child]


@settings(max_examples=10, deadline=None)
@given(
    spot=st.tuples(st.integers(0, 2000), st.integers(0, 1500), st.integers(300, 1500), st.integers(300, 1500)),
    min_tissue=st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]),
    level0=st.sampled_from([20, 24, 40]),
)
def test_patches_have_their_share_of_tissue(
    tmp_path_factory: pytest.TempPathFactory, spot: tuple[int, int, int, int], min_tissue: float, level0: float
) -> None:
    top, left, height, width = spot
    image = tissue(2600, 2300, [(top, left, min(top + height, 2600), min(left + width, 2300))])
    grid, overview = lay(tmp_path_factory.mktemp("slide"), image, level0, min_tissue)
    cell = grid.child_size / CELLS_PER_CHILD

    def share(x: int, y: int, size: int) -> float:
        left, top, edge = round(x / cell), round(y / cell), round(size / cell)
        return float(overview.tissue[top : top + edge, left : left + edge].mean())

    expected, expected_children = [], []
    for y in range(0, 2600, grid.parent_size):
        for x in range(0, 2300, grid.parent_size):
            if share(x, y, grid.parent_size) >= min_tissue:
                expected.append([x, y])
                starts = range(0, grid.parent_size, grid.child_size)
                expected_children += [[x + right, y + down] for down in starts for right in starts
                                      if share(x + right, y + down, grid.child_size) >= min_tissue]  # fmt: skip
    assert grid.parents.tolist() == expected
    assert grid.child_coords()[grid.is_child].tolist() == expected_children


def test_the_mask_lies_where_the_tissue_is(tmp_path: Path) -> None:
    """Painted: rows 500 to 2500 and columns 400 to 1500 of level 0."""
    grid, overview = lay(tmp_path, tissue(3000, 2500, [SPOT]))
    rows, columns = np.nonzero(overview.tissue)
    cell = grid.child_size // CELLS_PER_CHILD
    found = [rows.min() * cell, columns.min() * cell, (rows.max() + 1) * cell, (columns.max() + 1) * cell]
    assert np.abs(np.array(found) - SPOT).max() <= 2 * cell


def test_the_grid_begins_at_the_scanned_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bounds", lambda slide: (100, 200, 1500, 2000))
    grid, overview = lay(tmp_path, tissue(3000, 2500, [SPOT]), min_tissue=0)
    assert grid.parents.tolist() == [[100 + 1024 * x, 200 + 1024 * y] for y in range(2) for x in range(2)]
    assert overview.tissue[: (500 - 200) // 32 - 1].any() == np.False_
    assert overview.tissue[(500 - 200) // 32 + 2, (400 - 100) // 32 + 2]


def test_a_slide_of_less_than_the_high_magnification_is_refused(tmp_path: Path) -> None:
    with expect_faults("slide.magnification"):
        lay(tmp_path, tissue(1000, 1000, [(0, 0, 900, 900)]), level0=10)


# ---- the drawing -----------------------------------------------------------------------------------------------------


def test_the_drawing_shows_mask_and_patches(tmp_path: Path) -> None:
    grid, overview = lay(tmp_path, tissue(3000, 2500, [SPOT]))
    plain, drawn = np.asarray(overview.image).astype(int), np.asarray(draw_grid(grid, overview)).astype(int)
    assert drawn.shape == plain.shape and max(drawn.shape) >= 1000
    scale = drawn.shape[1] / (overview.tissue.shape[1] * grid.child_size / CELLS_PER_CHILD)
    for x, y in (grid.parents * scale).astype(int):
        edge = int(grid.parent_size * scale)
        assert (drawn[y, x : x + edge] == 0).all() and (drawn[y : y + edge, x] == 0).all()
    green = (drawn == module.GREEN).all(-1)
    rows, columns = np.nonzero(green)
    assert abs(rows.min() / scale - SPOT[0]) < 100 and abs(columns.max() / scale - SPOT[3]) < 100
    far = np.ones(drawn.shape[:2], dtype=bool)
    far[:, : int(2048 * scale) + 1] = False
    np.testing.assert_array_equal(drawn[far], plain[far])


def test_the_drawing_begins_at_the_scanned_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bounds", lambda slide: (1100, 1200, 1024, 1024))
    grid, overview = lay(tmp_path, tissue(3000, 2500, [SPOT]), min_tissue=0)
    drawn = np.asarray(draw_grid(grid, overview))
    assert drawn.shape[:2] == (1024, 1024)
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (edge == 0).all()
