"""Class logits from the similarity of image and text nodes."""

import torch
from torch import Tensor

from models.graph import Chosen
from utils.interface import Embeddings


def full_precision(like: Tensor) -> torch.autocast:
    """Within it autocast is off on the tensor's device."""
    return torch.autocast(like.device.type, enabled=False)


def best(similarity: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Of each text the ``top_k`` most similar images, or all when fewer: (T, N) -> values and columns, (T, k)."""
    return similarity.topk(min(top_k, similarity.shape[1]), dim=1)


def scale_logits(similarity: Tensor, num_classes: int, top_k: int, logit_scale: Tensor) -> Tensor:
    """One scale: per text the mean of its top-k images, times ``logit_scale``, mean over a class's texts.

    similarity of texts and images (K*O, N) -> (K,); zeros where there is no image.
    """
    if similarity.shape[1] == 0:
        return similarity.new_zeros(num_classes)
    values, _ = best(similarity, top_k)
    return (values.mean(1) * logit_scale).view(num_classes, -1).mean(1)


class TopKLogits:
    """Sums the logits of the scales in use. top_k_low, top_k_high: images averaged per text (2 and 100).

    scales: "both", "low" or "high". logit_scale is the vision-language model's raw parameter, not exponentiated.
    """

    def __init__(self, num_classes: int, top_k_low: int = 2, top_k_high: int = 100, scales: str = "both"):
        self.num_classes = num_classes
        self.top_k = {"low": top_k_low, "high": top_k_high}
        self.scales = ("low", "high") if scales == "both" else (scales,)

    def __call__(self, embeddings: Embeddings, logit_scale: Tensor) -> Tensor:
        logits = torch.zeros(self.num_classes, device=embeddings.low_text.device)
        for scale in self.scales:
            similarity = _similarity(embeddings, scale)
            logits = logits + scale_logits(similarity, self.num_classes, self.top_k[scale], logit_scale)
        return logits

    def choose(self, embeddings: Embeddings) -> Chosen:
        """The images that the logits depend on."""
        chosen = {"low": embeddings.retained[:0], "high": embeddings.retained[:0]}
        with full_precision(embeddings.low_text):
            for scale in self.scales:
                _, columns = best(_similarity(embeddings, scale), self.top_k[scale])
                chosen[scale] = torch.unique(columns)
        chosen["high"] = embeddings.child_mask.flatten().nonzero().squeeze(1)[chosen["high"]]
        return Chosen(**chosen)


def _similarity(embeddings: Embeddings, scale: str) -> Tensor:
    """Of a scale's texts and images: (T, P), or (T*S, number of real children)."""
    if scale == "low":
        return embeddings.low_text @ embeddings.low_image.t()
    similarity = embeddings.high_image.flatten(0, 1) @ embeddings.high_text.t()
    return similarity[embeddings.child_mask.flatten()].t().contiguous()
