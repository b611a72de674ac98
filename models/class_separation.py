"""How well descriptions tell the classes apart by themselves: cosines of their text features, without any slide."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.prompts import PromptTokens
from models.vlms import TextSide

COLUMNS = (
    ("low", "within"), ("low", "between"),
    ("high", "within"), ("high", "between"),
    ("low with high", "own"), ("low with high", "same class"), ("low with high", "between"),
)  # fmt: skip


class AlikePair(NamedTuple):
    """Two texts of different classes, by their places in (class, text) order, and their cosine."""

    first: tuple[int, int]
    second: tuple[int, int]
    cosine: float


def encode_texts(tower: TextSide, texts: list[str]) -> tuple[Tensor, int]:
    """Features of plain texts, without context tokens, of unit length: (N, D); and how many texts were cut."""
    tokens = PromptTokens(tower, texts, num_context_tokens=0, position="end")
    with torch.no_grad():
        features = tower.encode_prompts(tower.embed(tokens.token_ids), tokens.token_ids)
    return normalize(features, dim=-1), tokens.num_cut


def class_separation(low: Tensor, high: Tensor) -> Tensor:
    """Mean cosines, a row a class and a last one over all: (K + 1, 7), the columns of ``COLUMNS``.

    low: (K, O, D), high: (K, O, S, D), both of unit length. within: different texts of a class and scale. between: a
    class's texts with those of all other classes. Of a low text with high ones: its own sub-features, the other high
    texts of its class (same class), the high texts of other classes (between). NaN where there is no such pair.
    """
    num_classes, num_low, num_subtexts, _ = high.shape
    low_cosines = torch.einsum("kod,lpd->kolp", low, low)
    high_cosines = torch.einsum("kod,lpd->kolp", high.flatten(1, 2), high.flatten(1, 2))
    cross_cosines = torch.einsum("kod,lpd->kolp", low, high.flatten(1, 2))
    same_class = torch.eye(num_classes, dtype=torch.bool)[:, None, :, None]
    own = torch.eye(num_low, dtype=torch.bool).repeat_interleave(num_subtexts, dim=1)[None, :, None, :]
    masked = []
    for cosines in (low_cosines, high_cosines):
        other_text = ~torch.eye(cosines.shape[1], dtype=torch.bool)[None, :, None, :]
        masked += [(cosines, same_class & other_text), (cosines, ~same_class)]
    masked += [(cross_cosines, mask) for mask in (same_class & own, same_class & ~own, ~same_class)]
    columns = []
    for cosines, mask in masked:
        kept = cosines.masked_fill(~mask, torch.nan)
        columns.append(torch.cat([kept.flatten(1).nanmean(dim=1), kept.nanmean().view(1)]))
    return torch.stack(columns, dim=1)


def alike_pairs(features: Tensor, terms: Sequence[Sequence[str]], threshold: float) -> list[AlikePair]:
    """Texts of different classes with a cosine of ``threshold`` or more, or with the same term (whatever its case);
    the most alike first. features: (K, T, D) of unit length, terms: K lists of T."""
    num_classes, num_texts, _ = features.shape
    flat = features.flatten(0, 1)
    cosines = (flat @ flat.T).tolist()
    pairs = []
    for i in range(num_classes * num_texts):
        for j in range((i // num_texts + 1) * num_texts, num_classes * num_texts):
            first, second = divmod(i, num_texts), divmod(j, num_texts)
            same_term = terms[first[0]][first[1]].casefold() == terms[second[0]][second[1]].casefold()
            if same_term or cosines[i][j] >= threshold:
                pairs.append(AlikePair(first, second, cosines[i][j]))
    return sorted(pairs, key=lambda pair: -pair.cosine)
