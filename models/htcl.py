"""The hierarchical text contrastive loss (HTCL) and its variants (Table 2)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TextLoss = Callable[[Tensor, Tensor, int], Tensor]


def _contrast(anchors: Tensor, low_text: Tensor, positive: Tensor) -> Tensor:
    """mean over anchors of [-mean_pos log sigmoid(sim) - mean_neg log sigmoid(-sim)], cosine similarity.

    anchors (A, D), low_text (T, D), positive (A, T) bool -> scalar.
    """
    similarity = F.normalize(anchors, dim=-1) @ F.normalize(low_text, dim=-1).t()
    negative = ~positive
    pull = -(F.logsigmoid(similarity) * positive).sum(1) / positive.sum(1).clamp(min=1)
    push = -(F.logsigmoid(-similarity) * negative).sum(1) / negative.sum(1).clamp(min=1)
    return (pull + push).mean()


def _own_parent(num_anchors: int, low_text: Tensor) -> Tensor:
    """(A, T) bool: anchor a belongs to low text a // (A / T)."""
    own = torch.eye(len(low_text), dtype=torch.bool, device=low_text.device)
    return own.repeat_interleave(num_anchors // len(low_text), dim=0)


def _parent_anchors(low_text: Tensor, high_text: Tensor) -> Tensor:
    """The mean of each low text's high texts: (T*S, D) -> (T, D)."""
    return high_text.view(len(low_text), -1, high_text.shape[-1]).mean(1)


def class_wise(low_text: Tensor, high_text: Tensor, num_classes: int) -> Tensor:
    """Positives are the low texts of the anchor's class, negatives those of the others. The published loss."""
    class_of_low = torch.arange(len(low_text), device=low_text.device) // (len(low_text) // num_classes)
    class_of_high = torch.arange(len(high_text), device=low_text.device) // (len(high_text) // num_classes)
    return _contrast(high_text, low_text, class_of_high.unsqueeze(1) == class_of_low)


def instance_wise(low_text: Tensor, high_text: Tensor, num_classes: int) -> Tensor:
    """The positive is the anchor's own low text, all others are negatives."""
    return _contrast(high_text, low_text, _own_parent(len(high_text), low_text))


def share_parent(low_text: Tensor, high_text: Tensor, num_classes: int) -> Tensor:
    """As instance-wise, the anchor being the mean of the high texts of one low text."""
    return _contrast(_parent_anchors(low_text, high_text), low_text, _own_parent(len(low_text), low_text))


def released(low_text: Tensor, high_text: Tensor, num_classes: int) -> Tensor:
    """What the released code computes: as share-parent, without a negative term."""
    anchors = _parent_anchors(low_text, high_text)
    return -F.logsigmoid(F.cosine_similarity(anchors, low_text, dim=-1)).mean()


HTCL: dict[str, TextLoss | None] = {
    "class_wise": class_wise,
    "instance_wise": instance_wise,
    "share_parent": share_parent,
    "none": None,
}
