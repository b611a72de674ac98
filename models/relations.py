"""The trained weights of message passing, relation by relation. Checkpoints carry these names.

Both ways of computing, models/network.py and models/blocked, are made of these weights.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from models.graph import NODE_TYPES


class Sage(nn.Module):
    """GraphSAGE with mean aggregation over one directed relation: W_neigh mean(neighbours) + b + W_root h_v."""

    def __init__(self, dim: int):
        super().__init__()
        self.neighbour = nn.Linear(dim, dim)
        self.root = nn.Linear(dim, dim, bias=False)

    def forward(self, nodes: Tensor, means: Tensor) -> Tensor:
        """nodes and the means of their neighbours, (N, D) -> (N, D)."""
        updated: Tensor = self.neighbour(means) + self.root(nodes)
        return updated


class Perceptron(nn.Module):
    """In place of messages (Table 13): W_2 relu(W_1 h_v + b_1) + b_2, of each node by itself."""

    def __init__(self, dim: int):
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, nodes: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        updated: Tensor = self.output(self.hidden(nodes).relu())
        return updated


class ScaleAttention(nn.Module):
    """Modality-scale attention (MSA) along one directed parent-child relation, two heads, no biases:
    q = W_q (h_v + s_v), k = W_k (h_u + s_u), v = W_v (h_u + s_u), heads joined by W_o.

    with_query: whether messages go from children to parents. A child has one parent, so its attention weight is 1 and
    there is neither W_q nor W_k where messages only go down.
    """

    num_heads = 2

    def __init__(self, dim: int, with_query: bool):
        super().__init__()
        self.dim = dim
        self.query = nn.Linear(dim, dim, bias=False) if with_query else None
        self.key = nn.Linear(dim, dim, bias=False) if with_query else None
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)


class IntraScale(nn.Module):
    """The four image-text relations; each is named by the node type that receives.

    aggregator: "graph" (GraphSAGE); "attention", as among the scales, without scale embeddings; "mlp".
    """

    def __init__(self, dim: int, aggregator: str = "graph"):
        super().__init__()
        kinds: dict[str, Callable[[], nn.Module]] = {
            "graph": lambda: Sage(dim),
            "attention": lambda: ScaleAttention(dim, with_query=True),
            "mlp": lambda: Perceptron(dim),
        }
        self.relations = nn.ModuleDict({node_type: kinds[aggregator]() for node_type in NODE_TYPES})

    def __getitem__(self, node_type: str) -> Sage:
        """The GraphSAGE of a relation."""
        return cast(Sage, self.relations[node_type])


class HierarchyWeights(nn.Module):
    """The parent-child relations: "image_up", "image_down", "text_up" and "text_down", or some of these.

    aggregator: "msa"; "maa" (no scale embeddings); "saa" (projections shared by all relations); "attention" (neither);
    "sage"; "mlp". direction: "both", "up", "down" or "none". scales: (2, D), the embeddings of the low and of the high
    scale. keeps_nodes: whether a node's update has the node itself as a term, as the attention's residual; that of
    "sage", "mlp" and "none" has not (paper, J.2 and J.3).
    """

    def __init__(self, dim: int, aggregator: str = "msa", direction: str = "both"):
        super().__init__()
        directions = {"both": ("up", "down"), "up": ("up",), "down": ("down",), "none": ()}[direction]
        self.relations = nn.ModuleDict()
        self.scales: Tensor
        with_query = "up" in directions
        self.keeps_nodes = bool(directions) and aggregator not in ("sage", "mlp")
        shared = ScaleAttention(dim, with_query) if aggregator in ("saa", "attention") and directions else None
        for modality in ("image", "text"):
            for way in directions:
                if aggregator in ("sage", "mlp"):
                    self.relations[f"{modality}_{way}"] = Sage(dim) if aggregator == "sage" else Perceptron(dim)
                else:
                    self.relations[f"{modality}_{way}"] = shared or ScaleAttention(dim, with_query=way == "up")
        with_scales = aggregator in ("msa", "saa") and bool(directions)
        if with_scales:
            self.scales = nn.Parameter(nn.init.xavier_normal_(torch.empty(2, dim)))
        else:
            self.register_buffer("scales", torch.zeros(2, dim), persistent=False)

    def __getitem__(self, relation: str) -> ScaleAttention | Sage | None:
        """The weights of a relation; None where no messages go that way."""
        return cast(ScaleAttention | Sage, self.relations[relation]) if relation in self.relations else None


class LayerWeights(nn.Module):
    """One layer's: ``h_v <- SAGE(v) + (h_v + MSA(v))``."""

    def __init__(self, dim: int, aggregator: str = "msa", direction: str = "both", intra_aggregator: str = "graph"):
        super().__init__()
        self.intra = IntraScale(dim, intra_aggregator)
        self.hierarchy = HierarchyWeights(dim, aggregator, direction)
