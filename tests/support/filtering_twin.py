"""Brute-force twin of text-guided dynamic filtering: slow loops over patches and texts, an oracle for the tests.

Written from the method page alone and importing nothing of the project. Shape letters: P parents, C child slots per
parent, K classes, O low texts per class, S high texts per low text, D feature width.
"""

import torch
from torch import Tensor

from tests.support.twins import cosine

MODES = ("full", "no_mask_propagation", "high_only", "none")
TIE = 1e-6  # similarities this close count as equal in the degenerate cases

Columns = list[list[bool]]  # by text, then patch


def _near_maximum(values: list[Tensor]) -> list[bool]:
    """Which values lie within TIE of the largest one."""
    maximum = max(values)
    return [bool(maximum - value <= TIE) for value in values]


def _above_threshold(values: list[Tensor], alpha: float) -> list[bool]:
    """HiVE-MIL, section on text-guided dynamic filtering: `threshold = mean + alpha * std` of one text's column.

    The standard deviation is the sample one. Degenerate columns (a single value, or all values within TIE of each
    other) "fall back to keeping the column's best entries". An empty column keeps nothing.
    """
    count = len(values)
    if count == 0:
        return []
    if count == 1 or bool(max(values) - min(values) <= TIE):
        return _near_maximum(values)
    column = torch.stack(values)
    mean = column.sum() / count
    std = torch.sqrt(((column - mean) ** 2).sum() / (count - 1))
    return [bool(value >= mean + alpha * std) for value in values]


def tgdf(
    low_features: Tensor,
    high_features: Tensor,
    child_mask: Tensor,
    low_texts: Tensor,
    high_texts: Tensor,
    num_subtexts: int,
    alpha: float,
    mode: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """HiVE-MIL, section on text-guided dynamic filtering.

    "Stage 1: S_low = cos(low_features, low_texts); per text column threshold = mean + alpha * std over the slide's
    patches; keep_low = S_low >= threshold. A parent is retained when any of its entries is kept. Stage 2: for the real
    children of retained parents, S_high = cos(high_features, high_texts), multiplied by keep_low[parent, parent_text];
    per high-text column threshold = mean + alpha * std over those children;
    keep_high = (S_high_masked >= threshold) and keep_low[parent, parent_text]."

    low_features (P, D), high_features (P, C, D), child_mask (P, C) bool, low_texts (K*O, D), high_texts (K*O*S, D).
    mode: "full", or an ablation: "no_mask_propagation" (stage 2 on the unmasked similarities), "high_only" (as that,
    and every low pair kept), "none" (every pair of real patches kept).
    Returns keep_low (P, K*O), retained (P,) and keep_high (P, C, K*O*S), all bool; keep_high is False for padding and
    for the children of parents that are not retained.
    """
    if mode not in MODES:
        raise ValueError(f"unknown filtering mode {mode!r}")
    num_parents, num_slots = child_mask.shape
    keep_low = torch.zeros(num_parents, len(low_texts), dtype=torch.bool, device=low_features.device)
    for text, column in enumerate(_low_columns(low_features, low_texts, alpha, mode)):
        for parent, is_kept in enumerate(column):
            keep_low[parent, text] = is_kept
    retained = torch.tensor([any(row) for row in keep_low.tolist()], dtype=torch.bool, device=low_features.device)

    # Stage 2 sees the real children of retained parents only.
    children = [(p, c) for p in range(num_parents) for c in range(num_slots) if retained[p] and child_mask[p, c]]
    allowed = [
        [mode != "full" or bool(keep_low[parent, text // num_subtexts]) for parent, _ in children]
        for text in range(len(high_texts))
    ]
    features = [high_features[parent, slot] for parent, slot in children]
    keep_high = torch.zeros(num_parents, num_slots, len(high_texts), dtype=torch.bool, device=low_features.device)
    kept_columns = allowed if mode == "none" else _high_columns(features, high_texts, allowed, alpha)
    for text, column in enumerate(kept_columns):
        for (parent, slot), is_kept in zip(children, column, strict=True):
            keep_high[parent, slot, text] = is_kept
    return keep_low, retained, keep_high


def _low_columns(low_features: Tensor, low_texts: Tensor, alpha: float, mode: str) -> Columns:
    """Stage 1: which parents a low text keeps. Where no parent would be retained, every column keeps its best."""
    if mode in ("high_only", "none"):
        return [[True] * len(low_features) for _ in low_texts]
    if len(low_features) == 0:
        return [[] for _ in low_texts]
    columns = [[cosine(parent, text) for parent in low_features] for text in low_texts]
    kept = [_above_threshold(column, alpha) for column in columns]
    return kept if any(map(any, kept)) else [_near_maximum(column) for column in columns]


def _high_columns(children: list[Tensor], high_texts: Tensor, allowed: Columns, alpha: float) -> Columns:
    """Stage 2: which children a high text keeps. Similarities that are not allowed count as zero. Where no pair is
    kept, every column keeps its best entries among the allowed ones."""
    columns = [
        [
            similarity if is_allowed else torch.zeros_like(similarity)
            for similarity, is_allowed in zip((cosine(child, text) for child in children), may, strict=True)
        ]
        for text, may in zip(high_texts, allowed, strict=True)
    ]
    kept = [
        [is_above and is_allowed for is_above, is_allowed in zip(_above_threshold(column, alpha), may, strict=True)]
        for column, may in zip(columns, allowed, strict=True)
    ]
    if any(map(any, kept)):
        return kept
    return [_best_allowed(column, may) for column, may in zip(columns, allowed, strict=True)]


def _best_allowed(column: list[Tensor], allowed: list[bool]) -> list[bool]:
    candidates = [child for child, is_allowed in enumerate(allowed) if is_allowed]
    if not candidates:
        return allowed
    best = _near_maximum([column[child] for child in candidates])
    kept = {child for child, is_best in zip(candidates, best, strict=True) if is_best}
    return [child in kept for child in range(len(column))]
