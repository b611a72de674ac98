"""Feature files as this project, TRIDENT and CLAM write them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

WIDTH = 4


def write_file(file: Path, features: np.ndarray | None, coords: np.ndarray, attributes: dict[str, Any]) -> None:
    """Features and coordinates; the attributes are those of ``coords``, as TRIDENT and CLAM have them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        if features is not None:
            opened["features"] = features
        opened["coords"] = coords
        opened["coords"].attrs.update(attributes)


def write_trident(
    job: Path, slide_id: str, features: np.ndarray, coords: np.ndarray, magnification: int, level0: int, encoder: str
) -> Path:
    """Features as TRIDENT saves them, and the file of coordinates that it makes first. Returns the former's folder."""
    folder = job / f"{magnification}x_256px_0px_overlap"
    attributes = {
        "patch_size": 256,
        "patch_size_level0": 256 * level0 // magnification,
        "level0_magnification": level0,
        "target_magnification": magnification,
        "overlap": 0,
        "name": slide_id,
        "savetodir": str(folder),
        "level0_width": 100_000,
        "level0_height": 90_000,
    }
    write_file(folder / "patches" / f"{slide_id}_patches.h5", None, coords, attributes)
    write_file(folder / f"features_{encoder}" / f"{slide_id}.h5", features, coords, attributes)
    return folder / f"features_{encoder}"


def write_clam(
    folder: Path, slide_id: str, features: np.ndarray, coords: np.ndarray, patch_size: int, level: int, beside: str = ""
) -> Path:
    """Features as CLAM saves them (int32 coordinates without attributes) below ``folder``/``beside``, and the file of
    coordinates in ``folder``/patches. Returns the folder of the former."""
    attributes = {
        "patch_size": patch_size,
        "patch_level": level,
        "downsample": np.array([4.0**level * 1.0001] * 2 if level else [1.0, 1.0]),
        "downsampled_level_dim": np.array([1000, 900]),
        "level_dim": np.array([1000, 900]),
        "name": slide_id,
        "save_path": str(folder / "patches"),
    }
    write_file(folder / "patches" / f"{slide_id}.h5", None, coords.astype(np.int64), attributes)
    files = folder / beside / "h5_files"
    write_file(files / f"{slide_id}.h5", features, coords.astype(np.int32), {})
    (folder / beside / "pt_files").mkdir(exist_ok=True)
    return files


def square(columns: int, rows: int, size: int) -> np.ndarray:
    """Top-left corners of a full grid."""
    return np.array([(column * size, row * size) for row in range(rows) for column in range(columns)])


def some_features(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, WIDTH)).astype(np.float32)
