"""Class logits from the similarity of image and text nodes."""

import torch
from torch import Tensor

from utils.interface import Embeddings


def scale_logits(images: Tensor, texts: Tensor, num_classes: int, top_k: int, logit_scale: Tensor) -> Tensor:
    """One scale: per text the mean of its top-k images, times ``logit_scale``, mean over a class's texts.

    images (N, D) and texts (K*O, D) of unit length -> (K,); zeros where there is no image.
    """
    if len(images) == 0:
        return texts.new_zeros(num_classes)
    similarity = texts @ images.t()
    best = similarity.topk(min(top_k, len(images)), dim=1).values.mean(1)
    return (best * logit_scale).view(num_classes, -1).mean(1)


class TopKLogits:
    """Sums the logits of the scales in use. top_k_low, top_k_high: images averaged per text (2 and 100).

    scales: "both", "low" or "high". logit_scale is the vision-language model's raw parameter, not exponentiated.
    """

    def __init__(self, num_classes: int, top_k_low: int = 2, top_k_high: int = 100, scales: str = "both"):
        self.num_classes = num_classes
        self.top_k_low = top_k_low
        self.top_k_high = top_k_high
        self.scales = scales

    def __call__(self, embeddings: Embeddings, logit_scale: Tensor) -> Tensor:
        logits = torch.zeros(self.num_classes, device=embeddings.low_text.device)
        if self.scales in ("both", "low"):
            logits = logits + scale_logits(
                embeddings.low_image, embeddings.low_text, self.num_classes, self.top_k_low, logit_scale
            )
        if self.scales in ("both", "high"):
            children = embeddings.high_image[embeddings.child_mask]
            logits = logits + scale_logits(
                children, embeddings.high_text, self.num_classes, self.top_k_high, logit_scale
            )
        return logits
