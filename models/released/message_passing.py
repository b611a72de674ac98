"""The released code's message passing (``--variant released``): ``2 h_v + attention(v) + SAGE(v)``, two layers.

The attention is dense over all nodes of the other scale of the same modality: hierarchical edges are not used.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocked.blocked_network import Choose, unit
from models.blocked.messages import shares
from models.graph import NODE_TYPES, Attention, HierarchicalGraph, Network, Propagated
from models.relations import IntraScale, Sage
from utils.interface import Embeddings

NUM_HEADS = 2
PARENTS_AT_ONCE = 64  # whose weights over all children are held at one time
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
        """nodes (N, D) attend over all others (M > 0, D) -> (N, D), what ``output`` then projects.

        The scale rows are the released code's: upwards the query takes row 0 and the key row 1, downwards the
        query takes row 1 and the key row 0. Each pair of successive projections is applied as one; weights (N, M)
        are never kept. What shifts all keys alike drops out of the softmax, what shifts all values alike comes out
        of it as it is (``output``): neither is added to the M nodes.
        """
        query_scale, _ = self._scales(relation)
        (to_query, to_key, to_value), (query_bias, _, _) = self._parts()
        of_query, of_key = self.query[relation], self.key[relation]
        assert isinstance(of_query, nn.Linear) and isinstance(of_key, nn.Linear)
        query = F.linear(nodes, to_query @ of_query.weight, F.linear(of_query(query_scale), to_query, query_bias))
        key, value = (others @ (weight @ of_key.weight).t() for weight in (to_key, to_value))
        attended = F.scaled_dot_product_attention(_heads(query), _heads(key), _heads(value))
        return attended.transpose(1, 2).reshape(nodes.shape)

    def own_share(self, relation: str, parents: Tensor, children: Tensor) -> Tensor:
        """The weights that parents (R, D) give to all children (R, C, D), each parent's own alone, mean over the heads:
        (R, C).

        Scores are taken between the queries and the raw children; what the keys' biases and scale add is the same for
        all children of a query and drops out.
        """
        query_scale, _ = self._scales(relation)
        (to_query, to_key, _), (query_bias, _, _) = self._parts()
        query = F.linear(self.query[relation](parents + query_scale), to_query, query_bias)
        query = query.view(len(parents), NUM_HEADS, -1)
        key_weight = (to_key @ cast(nn.Linear, self.key[relation]).weight).view(NUM_HEADS, query.shape[-1], -1)
        asked = torch.einsum("rhe,hed->rhd", query / query.shape[-1] ** 0.5, key_weight)
        own = (asked @ children.transpose(1, 2)).float()
        every = children.flatten(0, 1).t()
        totals = [(block @ every).float().logsumexp(-1) for block in torch.split(asked, PARENTS_AT_ONCE)]
        return (own - torch.cat(totals).unsqueeze(-1)).exp().mean(1)

    def output(self, relation: str) -> tuple[Tensor, Tensor]:
        """Weight (D, D) and bias (D,) of the projection of what was attended to."""
        _, key_scale = self._scales(relation)
        (_, _, to_value), (_, _, value_bias) = self._parts()
        value = F.linear(self.key[relation](key_scale), to_value, value_bias)
        return self.attention.out_proj.weight, self.attention.out_proj(value)

    def _scales(self, relation: str) -> Tensor:
        """Those of the query and of the key: (2, D)."""
        return self.scales.weight if relation.endswith("up") else self.scales.weight.flip(0)

    def _parts(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Weights and biases of the multi-head attention's query, key and value."""
        return self.attention.in_proj_weight.chunk(3), self.attention.in_proj_bias.chunk(3)


