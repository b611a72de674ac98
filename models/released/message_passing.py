"""The released code's message passing (``--variant released``): ``2 h_v + attention(v) + SAGE(v)``, two layers.

The attention is dense over all nodes of the other scale of the same modality: hierarchical edges are not used.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graph import NODE_TYPES, HierarchicalGraph
from models.message_passing import IntraScaleSage, Sage
from models.network import Choose, Network, unit
from utils.interface import Embeddings

NUM_HEADS = 2
# of each node type: who it attends to and by which relation, and who its text or image neighbours are
ATTENDED = {"low_image": "high_image", "high_image": "low_image", "low_text": "high_text", "high_text": "low_text"}
RELATIONS = {"low_image": "image_up", "high_image": "image_down", "low_text": "text_up", "high_text": "text_down"}
NEIGHBOURS = {"low_image": "low_text", "high_image": "high_text", "low_text": "low_image", "high_text": "high_image"}


class DenseScaleAttention(nn.Module):
    """Query and key projections per relation, then one multi-head attention shared by all, fed (q, k, k)."""

    def __init__(self, dim: int, xavier: bool):
        super().__init__()
        self.scales = nn.Embedding(2, dim)
        self.query = nn.ModuleDict({relation: nn.Linear(dim, dim) for relation in RELATIONS.values()})
        self.key = nn.ModuleDict({relation: nn.Linear(dim, dim) for relation in RELATIONS.values()})
        self.attention = nn.MultiheadAttention(dim, NUM_HEADS)
        if xavier:
            nn.init.xavier_normal_(self.scales.weight)
            for name, parameter in [*self.query.named_parameters(), *self.key.named_parameters()]:
                if name.endswith("weight"):
                    nn.init.xavier_normal_(parameter)
                else:
                    nn.init.zeros_(parameter)

    def forward(self, relation: str, nodes: Tensor, others: Tensor) -> Tensor:
        """nodes (N, D) attend over all others (M, D) -> (N, D); zero where there are none.

        The scale rows are the released code's: upwards the query takes row 0 and the key row 1, downwards the
        query takes row 1 and the key row 0. Each pair of successive projections is applied as one; weights (N, M)
        are never kept.
        """
        if len(others) == 0:
            return torch.zeros_like(nodes)
        query_scale, key_scale = self.scales.weight if relation.endswith("up") else self.scales.weight.flip(0)
        to_query, to_key, to_value = zip(
            self.attention.in_proj_weight.chunk(3), self.attention.in_proj_bias.chunk(3), strict=True
        )
        query = _project(nodes, query_scale, self.query[relation], *to_query)
        key = _project(others, key_scale, self.key[relation], *to_key)
        value = _project(others, key_scale, self.key[relation], *to_value)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.attention.out_proj(attended.transpose(1, 2).reshape(nodes.shape))


def _project(nodes: Tensor, scale: Tensor, first: nn.Module, then_weight: Tensor, then_bias: Tensor) -> Tensor:
    """Two projections of nodes + scale (N, D) as one product, in heads: (1, heads, N, D / heads)."""
    assert isinstance(first, nn.Linear)
    projected = F.linear(nodes, then_weight @ first.weight, F.linear(first(scale), then_weight, then_bias))
    return projected.view(1, len(nodes), NUM_HEADS, nodes.shape[1] // NUM_HEADS).transpose(1, 2)


class ReleasedLayer(nn.Module):
    """One layer. ``unused_self`` is in the released checkpoints and takes part in nothing.

    xavier: the released CLIP model initialises its attention so, the CONCH one leaves PyTorch's defaults.
    """

    def __init__(self, dim: int, xavier: bool):
        super().__init__()
        self.intra = IntraScaleSage(dim)
        self.attention = DenseScaleAttention(dim, xavier)
        self.unused_self = nn.ModuleDict({node_type: Sage(dim) for node_type in NODE_TYPES})

    def update(
        self, node_type: str, nodes: dict[str, Tensor], keep: Tensor, rows: Tensor | slice = slice(None)
    ) -> Tensor:
        """The nodes of a type, or its ``rows`` alone, updated from all nodes by type (N, D).

        keep: (N, M) bool, edges to the M nodes of the other modality at the same scale.
        """
        own = nodes[node_type][rows]
        attended = self.attention(RELATIONS[node_type], own, nodes[ATTENDED[node_type]])
        return 2 * own + attended + self.intra[node_type](own, nodes[NEIGHBOURS[node_type]], keep[rows])


class ReleasedNetwork(Network):
    """Two layers, with ReLU between them, and unit vectors at the end."""

    def __init__(self, layers: Sequence[ReleasedLayer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, graph: HierarchicalGraph, choose: Choose) -> tuple[Embeddings, Embeddings]:
        """The last layer is computed for all nodes without gradients, and again with gradients for those that the
        logits need."""
        first, last = cast(tuple[ReleasedLayer, ReleasedLayer], self.layers)
        keep_high = graph.keep_high.flatten(0, 1)
        keep = {
            "low_image": graph.keep_low, "high_image": keep_high,
            "low_text": graph.keep_low.t(), "high_text": keep_high.t(),
        }  # fmt: skip
        nodes = {
            "low_image": graph.low_image, "high_image": graph.high_image.flatten(0, 1),
            "low_text": graph.low_text, "high_text": graph.high_text,
        }  # fmt: skip
        nodes = {name: F.relu(first.update(name, nodes, keep[name])) for name in NODE_TYPES}
        with torch.no_grad():
            final = {name: unit(last.update(name, nodes, keep[name])) for name in NODE_TYPES}
            final["high_image"] = final["high_image"].view(graph.high_image.shape)
            embeddings = Embeddings(**final, retained=graph.retained, child_mask=graph.child_mask)
        if not torch.is_grad_enabled():
            return embeddings, embeddings
        chosen = choose(embeddings)
        rows = {"low_image": chosen.low, "high_image": chosen.high}
        trained = {name: unit(last.update(name, nodes, keep[name], rows.get(name, slice(None)))) for name in NODE_TYPES}
        trained["high_image"] = trained["high_image"].unsqueeze(1)
        alone = torch.ones_like(chosen.high, dtype=torch.bool).unsqueeze(1)
        return embeddings, Embeddings(**trained, retained=torch.arange(len(alone)), child_mask=alone)
