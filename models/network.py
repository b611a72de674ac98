"""Two layers of message passing as the paper builds them: GraphSAGE and modality-scale attention over one graph.

This is the method to be read; ``--graph_backend pyg`` runs it. models/blocked computes the same several times faster
and is the default, and both are made of the same weights (models/relations.py).

Sizes: N nodes of a type, E edges of a relation, D features, H heads. An edge list (2, E) holds the senders' rows above
the receivers', as in PyTorch Geometric.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import HeteroConv, MessagePassing, SAGEConv
from torch_geometric.utils import degree, softmax

from models.graph import Attention, HierarchicalGraph, Network, Propagated
from models.relations import LayerWeights, Perceptron, Sage, ScaleAttention
from utils.interface import Embeddings

EdgeType = tuple[str, str, str]  # sender, kind, receiver
Nodes = dict[str, Tensor]  # by node type, (N, D)
Edges = Mapping[EdgeType, Tensor]  # (2, E)

INTRA_SCALE: tuple[EdgeType, ...] = (
    ("low_text", "intra", "low_image"),
    ("high_text", "intra", "high_image"),
    ("low_image", "intra", "low_text"),
    ("high_image", "intra", "high_text"),
)
HIERARCHY: dict[str, EdgeType] = {
    "image_up": ("high_image", "hierarchy", "low_image"),
    "image_down": ("low_image", "hierarchy", "high_image"),
    "text_up": ("high_text", "hierarchy", "low_text"),
    "text_down": ("low_text", "hierarchy", "high_text"),
}


class GraphSage(SAGEConv):
    """``W_neigh mean(neighbours) + b + W_root h_v`` with the weights given: (senders, receivers), edges -> (N, D)."""

    def __init__(self, weights: Sage):
        dim = weights.root.in_features
        with torch.device("meta"):  # no weights of its own
            super().__init__(dim, dim)
        self.lin_l, self.lin_r = weights.neighbour, weights.root


class ModalityScaleAttention(MessagePassing):
    """A node v attends to its neighbours u along one parent-child relation, in H heads that W_o joins:

        a_u = softmax over u of (W_q (h_v + s_v)) (W_k (h_u + s_u)) / sqrt(D / H)
        MSA(v) = W_o sum over u of a_u W_v (h_u + s_u)

    A node without neighbours receives nothing. Downwards a child has one parent, whose weight is 1, so that no query
    or key is needed.
    """

    def __init__(self, weights: ScaleAttention):
        super().__init__(aggr="sum", node_dim=0)
        self.weights = weights

    def forward(self, senders: Tensor, receivers: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes with the embeddings of their scales added, and edges -> messages (N, D), attention (E, H)."""
        part = self.weights
        value = self._heads(part.value(senders))
        attention = value.new_ones(edges.shape[1], part.num_heads)
        if part.query is not None and part.key is not None:
            sender, receiver = edges
            query, key = self._heads(part.query(receivers)), self._heads(part.key(senders))
            scores = (query[receiver] * key[sender]).sum(-1) / key.shape[-1] ** 0.5  # (E, H)
            attention = softmax(scores, receiver, num_nodes=len(receivers))
        size = len(senders), len(receivers)
        mixed = self.propagate(edges, size=size, value=value, attention=attention)  # (N, H, D / H)
        return part.output(mixed.flatten(1)), attention

    def message(self, value_j: Tensor, attention: Tensor) -> Tensor:
        """The senders' values (E, H, D / H), weighted."""
        return attention.unsqueeze(-1) * value_j

    def _heads(self, nodes: Tensor) -> Tensor:
        """(N, D) -> (N, H, D / H)."""
        num_nodes, dim = nodes.shape
        return nodes.view(num_nodes, self.weights.num_heads, dim // self.weights.num_heads)


class HierarchicalSage(nn.Module):
    """GraphSAGE in place of the attention (``--hier_aggregator sage``): all neighbours weigh the same."""

    def __init__(self, weights: Sage):
        super().__init__()
        self.convolution = GraphSage(weights)

    def forward(self, senders: Tensor, receivers: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """-> messages (N, D), what each edge weighs (E, 1)."""
        share = 1 / degree(edges[1], len(receivers), receivers.dtype).clamp(min=1)
        return self.convolution((senders, receivers), edges), share[edges[1]].unsqueeze(1)


class HierarchicalPerceptron(nn.Module):
    """A perceptron in place of the attention (``--hier_aggregator mlp``): no message, and no edge weighs anything."""

    def __init__(self, weights: Perceptron):
        super().__init__()
        self.weights = weights

    def forward(self, senders: Tensor, receivers: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """-> (N, D), zeros (E, 1)."""
        return self.weights(receivers), receivers.new_zeros(edges.shape[1], 1)


class IntraScaleAttention(nn.Module):
    """``h_v + MSA(v)`` over the image-text relations in place of GraphSAGE (``--intra_aggregator attention``)."""

    def __init__(self, relations: nn.ModuleDict):
        super().__init__()
        self.attention = nn.ModuleDict({name: ModalityScaleAttention(part) for name, part in relations.items()})

    def forward(self, nodes: Nodes, edges: Edges) -> Nodes:
        """-> the nodes, updated."""
        updated = {}
        for sender, _, receiver in INTRA_SCALE:
            messages, _ = self.attention[receiver](nodes[sender], nodes[receiver], edges[sender, "intra", receiver])
            updated[receiver] = nodes[receiver] + messages
        return updated


class IntraScalePerceptrons(nn.Module):
    """A perceptron for each node type in place of GraphSAGE (``--intra_aggregator mlp``)."""

    def __init__(self, relations: nn.ModuleDict):
        super().__init__()
        self.relations = relations

    def forward(self, nodes: Nodes, edges: Edges) -> Nodes:
        """-> the nodes, updated; the edges have no part in it."""
        return {name: perceptron(nodes[name]) for name, perceptron in self.relations.items()}


class HeteroLayer(LayerWeights):
    """``h_v <- SAGE(v) + (h_v + MSA(v))`` for all nodes."""

    def __init__(self, dim: int, aggregator: str = "msa", direction: str = "both", intra_aggregator: str = "graph"):
        super().__init__(dim, aggregator, direction, intra_aggregator)
        if intra_aggregator == "graph":
            self.sage = HeteroConv({edge_type: GraphSage(self.intra[edge_type[-1]]) for edge_type in INTRA_SCALE})
        else:
            kind = IntraScaleAttention if intra_aggregator == "attention" else IntraScalePerceptrons
            self.sage = kind(self.intra.relations)
        self.msa = nn.ModuleDict()
        kinds = {Sage: HierarchicalSage, ScaleAttention: ModalityScaleAttention, Perceptron: HierarchicalPerceptron}
        for relation, weights in self.hierarchy.relations.items():
            self.msa[relation] = kinds[type(weights)](weights)

    def forward(self, nodes: Nodes, edges: Edges) -> tuple[Nodes, dict[str, Tensor]]:
        """-> the nodes, updated, and by relation what each of its edges weighs (E, H)."""
        updated = self.sage(nodes, edges)  # SAGE(v)
        if self.hierarchy.keeps_nodes:
            updated = {name: updated[name] + h for name, h in nodes.items()}
        low, high = self.hierarchy.scales
        scaled = {name: h + (low if name.startswith("low") else high) for name, h in nodes.items()}  # h_v + s_v
        attention = {}
        for relation, msa in self.msa.items():
            sender, _, receiver = edge_type = HIERARCHY[relation]
            messages, attention[relation] = msa(scaled[sender], scaled[receiver], edges[edge_type])
            updated[receiver] = updated[receiver] + messages  # MSA(v)
        return updated, attention


class GraphNetwork(Network):
    """Two layers, with ReLU and optional dropout between them, and unit vectors at the end."""

    def __init__(self, layers: Sequence[HeteroLayer], dropout: float = 0.0):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, graph: HierarchicalGraph, attention: bool = False) -> Propagated:
        data = graph.to_hetero_data()
        nodes, weights = self.propagate(data.x_dict, data.edge_index_dict)
        embeddings = Embeddings(
            nodes["low_image"],
            _by_parent(nodes["high_image"], graph.child_mask),
            nodes["low_text"],
            nodes["high_text"],
            graph.retained,
            graph.child_mask,
        )
        return Propagated(embeddings, embeddings, _low_to_high(graph, weights) if attention else None)

    def propagate(self, nodes: Nodes, edges: Edges) -> tuple[Nodes, list[dict[str, Tensor]]]:
        """-> unit vectors by node type (N, D), and each layer's attention by relation (E, H)."""
        first, last = self.layers
        nodes, first_attention = first(nodes, edges)
        nodes = {name: self.dropout(h.relu()) for name, h in nodes.items()}
        nodes, last_attention = last(nodes, edges)
        return {name: F.normalize(h, dim=-1) for name, h in nodes.items()}, [first_attention, last_attention]


def _by_parent(children: Tensor, mask: Tensor) -> Tensor:
    """Children (N, ...) into their slots of the mask (R, C), row by row: (R, C, ...), 0 in the empty ones."""
    slots = children.new_zeros(*mask.shape, *children.shape[1:])
    return slots.index_put(mask.nonzero(as_tuple=True), children)


def _low_to_high(graph: HierarchicalGraph, weights: list[dict[str, Tensor]]) -> Attention:
    """The edges upwards stand in the order of the children."""
    image = [_by_parent(layer["image_up"].mean(1), graph.child_mask) for layer in weights if "image_up" in layer]
    text = [layer["text_up"].mean(1).view(-1, graph.num_subtexts) for layer in weights if "text_up" in layer]
    return Attention.of_layers(graph, image, text)
