"""All that is told of one slide: which model said what, and where its patches lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from explanation.contributions import Explanation, ScaleExplanation
from explanation.faithfulness import Removal

# corner (x, y) and size (width, height) in level-0 pixels, size of the image -> the image
ReadArea = Callable[[tuple[int, int], tuple[int, int], tuple[int, int]], Image.Image]


class Pixel(NamedTuple):
    """Width of a level-0 pixel in micrometres, and whether that was measured or follows from the magnification."""

    microns: float
    is_nominal: bool


@dataclass(frozen=True)
class FoldOutcome:
    """What one fold's model said. part: the slide's place in that fold (train, val, test, or empty where it has none).
    probabilities: (K,)."""

    fold: str
    part: str
    probabilities: np.ndarray
    hit_ratio: float


@dataclass(frozen=True)
class Scale:
    """One magnification. coords: (*N, 2) level-0 pixels (x, y) of the top-left corners. size: edge of the patches in
    them. is_patch: (*N) bool. texts: descriptions, class-major, and their short names."""

    magnification: int
    coords: np.ndarray
    size: int
    is_patch: np.ndarray
    texts: Sequence[str]
    text_names: Sequence[str]
    explanation: ScaleExplanation

    @property
    def places(self) -> np.ndarray:
        """(M, 2): coordinates of the real patches."""
        return np.asarray(self.coords[self.is_patch])

    @property
    def parents(self) -> np.ndarray:
        """(M,): which parent a patch is or belongs to."""
        return self.is_patch.nonzero()[0]

    @cached_property
    def class_scores(self) -> np.ndarray:
        """(M, K)"""
        return np.asarray(self.explanation.class_scores[self.is_patch])

    def class_texts(self, label: int, num_classes: int) -> range:
        """The indices of a class's texts."""
        number = len(self.texts) // num_classes
        return range(label * number, (label + 1) * number)


@dataclass(frozen=True)
class ExplainedSlide:
    """label: the slide's class, or -1. explanation: the mean over ``folds``. read: reads the slide's pixels, where its
    file is given. pixel: None where nothing tells it."""

    slide_id: str
    class_names: Sequence[str]
    label: int
    folds: Sequence[FoldOutcome]
    explanation: Explanation
    low: Scale
    high: Scale
    removal: Removal | None = None
    read: ReadArea | None = None
    pixel: Pixel | None = None

    @property
    def scales(self) -> tuple[Scale, Scale]:
        return self.low, self.high

    @property
    def probabilities(self) -> np.ndarray:
        """(K,): mean over the folds."""
        return np.asarray(np.mean([fold.probabilities for fold in self.folds], axis=0))

    @property
    def spread(self) -> np.ndarray:
        """(K,): standard deviation over the folds."""
        return np.asarray(np.std([fold.probabilities for fold in self.folds], axis=0))

    @property
    def prediction(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) in level-0 pixels of an area that holds all patches, with a margin of one child."""
        margin = self.high.size
        corners = [(scale.places, scale.places + scale.size) for scale in self.scales if len(scale.places)]
        x, y = np.min([first.min(0) for first, _ in corners], axis=0) - margin
        right, bottom = np.max([last.max(0) for _, last in corners], axis=0) + margin
        return int(x), int(y), int(right - x), int(bottom - y)


def text_names(class_names: Sequence[str], num_low: int, num_subtexts: int) -> tuple[list[str], list[str]]:
    """Short names of the low and the high texts, class-major: "CLASS 1", and "CLASS 1.1" for its first high text."""
    low = [f"{name} {o + 1}" for name in class_names for o in range(num_low)]
    return low, [f"{name}.{s + 1}" for name in low for s in range(num_subtexts)]
