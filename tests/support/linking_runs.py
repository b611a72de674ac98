"""Slides for create_hierarchical_features.py, its options, and what it counts."""

import re
from typing import Any

import numpy as np

from datasets.folders import FeatureFolders
from tests.support.feature_files import write_file, write_trident

WIDTH = 6


def options(folders: FeatureFolders, *more: str) -> list[str]:
    return [
        *("--data_root_dir", str(folders.data_root), "--task", folders.task),
        *("--feature_extractor", folders.feature_extractor, "--workers", "1", *more),
    ]


def random_features(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, WIDTH)).astype(np.float32)


def regular(level0: int, seed: int, missing: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Corners of both scales on a regular grid, shuffled; some children and parents are missing."""
    generator = np.random.default_rng(seed)
    parent, child = 256 * level0 // 5, 256 * level0 // 20
    cells = generator.permutation(49)[:30]
    low = np.stack([cells % 7, cells // 7], axis=1) * parent + 3 * child
    fine = np.array([(x, y) for y in range(28) for x in range(28)]) * child + 3 * child
    return low, generator.permutation(fine[generator.random(len(fine)) > missing])


def place_trident(folders: FeatureFolders, slide_id: str, scale: int, level0: int, *arrays: np.ndarray) -> list[str]:
    write_trident(folders.root, slide_id, *arrays, scale, level0, folders.feature_extractor)
    return []


def numbers_told(out: str) -> dict[str, int]:
    rows = re.findall(r"^(\D+?) +([\d,]+)$", out, flags=re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in rows}


def put(folders: FeatureFolders, slide_id: str, low: np.ndarray, high: np.ndarray, **told: Any) -> None:
    """A slide in the project's layout."""
    for file, coords in ((folders.low_file(slide_id), low), (folders.high_file(slide_id), high)):
        write_file(file, random_features(len(coords), len(slide_id)), coords, told)
