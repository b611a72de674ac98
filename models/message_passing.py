"""One layer of message passing over the hierarchical heterogeneous graph: ``h_v <- SAGE(v) + (h_v + MSA(v))``.

It is written for each kind of node by itself, so that the children, sixteen times as many as all else, are worked on
in blocks and where they are needed (models/network.py). Sums over the few texts and over parents are formed on these
and broadcast; one product of the children's size is left.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graph import NODE_TYPES
from models.hierarchical_attention import ParentChildAttention, ParentChildSage


def shares(adjacency: Tensor, dtype: torch.dtype) -> Tensor:
    """Edges as weights of a mean over neighbours: (..., N, M) bool -> rows of sum 1, or 0 without neighbours."""
    edges = adjacency.to(dtype)
    return edges / edges.sum(-1, keepdim=True).clamp(min=1)


class Sage(nn.Module):
    """GraphSAGE with mean aggregation over one directed relation: W_neigh mean(neighbours) + b + W_root h_v."""

    def __init__(self, dim: int):
        super().__init__()
        self.neighbour = nn.Linear(dim, dim)
        self.root = nn.Linear(dim, dim, bias=False)

    def forward(self, nodes: Tensor, neighbours: Tensor, adjacency: Tensor) -> Tensor:
        """nodes (N, D), neighbours (M, D), adjacency (N, M) bool -> (N, D).

        The smaller side is projected: the neighbours before averaging, or their means after it.
        """
        mean = shares(adjacency, nodes.dtype)
        if len(neighbours) < len(nodes):
            return mean @ F.linear(neighbours, self.neighbour.weight) + self.neighbour.bias + self.root(nodes)
        return self.update(nodes, mean @ neighbours)

    def update(self, nodes: Tensor, means: Tensor) -> Tensor:
        """nodes and the means of their neighbours, (N, D) -> (N, D)."""
        return self.neighbour(means) + self.root(nodes)


class IntraScaleSage(nn.Module):
    """The four image-text relations; each is named by the node type that receives."""

    def __init__(self, dim: int):
        super().__init__()
        self.relations = nn.ModuleDict({node_type: Sage(dim) for node_type in NODE_TYPES})

    def __getitem__(self, node_type: str) -> Sage:
        return cast(Sage, self.relations[node_type])


class HierarchicalMessages(nn.Module):
    """The four parent-child relations: image and text, up and down.

    aggregator: "msa"; "maa" (no scale embeddings); "saa" (projections shared by all relations); "attention" (neither);
    "sage". direction: "both", "up", "down" or "none".
    """

    def __init__(self, dim: int, aggregator: str = "msa", direction: str = "both"):
        super().__init__()
        directions = {"both": ("up", "down"), "up": ("up",), "down": ("down",), "none": ()}[direction]
        self.relations = nn.ModuleDict()
        self.scales: Tensor
        with_query = "up" in directions
        shared = ParentChildAttention(dim, with_query) if aggregator in ("saa", "attention") and directions else None
        for modality in ("image", "text"):
            for way in directions:
                if aggregator == "sage":
                    self.relations[f"{modality}_{way}"] = ParentChildSage(dim)
                else:
                    self.relations[f"{modality}_{way}"] = shared or ParentChildAttention(dim, with_query=way == "up")
        with_scales = aggregator in ("msa", "saa") and bool(directions)
        if with_scales:
            self.scales = nn.Parameter(nn.init.xavier_normal_(torch.empty(2, dim)))
        else:
            self.register_buffer("scales", torch.zeros(2, dim), persistent=False)

    def __getitem__(self, relation: str) -> ParentChildAttention | ParentChildSage | None:
        """The aggregator of "image_up", "image_down", "text_up" or "text_down"; None where no messages go that way."""
        return (
            cast(ParentChildAttention | ParentChildSage, self.relations[relation])
            if relation in self.relations
            else None
        )

    def ask(self, modality: str, parents: Tensor) -> Tensor:
        """parents (R, D) -> (R, heads, D), the first step upwards (models/hierarchical_attention.py)."""
        up = self[f"{modality}_up"]
        return parents.new_zeros(len(parents), 0, 0) if up is None else up.ask(parents, self.scales)

    def collect(self, modality: str, asked: Tensor, children: Tensor, mask: Tensor) -> Tensor:
        """children (R, C, D), mask (R, C) bool -> (R, heads, D)."""
        up = self[f"{modality}_up"]
        return asked if up is None else up.collect(asked, children, mask)

    def answer(self, modality: str, parents: Tensor, collected: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """Messages to parents (P, D), of which ``rows`` (R,) have collected, each from its mask (R, C) of children."""
        up = self[f"{modality}_up"]
        return torch.zeros_like(parents) if up is None else up.answer(parents, collected, rows, mask, self.scales)

    def down(self, modality: str, parents: Tensor) -> Tensor:
        """parents (R, D) -> messages to their children (R, D), without ``own_weight``."""
        down = self[f"{modality}_down"]
        return torch.zeros_like(parents) if down is None else down.down(parents, self.scales)

    def own_weight(self, modality: str) -> Tensor | None:
        """(D, D): what a child's own features add to its message from above, or None."""
        down = self[f"{modality}_down"]
        return down.root.weight if isinstance(down, ParentChildSage) else None


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


