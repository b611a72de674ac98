"""Message passing over the hierarchical heterogeneous graph: two layers of
``h_v <- SAGE(v) + (h_v + MSA(v))``, ReLU after the first, unit length after the second."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graph import NODE_TYPES, HierarchicalGraph
from models.hierarchical_attention import ParentChildAttention, ParentChildSage
from utils.interface import Embeddings

DROPOUT = 0.25


class Nodes(NamedTuple):
    """low_image (P, D), high_image (R, C, D), low_text (T, D), high_text (T*S, D)."""

    low_image: Tensor
    high_image: Tensor
    low_text: Tensor
    high_text: Tensor


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
        edges = adjacency.to(nodes.dtype)
        mean = edges / edges.sum(1, keepdim=True).clamp(min=1)
        if len(neighbours) < len(nodes):
            received = mean @ F.linear(neighbours, self.neighbour.weight) + self.neighbour.bias
        else:
            received = self.neighbour(mean @ neighbours)
        return received + self.root(nodes)


class IntraScaleSage(nn.Module):
    """The four image-text relations; each is named by the node type that receives."""

    def __init__(self, dim: int):
        super().__init__()
        self.relations = nn.ModuleDict({node_type: Sage(dim) for node_type in NODE_TYPES})

    def forward(self, nodes: Nodes, graph: HierarchicalGraph) -> Nodes:
        high_image = nodes.high_image.flatten(0, 1)
        keep_high = graph.keep_high.flatten(0, 1)
        return Nodes(
            self.relations["low_image"](nodes.low_image, nodes.low_text, graph.keep_low),
            self.relations["high_image"](high_image, nodes.high_text, keep_high).view_as(nodes.high_image),
            self.relations["low_text"](nodes.low_text, nodes.low_image, graph.keep_low.t()),
            self.relations["high_text"](nodes.high_text, high_image, keep_high.t()),
        )


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

    def forward(self, nodes: Nodes, graph: HierarchicalGraph) -> Nodes:
        text_children = nodes.high_text.view(len(nodes.low_text), -1, nodes.high_text.shape[-1])
        text_mask = torch.ones(text_children.shape[:2], dtype=torch.bool, device=text_children.device)
        all_texts = torch.arange(len(nodes.low_text), device=text_children.device)
        low_image, high_image = self._along(
            "image", nodes.low_image, nodes.high_image, graph.child_mask, graph.retained
        )
        low_text, high_text = self._along("text", nodes.low_text, text_children, text_mask, all_texts)
        return Nodes(low_image, high_image, low_text, high_text.reshape(-1, high_text.shape[-1]))

    def _along(
        self, modality: str, parents: Tensor, children: Tensor, mask: Tensor, with_children: Tensor
    ) -> tuple[Tensor, Tensor]:
        up, down = torch.zeros_like(parents), torch.zeros_like(children)
        if f"{modality}_up" in self.relations:
            up = self._aggregator(f"{modality}_up").up(parents, children, mask, with_children, self.scales)
        if f"{modality}_down" in self.relations:
            sent = self._aggregator(f"{modality}_down").down(parents[with_children], children, self.scales)
            down = sent.expand_as(children)
        return up, down

    def _aggregator(self, relation: str) -> ParentChildAttention | ParentChildSage:
        return cast(ParentChildAttention | ParentChildSage, self.relations[relation])


class HierarchicalLayer(nn.Module):
    """One layer: ``h_v <- SAGE(v) + (h_v + MSA(v))`` for every node."""

    def __init__(self, dim: int, aggregator: str = "msa", direction: str = "both"):
        super().__init__()
        self.intra = IntraScaleSage(dim)
        self.hierarchy = HierarchicalMessages(dim, aggregator, direction)

    def forward(self, nodes: Nodes, graph: HierarchicalGraph) -> Nodes:
        terms = zip(self.intra(nodes, graph), nodes, self.hierarchy(nodes, graph), strict=True)
        return Nodes(*(sage + (node + attention) for sage, node, attention in terms))


class GraphNetwork(nn.Module):
    """The layers, with ReLU and optional dropout between them, and unit vectors at the end."""

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, graph: HierarchicalGraph) -> Embeddings:
        nodes = Nodes(graph.low_image, graph.high_image, graph.low_text, graph.high_text)
        for index, layer in enumerate(self.layers):
            if index > 0:
                nodes = Nodes(*(self.dropout(F.relu(node)) for node in nodes))
            nodes = layer(nodes, graph)
        unit = Nodes(*(F.normalize(node, dim=-1) for node in nodes))
        return Embeddings(*unit, graph.retained, graph.child_mask)
