"""Reading features: from disk, from memory, ahead of the model; and only some parents' children.

Generated slides of 850 parents and 13,600 children, 512 wide; the files are in the system's page cache, as from the
second epoch on. Ways are interleaved, medians are compared.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from datasets.bag_cache import BagCache, BagLoader, num_bytes
from datasets.layout import FeatureFolders
from datasets.task import Slide
from utils.h5 import write_h5

PARENTS, CHILDREN, WIDTH = 850, 16, 512
PLENTY = 10**12


def write_slides(folders: FeatureFolders, number: int) -> list[Slide]:
    generator = np.random.default_rng(0)
    slides = [Slide(f"s{index}", f"s{index}", 0) for index in range(number)]
    for slide in slides:
        low = generator.standard_normal((PARENTS, WIDTH), dtype=np.float32)
        high = generator.standard_normal((PARENTS, CHILDREN, WIDTH), dtype=np.float32)
        coords = np.zeros((PARENTS, CHILDREN, 2), dtype=np.int64)
        write_h5(folders.low_file(slide.slide_id), {"features": low, "coords": coords[:, 0]}, {})
        mask = np.ones((PARENTS, CHILDREN), dtype=bool)
        write_h5(folders.hierarchical_file(slide.slide_id), {"features": high, "coords": coords, "mask": mask}, {})
    return slides


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def bytes_alone(folders: FeatureFolders, slides: list[Slide]) -> None:
    for slide in slides:
        for file in (folders.low_file(slide.slide_id), folders.hierarchical_file(slide.slide_id)):
            file.read_bytes()


def work(milliseconds: float) -> None:
    """As long as a training step, on one core."""
    matrix = torch.ones(256, 256)
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        matrix @ matrix


def epoch(loader: BagLoader, milliseconds: float = 0) -> None:
    for _ in loader:
        work(milliseconds)


def rows(file: Path, kept: np.ndarray) -> None:
    with h5py.File(file) as opened:
        np.asarray(opened["features"][kept])


def whole(file: Path) -> None:
    with h5py.File(file) as opened:
        np.asarray(opened["features"][()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folders = FeatureFolders(Path(folder), "task", "encoder")
        slides = write_slides(folders, options.slides)
        none, plenty = BagCache(folders, WIDTH, 0), BagCache(folders, WIDTH, PLENTY)
        half = BagCache(folders, WIDTH, PLENTY, half=True)
        size = num_bytes(plenty.get(slides[0])) / 1e6
        step = 300.0
        found = medians(
            {
                "bytes alone": lambda: bytes_alone(folders, slides),
                "from disk": lambda: epoch(BagLoader(none, slides)),
                "from memory": lambda: epoch(BagLoader(plenty, slides)),
                "from memory, float16": lambda: epoch(BagLoader(half, slides)),
                "steps alone": lambda: [work(step) for _ in slides],
                "from disk, steps": lambda: epoch(BagLoader(none, slides), step),
                "from disk ahead, steps": lambda: epoch(BagLoader(none, slides, threads=1), step),
            },
            options.repeats,
        )
        print(f"an epoch over {len(slides)} slides of {size:.0f} MB, seconds; steps take {step / 1000} s")
        for name, seconds in found.items():
            print(f"  {name:<24} {seconds:7.3f}")
        file = folders.hierarchical_file("s0")
        generator = np.random.default_rng(0)
        for share in (0.1, 0.35, 0.7):
            kept = np.sort(generator.permutation(PARENTS)[: int(share * PARENTS)])
            ways = {"some": lambda: rows(file, kept), "all": lambda: whole(file)}  # noqa: B023
            times = medians(ways, options.repeats)
            print(f"children of {share:.0%} of the parents alone: {times['some'] / times['all']:.2f} times reading all")


if __name__ == "__main__":
    main()
