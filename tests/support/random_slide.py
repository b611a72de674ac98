"""Random slides, texts and parameters for the tests of the model's parts."""

import torch
from torch import Tensor, nn

from utils.interface import Bag


class FixedTexts(nn.Module):
    """Stands in for the prompts: features that are given."""

    class Tower(nn.Module):
        logit_scale = torch.tensor(4.5871)

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.low, self.high = nn.Parameter(low), nn.Parameter(high)
        self.tower = self.Tower()

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high


def random_bag(
    seed: int, num_parents: int = 7, num_children: int = 4, dim: int = 8, missing: float = 0.3, label: int = 0
) -> Bag:
    """A slide in float64: common part plus noise, missing children, the last parent without any."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(dim, generator=generator, dtype=torch.float64)
    low = common + torch.randn(num_parents, dim, generator=generator, dtype=torch.float64)
    high = common + torch.randn(num_parents, num_children, dim, generator=generator, dtype=torch.float64)
    mask = torch.rand(num_parents, num_children, generator=generator) >= missing
    mask[-1] = False
    return Bag("slide", low, high * mask.unsqueeze(-1), mask, label)


def random_texts(
    seed: int, num_classes: int = 2, num_low: int = 2, num_subtexts: int = 3, dim: int = 8
) -> tuple[Tensor, Tensor]:
    """Low (K*O, D) and high (K*O*S, D) text features in float64."""
    generator = torch.Generator().manual_seed(1000 + seed)
    low = torch.randn(num_classes * num_low, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(low) * num_subtexts, dim, generator=generator, dtype=torch.float64)
    return low, low.repeat_interleave(num_subtexts, 0) + 0.7 * noise
