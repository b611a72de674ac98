"""A frozen causal text transformer that computes what texts have in common once.

Under a causal mask a token's activations depend on the tokens up to it alone, so texts that begin alike share them: the
learnable context in front of all prompts is worked on once, not once a prompt, and padding not at all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrefixTree(nn.Module):
    """The distinct prefixes of N token sequences, U in all; each is a node of the tree.

    token_ids: (N, L) int64. lengths: (N,), the places in use. groups: (N,), sequences share prefixes within a group
    only; by default none do.

    nodes: (N, L) int64, the node of each place (0 behind a sequence's end). places: (U,) int64, one place of each node
    in (N*L,). last: (N,) int64, the place of each sequence's last token in (L,).
    """

    nodes: Tensor
    places: Tensor
    last: Tensor

    def __init__(self, token_ids: Tensor, lengths: Tensor, groups: Tensor | None = None):
        super().__init__()
        num_sequences, width = token_ids.shape
        roots = range(num_sequences) if groups is None else groups.tolist()
        # a node (or, below zero, a group) and the next token -> the next node
        children: dict[tuple[int, int], int] = {}
        places: list[int] = []
        nodes = torch.zeros(num_sequences, width, dtype=torch.long)
        for row, (ids, length, root) in enumerate(zip(token_ids.tolist(), lengths.tolist(), roots, strict=True)):
            node = -1 - root
            for column in range(length):
                node = children.setdefault((node, ids[column]), len(children))
                if node == len(places):
                    places.append(row * width + column)
                nodes[row, column] = node
        device = token_ids.device
        self.register_buffer("nodes", nodes.to(device), persistent=False)
        self.register_buffer("places", torch.tensor(places, device=device), persistent=False)
        self.register_buffer("last", (lengths - 1).to(device), persistent=False)


class Block(NamedTuple):
    """A pre-norm transformer block in parts. attend: (U, W) -> queries, keys and values, each (U, W)."""

    norm1: Callable[[Tensor], Tensor]
    attend: Callable[[Tensor], Sequence[Tensor]]
    project: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


def last_states(
    blocks: Sequence[Block], embeddings: Tensor, tree: PrefixTree, num_heads: int, mask: Tensor | None = None
) -> Tensor:
    """The last block's output at each sequence's last token: (N, W).

    embeddings: (N, L, W) with positions, the same wherever the tree has one node. mask: (N, 1, L, L) bool, True where
    a place sees another, in place of the plain causal mask; it must be causal as well.
    """
    num_sequences, length, width = embeddings.shape
    rows = torch.arange(num_sequences, device=embeddings.device)
    x = embeddings.flatten(0, 1)[tree.places]
    for block in blocks:
        is_last = block is blocks[-1]
        query, key, value = (
            part[tree.nodes].view(num_sequences, length, num_heads, -1).transpose(1, 2)
            for part in block.attend(block.norm1(x))
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        attended = attended.transpose(1, 2).reshape(num_sequences, length, width)
        if is_last:
            x, attended = x[tree.nodes[rows, tree.last]], attended[rows, tree.last]
        else:
            attended = attended.flatten(0, 1)[tree.places]
        x = x + block.project(attended)
        x = x + block.mlp(block.norm2(x))
    return x


def first_position(token_ids: Tensor, token: int) -> Tensor:
    """Index of the first ``token`` in each row: (N, L) -> (N,)."""
    return (token_ids == token).int().argmax(dim=1)
