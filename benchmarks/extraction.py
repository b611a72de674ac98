"""Slides per minute: each parent region read once and cut, against both scales read patch by patch.

A generated slide (40x, JPEG tiles, levels 1, 4 and 16; nothing in it is real tissue) goes through the same reading
processes and the same encoder in both ways, interleaved, and the medians are compared. With an encoder that costs
nothing the reading is measured; with one of PLIP's size (random weights) the whole.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import utils.torchvision_compat  # noqa: F401  (before transformers)
from benchmarks.pyramids import tissue, write_pyramid
from datasets.extraction_plan import FeatureRecipe, PlanJob, SlidePlan, plan_slide
from datasets.folders import FeatureFolders
from datasets.patches import PATCH_SIZE
from datasets.slide_features import extract_features
from datasets.slides import open_slide, read_area
from utils.errors import run_script

BATCH = 256


class PlannedPatches(Dataset[Tensor]):
    """Every patch of both scales by itself: all parents, then all children."""

    def __init__(self, plan: SlidePlan):
        grid = plan.grid
        self.file = plan.file
        self.items = [(*corner, grid.parent_size) for corner in grid.parents.tolist()]
        self.items += [(*corner, grid.child_size) for corner in grid.child_coords()[grid.is_child].tolist()]
        self._slide: Any = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> Tensor:
        self._slide = self._slide or open_slide(self.file)
        x, y, size = self.items[item]
        patch = read_area(self._slide, (x, y), (size, size), (PATCH_SIZE, PATCH_SIZE))
        return torch.from_numpy(np.array(patch)).permute(2, 0, 1)


def patch_by_patch(plan: SlidePlan, encode: Callable[[Tensor], Tensor], workers: int) -> None:
    for batch in DataLoader(PlannedPatches(plan), BATCH, num_workers=workers):
        encode(batch)


def one_pass(plan: SlidePlan, encode: Callable[[Tensor], Tensor], workers: int) -> None:
    for _ in extract_features([plan], encode, 512, BATCH, workers):
        pass


def plip_sized() -> Callable[[Tensor], Tensor]:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512)).eval()

    @torch.inference_mode()
    def encode(patches: Tensor) -> Tensor:
        pixels = torch.nn.functional.interpolate(patches.float() / 255, 224, mode="bicubic", antialias=True)
        return model(pixel_values=pixels).image_embeds

    return encode


def free(patches: Tensor) -> Tensor:
    return torch.zeros(len(patches), 512)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parents", type=int, default=8, help="along the slide's edge")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tile", type=int, default=256, help="edge of the slide's JPEG tiles (240 is common too)")
    options = parser.parse_args(argv)
    edge = 2048 * options.parents
    with tempfile.TemporaryDirectory() as folder:
        image = tissue(edge, edge, [(0, 0, edge, edge - 2048)])
        storage = {"levels": (1, 4, 16), "compression": "jpeg", "tile": options.tile}
        file = write_pyramid(Path(folder) / "slide.svs", image, 40, 0.25, **storage)
        del image
        folders = FeatureFolders(Path(folder), "task", "encoder")
        plan = plan_slide(PlanJob("slide", file, None, FeatureRecipe(5, 20, 0.1, "none", {}), folders, None)).plan
        assert plan is not None
        parents = len(plan.grid.parents)
        print(f"{parents} parents, {plan.grid.num_patches - parents} children, {options.workers} reading processes")
        for name, encode, repeats in (("no encoder", free, options.repeats), ("ViT-B/32", plip_sized(), 1)):
            seconds: dict[str, list[float]] = {"one pass": [], "patch by patch": []}
            for _ in range(repeats):
                for way, run in (("one pass", one_pass), ("patch by patch", patch_by_patch)):
                    start = time.perf_counter()
                    run(plan, encode, options.workers)
                    seconds[way].append(time.perf_counter() - start)
            once, single = (statistics.median(seconds[way]) for way in ("one pass", "patch by patch"))
            print(
                f"{name}: one pass {60 / once:.2f} slides/min, patch by patch {60 / single:.2f} slides/min, "
                f"{single / once:.2f} times faster (medians of {repeats})"
            )


if __name__ == "__main__":
    sys.exit(run_script(main))
