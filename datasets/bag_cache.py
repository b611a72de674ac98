"""Bags kept in memory up to a limit, and read ahead by threads: a slide is read once, and never waited for twice."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import torch

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from utils.interface import Bag, BagForm


class BagCache:
    """The bags of a task, by slide.

    A bag is kept while there is room; bags that are preferred displace others, and nothing displaces them. So an epoch
    over more slides than fit finds those that do, instead of always missing what was just thrown out. capacity: bytes.
    half: keep features in half the memory, as float16; all readers then get the rounded values. form: what is read of
    a slide. Safe to use from several threads.
    """

    def __init__(
        self,
        folders: FeatureFolders,
        feature_dim: int | None,
        capacity: int,
        half: bool = False,
        form: BagForm = "hierarchy",
    ):
        self.folders = folders
        self.feature_dim = feature_dim
        self.capacity = capacity
        self.half = half
        self.form = form
        self.size = 0
        self._bags: dict[str, Bag] = {}
        self._preferred: set[str] = set()
        self._lock = Lock()

    def prefer(self, slides: Iterable[Slide]) -> None:
        """From now on these are the slides to keep."""
        with self._lock:
            self._preferred = {slide.slide_id for slide in slides}

    def get(self, slide: Slide) -> Bag:
        """The slide's bag, from memory or read. Raises UserError as ``read_bag``."""
        with self._lock:
            kept = self._bags.get(slide.slide_id)
        kept = kept or self.put(read_bag(self.folders, slide, self.feature_dim, self.form))
        return _as(torch.float32, kept) if self.half else kept

    def put(self, bag: Bag) -> Bag:
        """Keep a bag if there is room; returns it as it is kept."""
        bag = _halved(bag) if self.half else bag
        with self._lock:
            if bag.slide_id in self._bags:
                return bag
            is_preferred, wanted = bag.slide_id in self._preferred, num_bytes(bag)
            others = [name for name in self._bags if name not in self._preferred] if is_preferred else []
            if self.size - sum(num_bytes(self._bags[name]) for name in others) + wanted > self.capacity:
                return bag
            while self.size + wanted > self.capacity:
                self.size -= num_bytes(self._bags.pop(others.pop(0)))
            self._bags[bag.slide_id] = bag
            self.size += wanted
        return bag


def num_bytes(bag: Bag) -> int:
    """What a bag takes in memory."""
    tensors = [*bag.features().values(), bag.low_coords, bag.high_coords]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _halved(bag: Bag) -> Bag:
    """The bag in float16, or as it is where a value is too large for that."""
    half = _as(torch.float16, bag)
    return half if all(features.isfinite().all() for features in half.features().values()) else bag


def _as(kind: torch.dtype, bag: Bag) -> Bag:
    return bag.map(lambda features: features.to(kind) if features.is_floating_point() else features)


class BagLoader:
    """The bags of some slides, in the order that ``order`` gives anew each time (default: as they are).

    threads: how many read ahead while a bag is used; with 0 each is read when its turn comes. pin: put bags into
    page-locked memory, from which they are copied to a GPU while it works.
    """

    def __init__(
        self,
        cache: BagCache,
        slides: Sequence[Slide],
        order: Iterable[int] | None = None,
        threads: int = 0,
        pin: bool = False,
    ):
        self.cache = cache
        self.slides = slides
        self.order = order
        self.threads = threads
        self.pin = pin

    def __len__(self) -> int:
        return len(self.slides)

    def __iter__(self) -> Iterator[Bag]:
        slides = [self.slides[index] for index in self.order] if self.order is not None else list(self.slides)
        if self.threads == 0:
            yield from map(self._load, slides)
            return
        waiting: deque[Future[Bag]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for slide in slides:
                    waiting.append(pool.submit(self._load, slide))
                    if len(waiting) > self.threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, slide: Slide) -> Bag:
        bag = self.cache.get(slide)
        return bag.pinned() if self.pin else bag
