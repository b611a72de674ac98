"""TGDF as the released code computes it (``--variant released``)."""

import torch
from torch import Tensor

from models.graph import HierarchicalGraph
from utils.interface import Bag


def _filtered_similarity(images: Tensor, texts: Tensor, scale: Tensor, alpha: float) -> Tensor:
    """Raw dot products times ``scale``, min-max scaled per text, those below mean + alpha * std set to 0.

    images (N, D), texts (T, D) -> (N, T); an edge is where the value is not 0.
    """
    similarity = images @ texts.t() * scale
    lowest, highest = similarity.amin(0), similarity.amax(0)
    scaled = (similarity - lowest) / (highest - lowest + 1e-8)
    threshold = scaled.mean(0) + alpha * scaled.std(0)
    return torch.where(scaled >= threshold, scaled, 0.0)


class ReleasedFiltering:
    """No mask propagation; padding counts as patches everywhere.

    The released code crashes on a slide of one patch and on one that retains no parent; here every text keeps its
    best parents then.
    """

    def __init__(self, alpha: float, logit_scale: Tensor):
        self.alpha = alpha
        self.logit_scale = logit_scale

    def __call__(self, bag: Bag, low_text: Tensor, high_text: Tensor) -> HierarchicalGraph:
        low_image = bag.low_features
        scale = self.logit_scale.exp()
        with torch.no_grad():
            values = low_image.new_zeros(len(low_image), len(low_text))
            if len(low_image) > 1:
                values = _filtered_similarity(low_image, low_text, scale, self.alpha)
            if not (values > 0).any():
                similarity = low_image @ low_text.t()
                values = (similarity >= similarity.amax(0)).to(values.dtype)
            retained = (values.mean(1) > 0).nonzero().squeeze(1)
            high_image = bag.high_features.index_select(0, retained)
            num_parents, num_slots, _ = high_image.shape
            high_values = _filtered_similarity(high_image.flatten(0, 1), high_text, scale, self.alpha)
            keep_high = (high_values != 0).view(num_parents, num_slots, -1)
            every_slot = torch.ones(num_parents, num_slots, dtype=torch.bool, device=high_image.device)
        return HierarchicalGraph(
            low_image, high_image, low_text, high_text, retained, every_slot, values != 0, keep_high,
            torch.tensor(bag.child_mask.numel(), device=low_image.device),
        )  # fmt: skip
