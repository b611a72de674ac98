"""The released code's layer (``--variant released``): ``2 h_v + attention(v) + SAGE(v)``.

The attention is dense over all nodes of the other scale of the same modality: hierarchical edges are not used.
"""

import torch
from torch import Tensor, nn

from models.graph import NODE_TYPES, HierarchicalGraph
from models.message_passing import IntraScaleSage, Nodes, Sage

NUM_HEADS = 2
RELATIONS = ("image_up", "image_down", "text_up", "text_down")


class DenseScaleAttention(nn.Module):
    """Query and key projections per relation, then one multi-head attention shared by all, fed (q, k, k)."""

    def __init__(self, dim: int, xavier: bool):
        super().__init__()
        self.scales = nn.Embedding(2, dim)
        self.query = nn.ModuleDict({relation: nn.Linear(dim, dim) for relation in RELATIONS})
        self.key = nn.ModuleDict({relation: nn.Linear(dim, dim) for relation in RELATIONS})
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
        query takes row 1 and the key row 0.
        """
        if len(others) == 0:
            return torch.zeros_like(nodes)
        query_scale, key_scale = self.scales.weight if relation.endswith("up") else self.scales.weight.flip(0)
        query = self.query[relation](nodes + query_scale)
        key = self.key[relation](others + key_scale)
        return self.attention(query, key, key, need_weights=False)[0]


class ReleasedLayer(nn.Module):
    """One layer. ``unused_self`` is in the released checkpoints and takes part in nothing.

    xavier: the released CLIP model initialises its attention so, the CONCH one leaves PyTorch's defaults.
    """

    def __init__(self, dim: int, xavier: bool):
        super().__init__()
        self.intra = IntraScaleSage(dim)
        self.attention = DenseScaleAttention(dim, xavier)
        self.unused_self = nn.ModuleDict({node_type: Sage(dim) for node_type in NODE_TYPES})

    def forward(self, nodes: Nodes, graph: HierarchicalGraph) -> Nodes:
        high_image = nodes.high_image.flatten(0, 1)
        attention = Nodes(
            self.attention("image_up", nodes.low_image, high_image),
            self.attention("image_down", high_image, nodes.low_image).view_as(nodes.high_image),
            self.attention("text_up", nodes.low_text, nodes.high_text),
            self.attention("text_down", nodes.high_text, nodes.low_text),
        )
        terms = zip(nodes, attention, self.intra(nodes, graph), strict=True)
        return Nodes(*(2 * node + attended + sage for node, attended, sage in terms))
