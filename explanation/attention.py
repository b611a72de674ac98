"""Watching a forward pass: the weights that parents give to their children, which the model itself never keeps."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.hierarchical_attention import ParentChildSage
from models.message_passing import HierarchicalLayer, HierarchicalMessages
from models.network import Network
from models.released.message_passing import NUM_HEADS, DenseScaleAttention, ReleasedLayer

PARENTS_AT_ONCE = 64


class AttentionWeights:
    """What was seen in each layer, a list of blocks: image (R, C) of the retained parents and their slots, 0 for an
    empty one; text (T, S) of low texts and their high texts. Means over the heads."""

    def __init__(self, num_layers: int):
        self.blocks: dict[str, list[list[Tensor]]] = {
            name: [[] for _ in range(num_layers)] for name in ("image", "text")
        }

    def layers(self, modality: str) -> list[Tensor]:
        """One tensor a layer; none of a model without messages upwards."""
        return [torch.cat(blocks) for blocks in self.blocks[modality] if blocks]


@contextmanager
def watched(network: Network, retained: Tensor) -> Iterator[AttentionWeights]:
    """``with watched(model.network, graph.retained) as weights: model(bag)``, without gradients.

    In the released variant a parent attends to the children of all parents; what is kept is the part that its own get.
    """
    weights = AttentionWeights(len(network.layers))
    with ExitStack() as undo:
        for index, layer in enumerate(network.layers):
            seen = {modality: layers[index] for modality, layers in weights.blocks.items()}
            if isinstance(layer, ReleasedLayer):
                undo.callback(_watch_dense(layer.attention, retained, seen).remove)
            else:
                messages = cast(HierarchicalLayer, layer).hierarchy
                _watch_messages(messages, seen)
                undo.callback(delattr, messages, "collect")
        yield weights


def _watch_messages(messages: HierarchicalMessages, seen: dict[str, list[Tensor]]) -> None:
    original = messages.collect

    def collect(modality: str, asked: Tensor, children: Tensor, mask: Tensor) -> Tensor:
        up = messages[f"{modality}_up"]
        if isinstance(up, ParentChildSage):
            seen[modality].append(mask / mask.sum(1, keepdim=True).clamp(min=1))
        elif up is not None:
            scores = (asked @ children.transpose(1, 2)).masked_fill(~mask.unsqueeze(1), float("-inf"))
            seen[modality].append(scores.softmax(-1).nan_to_num().mean(1))  # NaN: a parent without children
        return original(modality, asked, children, mask)

    messages.collect = collect  # type: ignore[method-assign]


def _watch_dense(attention: DenseScaleAttention, retained: Tensor, seen: dict[str, list[Tensor]]) -> RemovableHandle:
    def look(_: nn.Module, inputs: tuple[str, Tensor, Tensor], __: Tensor) -> None:
        relation, nodes, others = inputs
        modality, direction = relation.split("_")
        if direction == "up":
            parents = nodes[retained] if modality == "image" else nodes
            children = others.view(len(parents), -1, others.shape[-1])
            seen[modality].append(_own_share(attention, relation, parents, children))

    return attention.register_forward_hook(look)


def _own_share(attention: DenseScaleAttention, relation: str, parents: Tensor, children: Tensor) -> Tensor:
    """The weights of parents (R, D) over all children (R, C, D), each parent's own alone: (R, C).

    Scores are taken between the queries and the raw children; what the keys' biases and scale add is the same for all
    children of a query and drops out.
    """
    multi_head = attention.attention
    (to_query, to_key, _), (query_bias, _, _) = multi_head.in_proj_weight.chunk(3), multi_head.in_proj_bias.chunk(3)
    query = F.linear(attention.query[relation](parents + attention.scales.weight[0]), to_query, query_bias)
    query = query.view(len(parents), NUM_HEADS, -1)
    key_weight = (to_key @ cast(nn.Linear, attention.key[relation]).weight).view(NUM_HEADS, query.shape[-1], -1)
    asked = torch.einsum("rhe,hed->rhd", query / query.shape[-1] ** 0.5, key_weight)
    own = (asked @ children.transpose(1, 2)).float()
    every = children.flatten(0, 1).t()
    totals = [(block @ every).float().logsumexp(-1) for block in asked.split(PARENTS_AT_ONCE)]
    return (own - torch.cat(totals).unsqueeze(-1)).exp().mean(1)
