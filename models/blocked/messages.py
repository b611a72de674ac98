"""Messages along parent-child edges, in steps of which only one sees the children.

Upwards parents ``ask``, their children's features are ``collect``ed, a block of parents at a time, and the parents
receive the ``answer``. Downwards a child has one parent, so the attention weight is 1 and no query or key is needed.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.relations import HierarchyWeights, Sage, ScaleAttention


def shares(adjacency: Tensor, dtype: torch.dtype) -> Tensor:
    """Edges as weights of a mean over neighbours: (..., N, M) bool -> rows of sum 1, or 0 without neighbours."""
    edges = adjacency.to(dtype)
    return edges / edges.sum(-1, keepdim=True).clamp(min=1)


class Upwards(Protocol):
    """Messages from children to parents, of R parents with C slots of children each and H heads."""

    def ask(self, parents: Tensor) -> Tensor:
        """parents (R, D) -> what their children are compared with, (R, H, D or 0)."""

    def collect(self, asked: Tensor, children: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """children (R, C, D), mask (R, C) bool -> their weighted means (R, H, D), and the weights (R, H, C), of which
        those of a parent without children have no meaning."""

    def answer(self, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """Messages to parents (P, D), of which the ``rows`` (R,) have ``collected`` (R, H, D) from the children of
        mask (R, C)."""


class AttentionUpwards(NamedTuple):
    """Scores are taken between W_k^T q and the raw children, and values are projected after averaging, so that nothing
    of size (R*C, D) is projected. The keys' scale embedding shifts all of a parent's scores alike: it drops out."""

    weights: ScaleAttention
    scales: Tensor

    def ask(self, parents: Tensor) -> Tensor:
        part, heads = self.weights, self.weights.num_heads
        assert part.query is not None and part.key is not None
        head_dim = part.dim // heads
        query = part.query(parents + self.scales[0]).view(-1, heads, head_dim) / head_dim**0.5
        return torch.einsum("rhe,hed->rhd", query, part.key.weight.view(heads, head_dim, part.dim))

    def collect(self, asked: Tensor, children: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        scores = asked @ children.transpose(1, 2)
        weights = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min).softmax(-1)
        return weights @ children, weights

    def answer(self, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """Zero for a parent without children."""
        part = self.weights
        weight = part.value.weight.view(part.num_heads, -1, part.dim)
        value = torch.einsum("rhd,hed->rhe", collected + self.scales[1], weight)
        messages = part.output(value.flatten(1)) * mask.any(1, keepdim=True)
        return torch.zeros_like(parents).index_copy(0, rows, messages.to(parents.dtype))


class SageUpwards(NamedTuple):
    """The mean of the real children, one head; nothing is asked for."""

    weights: Sage

    def ask(self, parents: Tensor) -> Tensor:
        return parents.new_zeros(len(parents), 1, 0)

    def collect(self, asked: Tensor, children: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        weights = shares(mask, children.dtype).unsqueeze(1)
        return weights @ children, weights

    def answer(self, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        means = torch.zeros_like(parents).index_copy(0, rows, collected.squeeze(1).to(parents.dtype))
        messages: Tensor = self.weights(parents, means)
        return messages


class NothingUpwards(NamedTuple):
    """No messages, no heads."""

    def ask(self, parents: Tensor) -> Tensor:
        return parents.new_zeros(len(parents), 0, 0)

    def collect(self, asked: Tensor, children: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return asked, children.new_zeros(len(children), 0, mask.shape[1])

    def answer(self, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(parents)


def upwards(hierarchy: HierarchyWeights, modality: str) -> Upwards:
    """Of "image" or "text"."""
    weights = hierarchy[f"{modality}_up"]
    if weights is None:
        return NothingUpwards()
    return SageUpwards(weights) if isinstance(weights, Sage) else AttentionUpwards(weights, hierarchy.scales)


def downwards(hierarchy: HierarchyWeights, modality: str, parents: Tensor) -> Tensor:
    """parents (R, D) -> messages to the children of each (R, D), without what ``own_weight`` adds."""
    weights = hierarchy[f"{modality}_down"]
    if weights is None:
        return torch.zeros_like(parents)
    if isinstance(weights, Sage):
        return F.linear(parents, weights.neighbour.weight, weights.neighbour.bias)
    value, output = weights.value.weight, weights.output.weight
    if len(parents) < weights.dim:
        return F.linear(F.linear(parents + hierarchy.scales[0], value), output)
    return F.linear(parents + hierarchy.scales[0], output @ value)


def own_weight(hierarchy: HierarchyWeights, modality: str) -> Tensor | None:
    """(D, D): what a child's own features add to its message from above, or None."""
    weights = hierarchy[f"{modality}_down"]
    return weights.root.weight if isinstance(weights, Sage) else None