class HierarchicalLayer(nn.Module):
    """One layer: ``h_v <- SAGE(v) + (h_v + MSA(v))``, for texts, parents and children apart."""

    def __init__(self, dim: int, aggregator: str = "msa", direction: str = "both"):
        super().__init__()
        self.intra = IntraScaleSage(dim)
        self.hierarchy = HierarchicalMessages(dim, aggregator, direction)

    def texts(self, low: Tensor, high: Tensor, low_means: Tensor, high_means: Tensor) -> tuple[Tensor, Tensor]:
        """Texts low (T, D) and high (T*S, D) with the means of their patches -> the same, updated."""
        tree = high.view(len(low), -1, high.shape[-1])
        every = torch.ones(tree.shape[:2], dtype=torch.bool, device=high.device)
        collected = self.hierarchy.collect("text", self.hierarchy.ask("text", low), tree, every)
        up = self.hierarchy.answer("text", low, collected, torch.arange(len(low), device=low.device), every)
        down = self.hierarchy.down("text", low).repeat_interleave(tree.shape[1], dim=0)
        own = self.hierarchy.own_weight("text")
        if own is not None:
            down = down + F.linear(high, own)
        return (
            self.intra["low_text"].update(low, low_means) + (low + up),
            self.intra["high_text"].update(high, high_means) + (high + down),
        )

    def parents(
        self, parents: Tensor, low_text: Tensor, keep: Tensor, collected: Tensor, rows: Tensor, mask: Tensor
    ) -> Tensor:
        """low_image nodes (P, D), of which ``rows`` (R,) have ``collected`` (R, heads, D) from the children of mask
        (R, C) -> the same, updated. keep: (P, T) bool, edges to the texts low_text (T, D)."""
        up = self.hierarchy.answer("image", parents, collected, rows, mask)
        return self.intra["low_image"](parents, low_text, keep) + (parents + up)

    def child_update(self, parents: Tensor, high_text: Tensor) -> ChildUpdate:
        """The update of the children of parents (R, D), whose texts are high_text (T*S, D)."""
        sage = self.intra["high_image"]
        weight = sage.root.weight + torch.eye(parents.shape[1], dtype=parents.dtype, device=parents.device)
        own = self.hierarchy.own_weight("image")
        return ChildUpdate(
            (weight if own is None else weight + own).t().contiguous(),
            F.linear(high_text, sage.neighbour.weight),
            self.hierarchy.down("image", parents) + sage.neighbour.bias,
        )