def _heads(nodes: Tensor) -> Tensor:
    """(N, D) -> (1, heads, N, D / heads)."""
    return nodes.view(1, len(nodes), NUM_HEADS, nodes.shape[1] // NUM_HEADS).transpose(1, 2)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """In place, in the total's precision."""
    return total.addmm_(left.to(total.dtype), right.to(total.dtype))


class ReleasedLayer(nn.Module):
    """One layer. ``unused_self`` is in the released checkpoints and takes part in nothing.

    xavier: the released CLIP model initialises its attention so, the CONCH one leaves PyTorch's defaults.
    """

    def __init__(self, dim: int, xavier: bool):
        super().__init__()
        self.intra = IntraScale(dim)
        self.attention = DenseScaleAttention(dim, xavier)
        self.unused_self = nn.ModuleDict({node_type: Sage(dim) for node_type in NODE_TYPES})

    def update(
        self, node_type: str, nodes: dict[str, Tensor], keep: Tensor, rows: Tensor | slice = slice(None)
    ) -> Tensor:
        """The nodes of a type, or its ``rows`` alone, updated from all nodes by type (N, D).

        keep: (N, M) bool, edges to the M nodes of the other modality at the same scale. No attention where there is
        nobody to attend to.
        """
        relation, sage = RELATIONS[node_type], self.intra[node_type]
        own, others, neighbours = nodes[node_type][rows], nodes[ATTENDED[node_type]], nodes[NEIGHBOURS[node_type]]
        means = shares(keep[rows], own.dtype)
        twice = sage.root.weight + 2 * torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
        weight, bias = self.attention.output(relation)
        some = len(others) > 0
        updated = F.linear(own, twice, sage.neighbour.bias + bias if some else sage.neighbour.bias).to(own.dtype)
        if some:
            _add_product(updated, self.attention(relation, own, others), weight.t())
        if len(neighbours) < len(own):
            return _add_product(updated, means, F.linear(neighbours, sage.neighbour.weight))
        return _add_product(updated, means @ neighbours, sage.neighbour.weight.t())


class ReleasedNetwork(Network):
    """Two layers, with ReLU between them, and unit vectors at the end. choose: the images that the logits depend on."""

    def __init__(self, layers: Sequence[ReleasedLayer], choose: Choose):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.choose = choose

    def forward(self, graph: HierarchicalGraph, attention: bool = False) -> Propagated:
        """The last layer is computed for all nodes without gradients, and again with gradients for those that the
        logits need."""
        first, last = cast(tuple[ReleasedLayer, ReleasedLayer], self.layers)
        keep_high = graph.keep_high.flatten(0, 1)
        keep = {
            "low_image": graph.keep_low, "high_image": keep_high,
            "low_text": graph.keep_low.t(), "high_text": keep_high.t(),
        }  # fmt: skip
        features = {
            "low_image": graph.low_image, "high_image": graph.high_image.flatten(0, 1),
            "low_text": graph.low_text, "high_text": graph.high_text,
        }  # fmt: skip
        nodes = {name: F.relu(first.update(name, features, keep[name]), inplace=True) for name in NODE_TYPES}
        with torch.no_grad():
            final = {name: unit(last.update(name, nodes, keep[name])) for name in NODE_TYPES}
            final["high_image"] = final["high_image"].view(graph.high_image.shape)
            embeddings = Embeddings(**final, retained=graph.retained, child_mask=graph.child_mask)
            weights = self._own_children(graph, features, nodes) if attention else None
        if not torch.is_grad_enabled():
            return Propagated(embeddings, embeddings, weights)
        chosen = self.choose(embeddings)
        rows = {"low_image": chosen.low, "high_image": chosen.high}
        trained = {name: unit(last.update(name, nodes, keep[name], rows.get(name, slice(None)))) for name in NODE_TYPES}
        trained["high_image"] = trained["high_image"].unsqueeze(1)
        alone = torch.ones_like(chosen.high, dtype=torch.bool).unsqueeze(1)
        trained_nodes = Embeddings(**trained, retained=torch.arange(len(alone)), child_mask=alone)
        return Propagated(embeddings, trained_nodes, weights)

    def _own_children(self, graph: HierarchicalGraph, *inputs: dict[str, Tensor]) -> Attention:
        """A parent attends to the children of all parents; of its weights those of its own, for each layer's inputs."""
        shape = graph.high_image.shape
        image, text = [], []
        for layer, nodes in zip(cast(Sequence[ReleasedLayer], self.layers), inputs, strict=True):
            parents, tree = (
                nodes["low_image"][graph.retained],
                nodes["high_text"].view(len(graph.low_text), -1, shape[-1]),
            )
            image.append(layer.attention.own_share("image_up", parents, nodes["high_image"].view(shape)))
            text.append(layer.attention.own_share("text_up", nodes["low_text"], tree))
        return Attention.of_layers(graph, image, text)
