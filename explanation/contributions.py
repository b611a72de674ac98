"""Why a model decides as it does about a slide: what each patch and each text has to do with it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor


@dataclass(frozen=True)
class ScaleExplanation:
    """One magnification of a slide. N stands for the patches: (P,) parents, or (P, C) slots of children; T texts,
    class-major; K classes.

    match: (*N, T) cosine similarity of a patch's features and a text's before the graph, which is what the filtering
    goes by; NaN where there is no patch. similarity: (*N, T) that of the nodes after the graph, which is what the
    logits are made of; NaN where the patch is not in the graph. kept: (*N, T) 1 where an edge joins patch and text.
    patch_logits: (*N, K) what each patch adds to each class's logit. text_logits: (T,) what each text adds to the logit
    of its class. Over the patches, or over a class's texts, these add up to the logits of this scale (in the released
    variant empty slots count as patches).
    """

    match: np.ndarray
    similarity: np.ndarray
    kept: np.ndarray
    patch_logits: np.ndarray
    text_logits: np.ndarray

    @property
    def class_scores(self) -> np.ndarray:
        """(*N, K): the mean match with a class's texts."""
        num_classes = self.patch_logits.shape[-1]
        return np.asarray(self.match.reshape(*self.match.shape[:-1], num_classes, -1).mean(-1))


@dataclass(frozen=True)
class Explanation:
    """What one model says of a slide, or the mean of several.

    logits: (K,). hit_ratio: Hit Ratio@2, NaN of one scale alone and of a slide without children. attention: (layers, P,
    C) the weight that a parent gives to each of its children, mean of the heads; NaN outside the graph. text_attention:
    (layers, K*O, S) that of low texts and their high texts. Neither has a layer where no message goes upwards.
    """

    low: ScaleExplanation
    high: ScaleExplanation
    logits: np.ndarray
    hit_ratio: float
    attention: np.ndarray
    text_attention: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(K,): softmax of the logits."""
        return np.asarray(softmax(self.logits.astype(np.float64)))


def explain_scale(
    match: Tensor, similarity: Tensor, kept: Tensor, is_patch: Tensor, is_node: Tensor, num_classes: int, weight: float,
    top_k: int,
) -> ScaleExplanation:  # fmt: skip
    """One scale, from what a model computed of it.

    match, similarity: (*N, T). kept: (*N, T) bool. is_patch, is_node: (*N) bool, which are real, and which the logits
    may choose from. weight: the logit scale, 0 where this scale has no part in the logits. top_k: how many patches are
    averaged for a text.
    """
    num_texts = match.shape[-1]
    places = is_node.flatten().nonzero().squeeze(1)
    values, best = similarity.flatten(0, -2)[places].topk(min(top_k, len(places)), dim=0)
    parts = values * (weight * num_classes / (num_texts * max(len(values), 1)))
    class_of_text = torch.arange(num_texts, device=match.device) * num_classes // num_texts
    patch_logits = parts.new_zeros(is_node.numel(), num_classes)
    patch_logits.index_put_((places[best], class_of_text.expand_as(best)), parts, accumulate=True)
    nan = float("nan")
    arrays = (
        match.masked_fill(~is_patch.unsqueeze(-1), nan),
        similarity.masked_fill(~(is_patch & is_node).unsqueeze(-1), nan),
        (kept & is_patch.unsqueeze(-1)).to(match.dtype),
        patch_logits.view(*is_node.shape, num_classes),
        parts.sum(0),
    )
    return ScaleExplanation(*(array.float().cpu().numpy() for array in arrays))


def mean_explanation(explanations: Sequence[Explanation]) -> Explanation:
    """The mean of several models' explanations of one slide; of numbers that some do not have (NaN) the mean of the
    others'."""

    def mean_scale(scales: Sequence[ScaleExplanation]) -> ScaleExplanation:
        names = [field.name for field in fields(ScaleExplanation)]
        return ScaleExplanation(**{name: _known_mean([getattr(scale, name) for scale in scales]) for name in names})

    return Explanation(
        mean_scale([explanation.low for explanation in explanations]),
        mean_scale([explanation.high for explanation in explanations]),
        _known_mean([explanation.logits for explanation in explanations]),
        float(_known_mean([np.array(explanation.hit_ratio) for explanation in explanations])),
        _known_mean([explanation.attention for explanation in explanations]),
        _known_mean([explanation.text_attention for explanation in explanations]),
    )


def _known_mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over arrays of one shape, NaN left out; NaN where all are."""
    stacked = np.stack(arrays)
    known = (~np.isnan(stacked)).sum(0)
    return np.where(known > 0, np.nansum(stacked, 0) / np.maximum(known, 1), np.nan).astype(stacked.dtype)


def row_normalised(similarity: np.ndarray) -> np.ndarray:
    """Each row by itself onto [-1, 1], its least value at -1 and its greatest at 1; 0 for a row of equal values.

    similarity: (N, M), without NaN."""
    least, greatest = similarity.min(1, keepdims=True), similarity.max(1, keepdims=True)
    spread = greatest - least
    return np.where(spread > 0, 2 * (similarity - least) / np.where(spread > 0, spread, 1) - 1, 0)
