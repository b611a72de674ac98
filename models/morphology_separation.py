"""How alike the texts of one morphology are (the paper's Table 6): cosines of text features, without any slide.

A morphology, the paper's category, is one low text with its own sub-features, the high texts. The paper prints the mean
cosine within a category (intra) and between categories (inter), at 5x, at 20x and jointly. The paper's intra value at
5x is 1.000, where a category has one text alone: the cosine of that text with itself. So the paper's intra mean is over
a category's whole matrix of cosines, the pairs of a text with itself among them, and ``intra`` here is that mean at all
three places: of 3 sub-features a third of the pairs is 1. The paper does not say so. By this reading its figures for
GPT-4o on NSCLC (0.516 at 20x, 0.454 jointly, 0.11 between categories) come from mean cosines of 0.27 between two sub-
features of a category and of 0.27 between a low text and its own ones. ``distinct`` is the other reading, over pairs of
different texts alone.
"""

import torch
from torch import Tensor

SCALES = ("low", "high", "joint")
MORPHOLOGY_COLUMNS = tuple((scale, kind) for scale in SCALES for kind in ("intra", "distinct", "inter"))


def morphology_separation(low: Tensor, high: Tensor) -> Tensor:
    """Mean cosines, one row per class and a last row over all: (K + 1, 9), the columns of ``MORPHOLOGY_COLUMNS``.

    low: (K, O, D), high: (K, O, S, D), both of unit length. Over pairs of texts at the low scale, at the high scale,
    and at either one (joint). intra: pairs of one category, a text with itself among them. distinct: pairs of two
    texts of one category. inter: pairs of a category of the class (in the last row: of any class) and any other
    category, of the same class or not. Each pair of texts counts alike, and so does each category, as all have S + 1
    texts. NaN where there is no such pair.
    """
    num_classes, num_low, num_subtexts, width = high.shape
    category = torch.arange(num_classes * num_low)
    parts = [(low.reshape(-1, width), category), (high.reshape(-1, width), category.repeat_interleave(num_subtexts))]
    parts.append((torch.cat([features for features, _ in parts]), torch.cat([owners for _, owners in parts])))
    columns = []
    for features, owners in parts:
        cosines = features @ features.T
        same = owners[:, None] == owners[None, :]
        masks = [same, same & ~torch.eye(len(owners), dtype=torch.bool), ~same]
        columns += [_means(cosines, mask, owners // num_low, num_classes) for mask in masks]
    return torch.stack(columns, dim=1)


def _means(cosines: Tensor, mask: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """(K + 1,): the mean over the masked pairs whose first text is of a class, and over all masked pairs."""
    rows = [classes == number for number in range(num_classes)]
    return torch.stack([cosines[mask & row[:, None]].mean() for row in rows] + [cosines[mask].mean()])
