"""A slide's three feature files, on regular grids or not."""

import numpy as np

from datasets.consistency import check_slide
from datasets.folders import FeatureFolders
from datasets.hierarchy import build_hierarchy, read_stored, write_hierarchy
from datasets.patch_sizes import patch_sizes
from datasets.patches import read_patches
from utils.h5 import write_h5

WIDTH, SLIDE = 8, "slide"
PARENT, CHILD = 2048, 512


def draw_slide(irregular: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Corners of 12 parents, the sixth of them childless, and of most of their children; all on grids or not."""
    generator = np.random.default_rng(seed)
    low = np.array([(x * PARENT, y * PARENT) for y in range(3) for x in range(4)])
    if irregular:
        low = low + low // PARENT * 700 + generator.integers(0, 700, low.shape)
    rows, columns = np.divmod(np.arange(16), 4)
    high = low[:, None] + CHILD * np.stack([columns, rows], axis=1)
    kept = generator.random((12, 16)) < 0.8
    kept[5], kept[7] = False, True
    high = high[kept]
    return low, high + generator.integers(-200, 200, high.shape) if irregular else high


def write_linked(folders: FeatureFolders, low: np.ndarray, high: np.ndarray, max_patches: int = 16) -> None:
    """A slide's three files, as create_hierarchical_features.py writes them."""
    generator = np.random.default_rng(1)
    for coords, file, size, scale in (
        (low, folders.low_file(SLIDE), PARENT, 5),
        (high, folders.high_file(SLIDE), CHILD, 20),
    ):
        features = generator.normal(size=(len(coords), WIDTH)).astype(np.float32)
        write_h5(file, {"features": features, "coords": coords}, {"magnification": scale, "patch_size_level0": size})
    parents, children = read_patches(folders.low_file(SLIDE), 5), read_patches(folders.high_file(SLIDE), 20)
    sizes = patch_sizes(parents, children, (5, 20), None)
    made = build_hierarchy(parents, children, sizes, max_patches, 1, SLIDE)
    write_hierarchy(folders.hierarchical_file(SLIDE), made, sizes, {"encoder": "plip", "seed": 1})


def children_of(folders: FeatureFolders) -> list[list]:
    """The children of every row, by coordinates, with their features."""
    stored = read_stored(folders.hierarchical_file(SLIDE))
    rows = zip(stored.coords, stored.features, stored.real, strict=True)
    return [
        sorted((*place.tolist(), *row.tolist()) for place, row in zip(coords[real], features[real], strict=True))
        for coords, features, real in rows
    ]


def kinds(folders: FeatureFolders) -> set[str]:
    return {fault.kind for fault in check_slide(folders, SLIDE).faults}


def texts(folders: FeatureFolders) -> str:
    return "\n".join(fault.text for fault in check_slide(folders, SLIDE).faults)
