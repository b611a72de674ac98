"""Reading features: from disk, from memory, ahead of the model; only some parents' children; memory by cache limit.

Generated slides of 850 parents and 13,600 children, 512 wide; the files are in the system's page cache, as from the
second epoch on. Ways are interleaved, median_seconds are compared.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks.measure import peak_of, work_as_main
from datasets.bag_cache import BagCache, BagLoader, num_bytes
from datasets.folders import FeatureFolders
from datasets.task import Slide
from utils.errors import run_script
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


def median_seconds(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
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


def stay_busy(milliseconds: float) -> None:
    """As long as a training step, on one core."""
    matrix = torch.ones(256, 256)
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        matrix @ matrix


def epoch(loader: BagLoader, milliseconds: float = 0) -> None:
    for _ in loader:
        stay_busy(milliseconds)


def peak_of_two_epochs(folders: FeatureFolders, slides: list[Slide], capacity: int) -> float:
    """GB that two epochs take, with a thread that reads ahead."""
    loader = BagLoader(BagCache(folders, WIDTH, capacity), slides, threads=1)
    return peak_of(lambda: [epoch(loader) for _ in range(2)], torch.device("cpu"))


def rows(file: Path, kept: np.ndarray) -> None:
    with h5py.File(file) as opened:
        np.asarray(opened["features"][kept])


def whole(file: Path) -> None:
    with h5py.File(file) as opened:
        np.asarray(opened["features"][()])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--memory-slides", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    work_as_main(num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        folders = FeatureFolders(Path(folder), "task", "encoder")
        slides = write_slides(folders, options.slides)
        none, plenty = BagCache(folders, WIDTH, 0), BagCache(folders, WIDTH, PLENTY)
        half = BagCache(folders, WIDTH, PLENTY, half=True)
        size = num_bytes(plenty.get(slides[0])) / 1e6
        step = 300.0
        found = median_seconds(
            {
                "bytes alone": lambda: bytes_alone(folders, slides),
                "from disk": lambda: epoch(BagLoader(none, slides)),
                "from memory": lambda: epoch(BagLoader(plenty, slides)),
                "from memory, float16": lambda: epoch(BagLoader(half, slides)),
                "steps alone": lambda: [stay_busy(step) for _ in slides],
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
            times = median_seconds(ways, options.repeats)
            print(f"children of {share:.0%} of the parents alone: {times['some'] / times['all']:.2f} times reading all")
        many = write_slides(folders, options.memory_slides)
        print(f"peak memory of two epochs over {len(many)} slides ({len(many) * size / 1000:.2f} GB)")
        for limit in (0.0, 0.25, 0.5, 1.0, 2.0):
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                peak = fresh.submit(peak_of_two_epochs, folders, many, int(limit * 1e9)).result()
            print(f"  cache of {limit:4.2f} GB  {peak:.2f} GB")


if __name__ == "__main__":
    sys.exit(run_script(main))
