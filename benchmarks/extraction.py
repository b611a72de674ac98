"""CPU seconds per 1,000 parent regions of a 40x slide: read by tiles, through OpenSlide, and patch by patch.

The slides are generated, nothing in them is real tissue. Of each layout the ways take turns, and medians over several
rounds are given, so that ratios are of one run:

(a) by tiles, as ``extract_features.py`` reads: the region, its parent and its children;
(b) the same through OpenSlide;
(c) each patch by itself at both scales through OpenSlide, as other tools read;
(d) every tile that the regions touch decoded once, and nothing else: the floor;
(h) as (a), with --half-decode.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.measure import header, table
from benchmarks.pyramids import tissue, write_pyramid
from datasets.extraction_plan import FeatureRecipe, PlanJob, SlidePlan, plan_slide
from datasets.folders import FeatureFolders
from datasets.patches import PATCH_SIZE
from datasets.slide_features import RegionReader, extract_features
from datasets.slides import level_for, open_slide, read_area
from datasets.tile_reader import Box, TileReader
from utils.errors import run_script

PARENT = 2048  # level-0 pixels along a parent's edge
LAYOUTS = [
    (stored, tile, levels)
    for levels in ((1, 4, 16), (1, 2, 4))
    for stored, tile in (("jpeg", 256), ("jpeg", 240), ("jpeg rgb", 256), ("jpeg rgb", 240), ("jpeg 2000", 256))
]
WAYS = ("a", "b", "c", "d", "h")
BATCH = 256

Round = Callable[[], object]


def make_slide(folder: Path, picture: np.ndarray, stored: str, tile: int, levels: Sequence[int]) -> Path:
    return write_pyramid(folder / f"{stored} {tile} {levels}.svs", picture, 40, 0.25, levels, stored, tile)


def make_plan(file: Path, reader: str, half_decode: bool = False) -> SlidePlan:
    recipe = FeatureRecipe(5, 20, 0.1, "none", {}, half_decode=half_decode)
    folders = FeatureFolders(file.parent, "task", "encoder")
    plan = plan_slide(PlanJob(file.stem, file, None, recipe, folders, None, reader=reader)).plan
    assert plan is not None
    return plan


def regions(plan: SlidePlan) -> Round:
    def read() -> None:
        reader = RegionReader([plan])
        for item in range(len(reader)):
            assert isinstance(reader[item][2], np.ndarray)

    return read


def patch_by_patch(plan: SlidePlan) -> Round:
    grid = plan.grid
    items = [(*corner, grid.parent_size) for corner in grid.parents.tolist()]
    items += [(*corner, grid.child_size) for corner in grid.child_coords()[grid.is_child].tolist()]

    def read() -> None:
        with open_slide(plan.file) as slide:
            for x, y, size in items:
                np.asarray(read_area(slide, (x, y), (size, size), (PATCH_SIZE, PATCH_SIZE)))

    return read


def tiles_alone(plan: SlidePlan) -> Round:
    with open_slide(plan.file) as slide:
        index = level_for(slide, plan.grid.child_size / PATCH_SIZE)
        downsample = round(slide.level_downsamples[index])
        level = TileReader(plan.file, slide)._level(index)
    edge = plan.grid.parent_size // downsample
    areas = [Box(x, y, x + edge, y + edge) for x, y in (plan.grid.parents // downsample).tolist()]
    needed = sorted({number for area in areas for number, *_ in level.parts(area)})

    def read() -> None:
        with plan.file.open("rb") as file:
            for number in needed:
                file.seek(int(level.offsets[number]))
                level.decode(file.read(int(level.counts[number])))

    return read


def cpu_seconds(ways: dict[str, Round], rounds: int) -> dict[str, float]:
    """Medians, by way."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, read in ways.items():
            start = time.process_time()
            read()
            if number:  # the first round warms up
                spent[way].append(time.process_time() - start)
    return {way: statistics.median(values) for way, values in spent.items()}


def most_apart(plans: Sequence[SlidePlan]) -> int:
    """Grey levels between the patches of two plans of a slide."""
    one, other = (RegionReader([plan]) for plan in plans)
    return max(int(np.abs(one[item][2].astype(int) - other[item][2]).max()) for item in range(len(one)))


def compare_ways(folder: Path, picture: np.ndarray, rounds: int) -> None:
    rows = []
    for stored, tile, levels in LAYOUTS:
        file = make_slide(folder, picture, stored, tile, levels)
        by_tiles, openslide = make_plan(file, "tiles"), make_plan(file, "openslide")
        half = make_plan(file, "tiles", half_decode=True)
        ways = {
            "a": regions(by_tiles),
            "b": regions(openslide),
            "c": patch_by_patch(openslide),
            "d": tiles_alone(by_tiles),
            "h": regions(half),
        }
        parents = len(by_tiles.grid.parents)
        spent = {way: 1000 / parents * seconds for way, seconds in cpu_seconds(ways, rounds).items()}
        ratios = [spent["a"] / spent["d"], spent["b"] / spent["a"], spent["c"] / spent["a"]]
        apart = most_apart([by_tiles, openslide])
        name = f"{stored}, {tile} px, levels {'-'.join(map(str, levels))}"
        rows.append([name, *(spent[way] for way in WAYS), *ratios, apart])
        file.unlink()
    ratio_columns = ["a / d", "b / a", "c / a", "grey levels between a and b"]
    table("CPU seconds per 1,000 parents", ["tiles", *(f"({way})" for way in WAYS), *ratio_columns], rows)


def free(patches: Tensor) -> Tensor:
    return torch.zeros(len(patches), 512)


def scaling(folder: Path, picture: np.ndarray, rounds: int) -> None:
    """Over reading processes, with an encoder that costs nothing."""
    file = make_slide(folder, picture, "jpeg", 240, (1, 4, 16))
    plan = make_plan(file, "tiles")
    spent: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, seconds in spent.items():
            start = time.perf_counter()
            list(extract_features(3 * [plan], free, 512, BATCH, workers))
            seconds.append(time.perf_counter() - start)
    parents = 3 * len(plan.grid.parents)
    one, two = (1000 / parents * statistics.median(seconds) for seconds in spent.values())
    table("Seconds per 1,000 parents, by workers", ["1 worker", "2 workers", "times faster"], [[one, two, one / two]])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", type=int, default=4, help="along the slide's edge")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(header(torch.device("cpu"), 1))
    area = tissue(PARENT, PARENT, [(0, 0, PARENT, PARENT)])
    picture = np.tile(gaussian_filter(area, (1, 1, 0)), (options.parents, options.parents, 1))
    with tempfile.TemporaryDirectory() as folder:
        compare_ways(Path(folder), picture, options.rounds)
        scaling(Path(folder), picture, options.rounds)


if __name__ == "__main__":
    sys.exit(run_script(main))
