"""Messages along parent-child edges: modality-scale attention (MSA) and its ablations (Figure 6).

Downwards a child has one parent, so the attention weight is 1 and no query or key exists. Upwards there are three
steps, of which only the second sees the children: parents ``ask``, their children's features are ``collect``ed, and the
parents receive the ``answer``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_HEADS = 2


class ParentChildAttention(nn.Module):
    """q = W_q (h_v + s_v), k = W_k (h_u + s_u), v = W_v (h_u + s_u), softmax(q k / sqrt(head width)) over v's own
    neighbours, heads joined by W_o; two heads, no biases.

    Scores are taken between W_k^T q and the raw children, and values are projected after averaging, so that nothing
    of size (R*C, D) is projected. The keys' scale embedding shifts all of a parent's scores alike: it drops out.

    with_query: whether messages go up at all (otherwise there is no W_q and W_k). Scales are (2, D), low and high.
    """

    def __init__(self, dim: int, with_query: bool):
        super().__init__()
        self.dim = dim
        self.query = nn.Linear(dim, dim, bias=False) if with_query else None
        self.key = nn.Linear(dim, dim, bias=False) if with_query else None
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def ask(self, parents: Tensor, scales: Tensor) -> Tensor:
        """parents (R, D) -> what their children are compared with (R, heads, D)."""
        assert self.query is not None and self.key is not None
        head_dim = self.dim // NUM_HEADS
        query = self.query(parents + scales[0]).view(-1, NUM_HEADS, head_dim) / head_dim**0.5
        return torch.einsum("rhe,hed->rhd", query, self.key.weight.view(NUM_HEADS, head_dim, self.dim))

    def collect(self, asked: Tensor, children: Tensor, mask: Tensor) -> Tensor:
        """children (R, C, D), mask (R, C) bool -> their weighted means (R, heads, D)."""
        scores = asked @ children.transpose(1, 2)
        weights = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min).softmax(-1)
        return weights @ children

    def answer(self, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor, scales: Tensor) -> Tensor:
        """Messages to parents (P, D), of which the ``rows`` (R,) have ``collected`` (R, heads, D) from the children of
        mask (R, C); zero for a parent without children."""
        weight = self.value.weight.view(NUM_HEADS, -1, self.dim)
        value = torch.einsum("rhd,hed->rhe", collected + scales[1], weight)
        messages = self.output(value.flatten(1)) * mask.any(1, keepdim=True)
        return torch.zeros_like(parents).index_copy(0, rows, messages.to(parents.dtype))

    def down(self, parents: Tensor, scales: Tensor) -> Tensor:
        """parents (R, D) -> messages to their children (R, D)."""
        if len(parents) < self.dim:
            return self.output(self.value(parents + scales[0]))
        return F.linear(parents + scales[0], self.output.weight @ self.value.weight)


class ParentChildSage(nn.Module):
    """GraphSAGE in place of attention: W_neigh mean(neighbours) + b + W_root h_v. The methods are those above; what
    a child receives of its own, W_root h_v, is left to the caller."""

    def __init__(self, dim: int):
        super().__init__()
        self.neighbour = nn.Linear(dim, dim)
        self.root = nn.Linear(dim, dim, bias=False)

    def ask(self, parents: Tensor, scales: Tensor) -> Tensor:
        """Nothing is asked for: (R, 1, 0)."""
        return parents.new_zeros(len(parents), 1, 0)

    def collect(self, asked: Tensor, children: Tensor, mask: Tensor) -> Tensor:
        """The mean of the real children: (R, 1, D)."""
        weights = mask / mask.sum(1, keepdim=True).clamp(min=1)
        return weights.to(children.dtype).unsqueeze(1) @ children

    def answer(self, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor, scales: Tensor) -> Tensor:
        means = torch.zeros_like(parents).index_copy(0, rows, collected.squeeze(1).to(parents.dtype))
        return self.neighbour(means) + self.root(parents)

    def down(self, parents: Tensor, scales: Tensor) -> Tensor:
        return self.neighbour(parents)
