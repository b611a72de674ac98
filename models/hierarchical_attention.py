"""Messages along parent-child edges: modality-scale attention (MSA) and its ablations (Figure 6).

Every aggregator offers ``up`` (children to parents) and ``down`` (parents to children). A child has one parent, so
downwards the attention weight is 1 and no query or key exists.
"""

import torch
from torch import Tensor, nn

NUM_HEADS = 2


class ParentChildAttention(nn.Module):
    """q = W_q (h_v + s_v), k = W_k (h_u + s_u), v = W_v (h_u + s_u), softmax(q k / sqrt(head width)) over v's own
    neighbours, heads joined by W_o; two heads, no biases.

    Scores are taken between W_k^T q and the raw children, and values are projected after averaging, so that nothing
    of size (R*C, D) is projected. The keys' scale embedding shifts all of a parent's scores alike: it drops out.

    with_query: whether messages go up at all (otherwise there is no W_q and W_k).
    """

    def __init__(self, dim: int, with_query: bool):
        super().__init__()
        self.dim = dim
        self.query = nn.Linear(dim, dim, bias=False) if with_query else None
        self.key = nn.Linear(dim, dim, bias=False) if with_query else None
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def up(self, parents: Tensor, children: Tensor, mask: Tensor, with_children: Tensor, scales: Tensor) -> Tensor:
        """parents (P, D); children (R, C, D), mask (R, C) bool, of the parents ``with_children`` (R,); scales (2, D),
        low and high -> messages (P, D), zero for a parent without children."""
        assert self.query is not None and self.key is not None
        head_dim = self.dim // NUM_HEADS
        query = self.query(parents[with_children] + scales[0]).view(-1, NUM_HEADS, head_dim)
        key_weight = self.key.weight.view(NUM_HEADS, head_dim, self.dim)
        scores = torch.einsum("rhe,hed->rhd", query, key_weight) @ children.transpose(1, 2) / head_dim**0.5
        slots = mask.unsqueeze(1)  # (R, 1, C)
        weights = scores.masked_fill(~slots, torch.finfo(scores.dtype).min).softmax(-1)
        mean = weights @ children + scales[1]  # (R, heads, D)
        value = torch.einsum("rhd,hed->rhe", mean, self.value.weight.view(NUM_HEADS, head_dim, self.dim))
        messages = self.output(value.flatten(1)) * mask.any(1, keepdim=True)
        return torch.zeros_like(parents).index_copy(0, with_children, messages.to(parents.dtype))

    def down(self, parents: Tensor, children: Tensor, scales: Tensor) -> Tensor:
        """parents (R, D) of children (R, C, D) -> messages (R, 1, D)."""
        return self.output(self.value(parents + scales[0])).unsqueeze(1)


class ParentChildSage(nn.Module):
    """GraphSAGE in place of attention: W_neigh mean(neighbours) + b + W_root h_v."""

    def __init__(self, dim: int):
        super().__init__()
        self.neighbour = nn.Linear(dim, dim)
        self.root = nn.Linear(dim, dim, bias=False)

    def up(self, parents: Tensor, children: Tensor, mask: Tensor, with_children: Tensor, scales: Tensor) -> Tensor:
        """As ParentChildAttention.up; a parent without children gets b + W_root h_v."""
        count = mask.sum(1, keepdim=True).clamp(min=1)
        mean = (children * mask.unsqueeze(-1)).sum(1) / count
        means = torch.zeros_like(parents).index_copy(0, with_children, mean)
        return self.neighbour(means) + self.root(parents)

    def down(self, parents: Tensor, children: Tensor, scales: Tensor) -> Tensor:
        """parents (R, D), children (R, C, D) -> messages (R, C, D)."""
        return self.neighbour(parents).unsqueeze(1) + self.root(children)
