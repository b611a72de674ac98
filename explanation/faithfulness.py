"""Does the prediction hang on the patches that an explanation names? They are removed, and the model asked again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from utils.interface import Bag

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Removal:
    """A class's probability as parents are removed from a slide, and their children with them.

    numbers, shares: (M,) of the parents removed, from 0 on. ranked: (M,) those of highest score first. random:
    (draws, M).
    """

    numbers: np.ndarray
    shares: np.ndarray
    ranked: np.ndarray
    random: np.ndarray

    def mean_probabilities(self) -> tuple[float, float]:
        """The mean height of the ranked curve, and of the random ones: scores are faithful where the first is lower."""
        width = self.shares[-1] - self.shares[0]
        if width == 0:
            return float(self.ranked[0]), float(self.ranked[0])
        ranked, random = (np.trapezoid(curve, self.shares) / width for curve in (self.ranked, self.random.mean(0)))
        return float(ranked), float(random)


def removal_curve(
    bag: Bag, scores: np.ndarray, probability: Callable[[Bag], float], draws: int, shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> Removal:  # fmt: skip
    """Remove shares of the parents, those of highest ``scores`` (P,) first, and as many at random, ``draws`` times. One
    parent at least stays. The deletion test of RISE (Petsiuk et al., BMVC 2018), with patches in place of pixels."""
    num_parents = len(scores)
    numbers = np.unique([min(round(share * num_parents), num_parents - 1) for share in shares])
    generator = np.random.default_rng(seed)
    whole = probability(bag)

    def curve(order: np.ndarray) -> list[float]:
        return [whole, *(probability(take_parents(bag, order[number:])) for number in numbers[1:])]

    ranked = curve(np.argsort(-scores, kind="stable"))
    random = [curve(generator.permutation(num_parents)) for _ in range(draws)]
    return Removal(numbers, numbers / num_parents, np.array(ranked), np.array(random))


def take_parents(bag: Bag, rows: np.ndarray) -> Bag:
    """The slide with these parents alone, in their order on the slide, and their children."""
    kept = torch.from_numpy(np.sort(rows)).to(bag.low_features.device)
    coords = (None if values is None else values[kept.cpu()] for values in (bag.low_coords, bag.high_coords))
    low_coords, high_coords = coords
    return replace(
        bag,
        low_features=bag.low_features[kept],
        high_features=bag.high_features[kept],
        child_mask=bag.child_mask[kept],
        low_coords=low_coords,
        high_coords=high_coords,
    )
