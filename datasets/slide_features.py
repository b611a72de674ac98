"""Slides to features at two magnifications, in one pass.

Every parent region is read once, at the coarsest level that has the high magnification. It is cut into its children,
and averaged over R x R pixels into the parent; all patches of a batch of regions are encoded together.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import openslide
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.extraction_plan import SlidePlan
from datasets.folders import FeatureFolders
from datasets.hierarchy import Hierarchy, write_hierarchy
from datasets.patch_sizes import PatchSizes
from datasets.patches import PATCH_SIZE
from datasets.slide_readers import ReadArea
from datasets.tile_decoding import TileError
from datasets.tile_reader import CACHE_BYTES, put_reduced
from utils import __version__
from utils.errors import Fault, UserError
from utils.h5 import write_h5
from utils.workers import tie_worker

Encode = Callable[[Tensor], Tensor]

WAITING_BYTES = 2**29
"""Of patches that were read and wait to be encoded."""
AHEAD = 2  # batches, or parts of them, that a worker reads before the first of them is encoded


# ---- reading ---------------------------------------------------------------------------------------------------------


def cut_region(region: np.ndarray, is_child: np.ndarray) -> np.ndarray:
    """A parent and its children, from its region at the high magnification.

    region: (R * S, R * S, 3) uint8, patches of S pixels. is_child: (R, R) bool. Returns (1 + children, S, S, 3) uint8:
    the parent, each pixel the mean of R x R, rounded; then the children, row by row.
    """
    ratio = len(is_child)
    size = len(region) // ratio
    patches = np.empty((1 + int(is_child.sum()), size, size, 3), np.uint8)
    put_reduced(region, ratio, patches[0])
    children = region.reshape(ratio, size, ratio, size, 3)
    for number, (row, column) in enumerate(np.argwhere(is_child), 1):
        patches[number] = children[row, :, column]
    return patches


class Regions(NamedTuple):
    """Some parent regions. patches: (N, S, S, 3) uint8, of each region the parent, then its children. places: (slide,
    parent, patches) of each region. faults: {slide: what was wrong} for those that could not be read."""

    patches: Tensor
    places: list[tuple[int, int, int]]
    faults: dict[int, Fault]


class RegionReader(Dataset[Any]):
    """All parent regions of some slides, in order; a process has one slide open at a time.

    starts: (slides + 1) the number of each slide's first region, and of all regions. readers: processes that read at
    once, which share the memory for decoded tiles.
    """

    def __init__(self, plans: Sequence[SlidePlan], readers: int = 1):
        self.plans = plans
        self.starts = np.cumsum([0, *(len(plan.grid.parents) for plan in plans)])
        self._cache_bytes = CACHE_BYTES // max(1, readers)
        self._opened: tuple[int, ReadArea] | None = None
        self._faults: dict[int, Fault] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, item: int) -> tuple[int, int, np.ndarray | Fault]:
        index = int(np.searchsorted(self.starts, item, "right")) - 1
        parent = item - int(self.starts[index])
        if index in self._faults:
            return index, parent, self._faults[index]
        try:
            return index, parent, self._read(index, parent)
        except (openslide.OpenSlideError, TileError, UserError, OSError) as error:
            self._opened = None
            x, y = self.plans[index].grid.parents[parent]
            found = f"cannot be read at ({x}, {y}) ({error})"
            self._faults[index] = Fault("slide.unreadable", str(self.plans[index].file), found)
            return index, parent, self._faults[index]

    def _read(self, index: int, parent: int) -> np.ndarray:
        plan = self.plans[index]
        grid = plan.grid
        if self._opened is None or self._opened[0] != index:
            self._opened = None
            self._opened = index, plan.reader.open(plan.file, self._cache_bytes)
        side, ratio = grid.parent_size, grid.is_child.shape[1]
        x, y = grid.parents[parent].tolist()
        region = self._opened[1]((x, y), (side, side), (ratio * PATCH_SIZE, ratio * PATCH_SIZE))
        if plan.stain is not None:
            region = plan.stain.apply(region)
        return cut_region(region, grid.is_child[parent])


def _tie(parent: int, worker: int) -> None:
    tie_worker(parent)


def _collate(items: Sequence[tuple[int, int, np.ndarray | Fault]]) -> Regions:
    read = [(index, parent, found) for index, parent, found in items if not isinstance(found, Fault)]
    empty = np.empty((0, PATCH_SIZE, PATCH_SIZE, 3), dtype=np.uint8)
    patches = torch.from_numpy(np.concatenate([empty, *(found for *_, found in read)]))
    faults = {index: found for index, _, found in items if isinstance(found, Fault)}
    return Regions(patches, [(index, parent, len(found)) for index, parent, found in read], faults)


def _joined(parts: Sequence[Regions]) -> Regions:
    if len(parts) == 1:
        return parts[0]
    places = [place for part in parts for place in part.places]
    faults = {index: fault for part in parts for index, fault in part.faults.items()}
    return Regions(torch.cat([part.patches for part in parts]), places, faults)


def read_batches(
    plans: Sequence[SlidePlan], batch_size: int, workers: int, pin_memory: bool = False
) -> Iterator[Regions]:
    """All regions of some slides, in batches of about ``batch_size`` patches of one slide. Which regions are a batch
    depends neither on the number of workers nor on the other slides.

    No more than WAITING_BYTES of patches that were read wait for their turn: the more workers, the fewer regions each
    reads at a time, and no more workers are started than may have regions of their own waiting.
    """
    patches = 1 + max((plan.grid.is_child[0].size for plan in plans), default=0)
    per_batch = max(1, batch_size // patches)
    most = WAITING_BYTES // (AHEAD * patches * PATCH_SIZE**2 * 3)  # regions
    total = sum(len(plan.grid.parents) for plan in plans)
    workers = min(workers, -(-total // per_batch), most)
    pieces = -(-per_batch // max(1, most // max(1, workers)))
    reader = RegionReader(plans, workers)
    batches = [batch for first, end in pairwise(reader.starts.tolist()) for batch in even_parts(first, end, per_batch)]
    if pieces == 1 and workers > 1:
        batches = walk(batches, reader.starts, workers)
    size = -(-per_batch // pieces)
    parts = [list(batch[start : start + size]) for batch in batches for start in range(0, len(batch), size)]
    loader = DataLoader(
        reader, batch_sampler=parts, num_workers=workers, collate_fn=_collate, pin_memory=pin_memory,
        prefetch_factor=AHEAD if workers else None, worker_init_fn=partial(_tie, os.getpid()),
    )  # fmt: skip
    read = iter(loader)
    for batch in batches:
        yield _joined([next(read) for _ in range(0, len(batch), size)])


def even_parts(first: int, end: int, most: int) -> list[range]:
    """The numbers from ``first`` to ``end`` in as few parts of at most ``most`` as can be, nearly equally long."""
    number = -(-(end - first) // most)
    return [
        range(first + part * (end - first) // number, first + (part + 1) * (end - first) // number)
        for part in range(number)
    ]


def walk(batches: Sequence[range], starts: np.ndarray, workers: int) -> list[range]:
    """The batches in an order in which each worker reads neighbours, which share tiles.

    The k-th goes to worker k modulo ``workers``, so each gets a run of every slide's batches. Slides stay in order.
    starts: as of RegionReader.
    """
    slides = np.searchsorted(starts, [batch[0] for batch in batches], "right")
    worker = np.arange(len(batches)) % workers
    order = np.empty(len(batches), int)
    order[np.lexsort([worker, slides])] = np.arange(len(batches))
    return [batches[place] for place in order]


# ---- encoding --------------------------------------------------------------------------------------------------------


@dataclass
class Pace:
    """How fast slides are encoded. patches: encoded so far. reading: seconds in which the encoder waited for patches.
    encoding: seconds in which the encoder worked. device: what the encoder runs on, and in which precision."""

    patches: int = 0
    reading: float = 0.0
    encoding: float = 0.0
    device: str = ""

    def add(self, more: "Pace") -> None:
        self.patches += more.patches
        self.reading += more.reading
        self.encoding += more.encoding

    def told(self) -> str:
        """What is waited for: whether more readers or a faster encoder would help."""
        slower, seconds = max(("reading", self.reading), ("encoding", self.encoding), key=lambda part: part[1])
        return f"{slower} takes {seconds / max(self.reading + self.encoding, 1e-9):.0%} of the time"


@dataclass(frozen=True)
class SlideFeatures:
    """low: (P, D) float32. high: (P, R * R, D) float32, zero rows where a child is no patch."""

    plan: SlidePlan
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def empty(cls, plan: SlidePlan, output_dim: int) -> "SlideFeatures":
        shape = len(plan.grid.parents), plan.grid.is_child[0].size, output_dim
        return cls(plan, np.zeros(shape[::2], np.float32), np.zeros(shape, np.float32))


def extract_features(
    plans: Sequence[SlidePlan],
    encode: Encode,
    output_dim: int,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
    pace: Pace | None = None,
) -> Iterator[SlideFeatures | tuple[SlidePlan, Fault]]:
    """Read and encode slides in order; of a slide that cannot be read, its plan and what was wrong.

    encode: (N, 3, S, S) uint8 -> (N, D), about ``batch_size`` patches at a time, of several parents. A batch is of one
    slide, so that a slide's features do not depend on which slides are extracted with it. pace: told after every batch.
    """
    pace = pace or Pace()
    features: dict[int, SlideFeatures] = {}
    faults: dict[int, Fault] = {}
    left = [len(plan.grid.parents) for plan in plans]
    waiting = 0
    idle = time.monotonic()
    for batch in read_batches(plans, batch_size, workers, pin_memory):
        faults |= batch.faults
        patches, began = batch.patches.permute(0, 3, 1, 2), time.monotonic()
        encoded = encode(patches).float().cpu().numpy() if len(patches) else np.empty((0, output_dim))
        pace.add(Pace(len(encoded), began - idle, time.monotonic() - began))
        start = 0
        for index, parent, number in batch.places:
            if index not in faults:
                slide = features.get(index) or SlideFeatures.empty(plans[index], output_dim)
                features[index] = slide
                slide.low[parent] = encoded[start]
                slide.high[parent, slide.plan.grid.is_child[parent].ravel()] = encoded[start + 1 : start + number]
            start += number
            left[index] -= 1
        while waiting < len(plans) and (left[waiting] == 0 or waiting in faults):
            finished = features.pop(waiting, None)
            yield (plans[waiting], faults[waiting]) if waiting in faults or finished is None else finished
            waiting += 1
        idle = time.monotonic()


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_slide_features(folders: FeatureFolders, slide: SlideFeatures, precision: str = "fp32") -> None:
    """Write a slide's low, high and hierarchical file. precision: the encoder's, for the record."""
    plan, grid = slide.plan, slide.plan.grid
    mask = grid.is_child.reshape(len(grid.parents), -1)
    coords = grid.child_coords().reshape(*mask.shape, 2)
    made = {
        **plan.made,
        "magnification_from": plan.magnification.origin,
        "slide_file": plan.file.name,
        "precision": precision,
        "version": __version__,
    }
    for file, features, corners, magnification, size in (
        (folders.low_file(plan.slide_id), slide.low, grid.parents, folders.low_magnification, grid.parent_size),
        (folders.high_file(plan.slide_id), slide.high[mask], coords[mask], folders.high_magnification, grid.child_size),
    ):
        attributes = {**made, "magnification": magnification, "patch_size_level0": size}
        write_h5(file, {"features": features, "coords": corners}, attributes)
    hierarchy = Hierarchy(slide.high, coords * mask[..., None], mask, True, orphans=0, repeated=0, dropped=0, crowded=0)
    sizes = PatchSizes(grid.parent_size, grid.child_size, "slide", "slide")
    write_hierarchy(folders.hierarchical_file(plan.slide_id), hierarchy, sizes, made)
