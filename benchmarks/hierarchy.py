"""Linking a slide of 1,880 parents and 28,249 children, as a multiple of merely reading and writing its bytes.

On a regular grid (integer arithmetic) and on an irregular one (windows); features are 512 wide. Both ways read the same
two files and write as many bytes into one; they are interleaved and the medians are compared.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import h5py
import numpy as np

import create_hierarchical_features
from utils.errors import run_script
from utils.h5 import write_h5

PARENTS, CHILDREN, WIDTH = 1880, 28249, 512
PARENT, CHILD = 2048, 512


def write_inputs(root: Path, regular: bool) -> tuple[Path, Path]:
    generator = np.random.default_rng(0)
    rows, columns = np.divmod(generator.permutation(50 * 50)[:PARENTS], 50)
    parents = np.stack([columns, rows], -1) * PARENT
    slots = generator.permutation(16 * PARENTS)[:CHILDREN]
    children = parents[slots // 16] + np.stack([slots % 4, slots % 16 // 4], -1) * CHILD
    if not regular:
        parents = parents + generator.integers(-200, 200, parents.shape)
    files = []
    for magnification, coords, size in ((5, parents, PARENT), (20, children, CHILD)):
        file = root / "task_encoder" / f"encoder_{magnification}x" / "slide.h5"
        features = generator.standard_normal((len(coords), WIDTH), dtype=np.float32)
        write_h5(file, {"features": features, "coords": coords}, {"patch_size_level0": size})
        files.append(file)
    return files[0], files[1]


def read_and_write(low: Path, high: Path, out: Path) -> None:
    for file in (low, high):
        with h5py.File(file) as opened:
            features = opened["features"][()]
    rows = np.zeros((16 * PARENTS, WIDTH), dtype=np.float32)
    rows[: len(features)] = features
    coords, mask = np.zeros((PARENTS, 16, 2), dtype=np.int64), np.zeros((PARENTS, 16), dtype=bool)
    write_h5(out, {"features": rows.reshape(PARENTS, 16, WIDTH), "coords": coords, "mask": mask}, {})


def link(root: Path) -> None:
    with redirect_stdout(StringIO()):
        create_hierarchical_features.main(
            [
                *("--data_root_dir", str(root), "--task", "task", "--feature_extractor", "encoder"),
                *("--workers", "1", "--overwrite"),
            ]
        )


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args(argv).repeats
    for name in ("regular", "irregular"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            low, high = write_inputs(root, name == "regular")
            link(root)
            pairs = [
                (seconds(lambda: link(root)), seconds(lambda: read_and_write(low, high, root / "copy.h5")))  # noqa: B023
                for _ in range(repeats)
            ]
        linked, copied = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"{name} grid: {linked:.2f} s, reading and writing alone {copied:.2f} s, {linked / copied:.2f} times")


if __name__ == "__main__":
    sys.exit(run_script(main))
