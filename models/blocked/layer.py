"""One layer of message passing over the hierarchical heterogeneous graph: ``h_v <- SAGE(v) + (h_v + MSA(v))``.

It is written for each kind of node by itself, so that the children, sixteen times as many as all else, are worked on
in blocks and where they are needed (models/blocked/blocked_network.py). Sums over the few texts and over parents are
formed on these and broadcast; one product of the children's size is left.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blocked.messages import Upwards, downwards, own_weight, shares, upwards
from models.relations import LayerWeights, Sage


def sage(weights: Sage, nodes: Tensor, neighbours: Tensor, adjacency: Tensor) -> Tensor:
    """nodes (N, D), neighbours (M, D), adjacency (N, M) bool -> (N, D).

    The smaller side is projected: the neighbours before averaging, or their means after it.
    """
    mean = shares(adjacency, nodes.dtype)
    updated: Tensor
    if len(neighbours) < len(nodes):
        updated = mean @ F.linear(neighbours, weights.neighbour.weight) + weights.neighbour.bias + weights.root(nodes)
    else:
        updated = weights(nodes, mean @ neighbours)
    return updated


class ChildUpdate(NamedTuple):
    """A layer's update of the children, ``weight h + mean(texts) + parent``: what all blocks of children share.

    weight (D, D), from and to, so that it is multiplied as it lies in memory; texts (T*S, D), the high texts' messages;
    parents (R, D), a message to each parent's children.
    """

    weight: Tensor
    texts: Tensor
    parents: Tensor

    def __call__(self, children: Tensor, text_shares: Tensor, rows: slice | Tensor) -> Tensor:
        """children (B, C, D), text_shares (B, C, T*S), of the parents ``rows`` -> (B, C, D)."""
        received = torch.mm(children.flatten(0, 1), self.weight)
        received.addmm_(text_shares.flatten(0, 1).to(received.dtype), self.texts.to(received.dtype))
        updated = received.view(children.shape)
        updated += self.parents[rows].unsqueeze(1)
        return updated


class BlockedLayer(LayerWeights):
    """One layer: ``h_v <- SAGE(v) + (h_v + MSA(v))``, for texts, parents and children apart."""

    @property
    def from_children(self) -> Upwards:
        """How parents of the image hierarchy gather from their children."""
        return upwards(self.hierarchy, "image")

    def _with(self, nodes: Tensor, messages: Tensor) -> Tensor:
        """The messages of the hierarchy, and the nodes themselves where these are a term of their update."""
        return nodes + messages if self.hierarchy.keeps_nodes else messages.to(nodes.dtype)

    def texts(self, low: Tensor, high: Tensor, low_means: Tensor, high_means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Texts low (T, D) and high (T*S, D) with the means of their patches -> the same, updated, and the weights that
        low texts give to their high texts (T, heads, S)."""
        tree = high.view(len(low), -1, high.shape[-1])
        every = torch.ones(tree.shape[:2], dtype=torch.bool, device=high.device)
        from_high = upwards(self.hierarchy, "text")
        collected, weights = from_high.collect(from_high.ask(low), tree, every)
        up = from_high.answer(low, collected, torch.arange(len(low), device=low.device), every)
        down = downwards(self.hierarchy, "text", low).repeat_interleave(tree.shape[1], dim=0)
        own = own_weight(self.hierarchy, "text")
        if own is not None:
            down = down + F.linear(high, own)
        return (
            self.intra["low_text"](low, low_means) + self._with(low, up),
            self.intra["high_text"](high, high_means) + self._with(high, down),
            weights,
        )

    def parents(
        self, parents: Tensor, low_text: Tensor, keep: Tensor, collected: Tensor, rows: Tensor, mask: Tensor
    ) -> Tensor:
        """low_image nodes (P, D), of which ``rows`` (R,) have ``collected`` (R, heads, D) from the children of mask
        (R, C) -> the same, updated. keep: (P, T) bool, edges to the texts low_text (T, D)."""
        up = self.from_children.answer(parents, collected, rows, mask)
        return sage(self.intra["low_image"], parents, low_text, keep) + self._with(parents, up)

    def child_update(self, parents: Tensor, high_text: Tensor) -> ChildUpdate:
        """The update of the children of parents (R, D), whose texts are high_text (T*S, D)."""
        part = self.intra["high_image"]
        weight = part.root.weight
        if self.hierarchy.keeps_nodes:
            weight = weight + torch.eye(parents.shape[1], dtype=parents.dtype, device=parents.device)
        own = own_weight(self.hierarchy, "image")
        return ChildUpdate(
            (weight if own is None else weight + own).t().contiguous(),
            F.linear(high_text, part.neighbour.weight),
            downwards(self.hierarchy, "image", parents) + part.neighbour.bias,
        )
