"""Text-guided dynamic filtering (TGDF): which patches and texts are joined by an edge."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.graph import HierarchicalGraph
from utils.interface import Bag

EPS = 1e-12  # the least length that is divided by
TIE = 1e-6  # cosines closer than this are one value


class FilterStages(NamedTuple):
    """Which parts of TGDF are in force: the low threshold, and passing its mask on to the children."""

    low_filter: bool
    mask_propagation: bool
    high_filter: bool


TGDF_MODES = {
    "full": FilterStages(low_filter=True, mask_propagation=True, high_filter=True),
    "no_mask_propagation": FilterStages(low_filter=True, mask_propagation=False, high_filter=True),
    "high_only": FilterStages(low_filter=False, mask_propagation=False, high_filter=True),
    "none": FilterStages(low_filter=False, mask_propagation=False, high_filter=False),
}


def cosine_similarity(images: Tensor, texts: Tensor) -> Tensor:
    """(..., D) and (T, D) -> (..., T). The images are divided by their length last, where they are T wide."""
    length = torch.linalg.vector_norm(images, dim=-1, keepdim=True).clamp(min=EPS)
    similarity: Tensor = (images @ F.normalize(texts, dim=-1).t()) / length
    return similarity


def above_threshold(similarity: Tensor, alpha: float) -> Tensor:
    """Per column, the entries of at least mean + alpha * std (sample std): (N, T) -> (N, T) bool.

    A column without spread (a single row, or identical rows) keeps all its entries.
    """
    if len(similarity) == 0:
        return torch.zeros_like(similarity, dtype=torch.bool)
    least, most = similarity.aminmax(dim=0)
    if len(similarity) == 1:
        return torch.ones_like(similarity, dtype=torch.bool)
    threshold = similarity.mean(0) + alpha * similarity.std(0)
    return torch.where(most - least <= TIE, True, similarity >= threshold)


def best_entries(similarity: Tensor, allowed: Tensor) -> Tensor:
    """Per column, the best of the allowed entries: (N, T), (N, T) bool -> (N, T) bool."""
    if len(similarity) == 0:
        return allowed
    best = similarity.masked_fill(~allowed, float("-inf")).amax(0)
    return allowed & (similarity >= best - TIE)


class TextGuidedFiltering:
    """Builds a slide's graph. alpha: how many standard deviations above a text's mean a similarity must lie.

    Where a stage would keep no pair at all, every text keeps its best patches. The choice passes no gradient.

    instances: the scales whose patches and texts are joined ("both", "low" or "high", Table 14). Of the low scale alone
    no child is in the graph; of the high scale alone all children are, and no parent has an edge.
    """

    def __init__(self, alpha: float = 0.5, mode: str = "full", instances: str = "both"):
        self.alpha = alpha
        self.stages = TGDF_MODES[mode]
        self.instances = instances
        if instances == "high":
            self.stages = self.stages._replace(low_filter=False, mask_propagation=False)

    def __call__(self, bag: Bag, low_text: Tensor, high_text: Tensor) -> HierarchicalGraph:
        with torch.no_grad():
            keep_low = self._filter_low(bag.low_features, low_text)
            retained = keep_low.any(1).nonzero().squeeze(1)
            if self.instances == "low":
                retained = retained[:0]
            high_image, child_mask = bag.high_features.index_select(0, retained), bag.child_mask[retained]
            keep_high = self._filter_high(high_image, child_mask, keep_low[retained], high_text)
            if self.instances == "high":
                keep_low = torch.zeros_like(keep_low)
        return HierarchicalGraph(
            bag.low_features, high_image, low_text, high_text, retained, child_mask, keep_low, keep_high,
            bag.child_mask.sum(),
        )  # fmt: skip

    def _filter_low(self, low_image: Tensor, low_text: Tensor) -> Tensor:
        """Stage 1: (P, D), (T, D) -> (P, T) bool."""
        similarity = cosine_similarity(low_image, low_text)
        if not self.stages.low_filter:
            return torch.ones_like(similarity, dtype=torch.bool)
        keep = above_threshold(similarity, self.alpha)
        return keep if keep.any() else best_entries(similarity, torch.ones_like(keep))

    def _filter_high(self, high_image: Tensor, child_mask: Tensor, keep_low: Tensor, high_text: Tensor) -> Tensor:
        """Stage 2: children (R, C, D) of parents that keep (R, T), texts (T*S, D) -> (R, C, T*S) bool."""
        keep_high = torch.zeros(*child_mask.shape, len(high_text), dtype=torch.bool, device=high_image.device)
        if not self.stages.high_filter:
            return keep_high | child_mask.unsqueeze(-1)
        similarity = cosine_similarity(high_image, high_text)[child_mask]
        allowed = torch.ones_like(similarity, dtype=torch.bool)
        if self.stages.mask_propagation:
            parent_keeps = keep_low.repeat_interleave(len(high_text) // keep_low.shape[1], dim=1)
            allowed = parent_keeps.unsqueeze(1).expand_as(keep_high)[child_mask]
        masked = similarity * allowed
        keep = above_threshold(masked, self.alpha) & allowed
        keep_high[child_mask] = keep if keep.any() else best_entries(similarity, allowed)
        return keep_high
