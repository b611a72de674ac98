"""Two layers of message passing, from a slide's graph to its embeddings.

The children are passed over once, in blocks that stay in the cache: first layer, the sums that texts and parents need
of it, second layer. What is kept of that pass is the embeddings. The logits depend on a few images alone (each text's
best), so in training the second layer is computed again, with gradients, for these.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graph import HierarchicalGraph
from models.message_passing import HierarchicalLayer, shares
from utils.interface import Embeddings

DROPOUT = 0.25
EPS = 1e-12  # the least length that is divided by
BLOCK = {"cpu": 128}  # parents a block
LARGE_BLOCK = 4096  # on any other device


class Chosen(NamedTuple):
    """Images: rows of low_image (N,), and places of children (M,) in the flattened (R*C,)."""

    low: Tensor
    high: Tensor


Choose = Callable[[Embeddings], Chosen]


def unit(nodes: Tensor, out: Tensor | None = None) -> Tensor:
    """Nodes (..., D) divided by their lengths; multiplied by their inverses, which is faster."""
    inverse = torch.linalg.vector_norm(nodes, dim=-1, keepdim=True).clamp(min=EPS).reciprocal()
    return torch.mul(nodes, inverse, out=out)


def blocks(num_parents: int, device: torch.device) -> Iterator[slice]:
    size = BLOCK.get(device.type, LARGE_BLOCK)
    for start in range(0, max(num_parents, 1), size):
        yield slice(start, min(start + size, num_parents))


class _HiddenSums(torch.autograd.Function):
    """``sum over children r of edges[r, t] * hidden[r]``, with hidden = scale * alive * update(children): (T*S, D).

    The value comes from the pass over the children; the gradient is one more pass, in which hidden is not needed.
    Gradients go to the update's three parts; the children are frozen features.
    """

    @staticmethod
    def forward(
        ctx: Any, sums: Tensor, children: Tensor, edges: Tensor, text_shares: Tensor, alive: Tensor, scale: float,
        weight: Tensor, texts: Tensor, parents: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(children, edges, text_shares, alive, weight, texts)
        ctx.scale = scale
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        children, edges, text_shares, alive, weight, texts = ctx.saved_tensors
        to_weight, to_texts = children.new_zeros(weight.shape), children.new_zeros(texts.shape)
        to_parents = children.new_empty(len(children), children.shape[-1])
        gradient = gradient * ctx.scale
        for rows in blocks(len(children), children.device):
            to_hidden = (edges[rows] @ gradient).mul_(alive[rows])
            flat = to_hidden.flatten(0, 1)
            to_weight.addmm_(children[rows].flatten(0, 1).t(), flat)
            to_texts.addmm_(text_shares[rows].flatten(0, 1).t(), flat)
            torch.sum(to_hidden, 1, out=to_parents[rows])
        return None, None, None, None, None, None, to_weight, to_texts, to_parents


class _Propagation:
    """One slide's way through both layers. What the first layer gives is ``low_text``, ``high_text`` and ``parents``;
    its children are never kept, but updated again where they are needed."""

    def __init__(self, network: "GraphNetwork", graph: HierarchicalGraph, keep_graph: bool):
        first, self.last = cast(tuple[HierarchicalLayer, HierarchicalLayer], network.layers)
        self.activate, self.graph, self.keep_graph = network.activate, graph, keep_graph
        self.scale = 1 / (1 - network.dropout.p) if network.training else 1.0
        dtype = graph.low_image.dtype
        self.edges = graph.keep_high.to(dtype)
        self.text_shares = shares(graph.keep_high, dtype)
        num_children = self.edges.sum((0, 1)).clamp(min=1).unsqueeze(1)  # of each high text
        to_low_text = shares(graph.keep_low.t(), dtype)

        means = self.edges.flatten(0, 1).t() @ graph.high_image.flatten(0, 1) / num_children
        texts = first.texts(graph.low_text, graph.high_text, to_low_text @ graph.low_image, means)
        self.low_text, self.high_text = (self.activate(text) for text in texts)
        with_children = graph.low_image[graph.retained]
        self.first_update = first.child_update(with_children, graph.high_text)
        asked = first.hierarchy.ask("image", with_children)
        collected = first.hierarchy.collect("image", asked, graph.high_image, graph.child_mask)
        from_children = collected, graph.retained, graph.child_mask
        self.parents = self.activate(first.parents(graph.low_image, graph.low_text, graph.keep_low, *from_children))

        with_children = self.parents[graph.retained]
        self.last_update = self.last.child_update(with_children, self.high_text)
        self.asked = self.last.hierarchy.ask("image", with_children)
        sums = self._pass_over_children()
        image_means = to_low_text @ self.parents, sums / num_children
        low_text, high_text = self.last.texts(self.low_text, self.high_text, *image_means)
        self.final_texts = unit(low_text), unit(high_text)

    def _pass_over_children(self) -> Tensor:
        """Sets the children's final embeddings and what the last layer collects from them, without gradients.

        Returns the sums of the hidden features over each high text's children, (T*S, D), with gradients.
        """
        graph, needs_gradient = self.graph, torch.is_grad_enabled()
        has_place = not (self.keep_graph or needs_gradient)
        self.children = graph.high_image if has_place else torch.empty_like(graph.high_image)
        self.alive = torch.empty_like(graph.high_image, dtype=torch.bool) if needs_gradient else None
        sums, collected = torch.zeros_like(graph.high_text), []
        with torch.no_grad():
            for rows in blocks(len(graph.high_image), sums.device):
                hidden = self.activate(self.first_update(graph.high_image[rows], self.text_shares[rows], rows))
                sums.addmm_(self.edges[rows].flatten(0, 1).t(), hidden.flatten(0, 1).to(sums.dtype))
                collected.append(self.last.hierarchy.collect("image", self.asked[rows], hidden, graph.child_mask[rows]))
                unit(self.last_update(hidden, self.text_shares[rows], rows), out=self.children[rows])
                if self.alive is not None:
                    torch.gt(hidden, 0, out=self.alive[rows])
        self.collected = torch.cat(collected)
        if self.alive is None:
            return sums
        constants = graph.high_image, self.edges, self.text_shares, self.alive, self.scale
        return _HiddenSums.apply(sums, *constants, *self.first_update)

    def _hidden(self, rows: Tensor, slots: Tensor) -> Tensor:
        """The first layer's children in the given slots (N, k) of the parents ``rows`` (N,): (N, k, D)."""
        assert self.alive is not None
        place = rows.unsqueeze(1), slots
        updated = self.first_update(self.graph.high_image[place], self.text_shares[place], rows)
        return updated * (self.alive[place] * self.scale)

    def embeddings(self) -> Embeddings:
        """Of all nodes, without gradients."""
        graph = self.graph
        with torch.no_grad():
            from_children = self.collected, graph.retained, graph.child_mask
            parents = self.last.parents(self.parents, self.low_text, graph.keep_low, *from_children)
            low_text, high_text = (text.detach() for text in self.final_texts)
            return Embeddings(unit(parents), self.children, low_text, high_text, graph.retained, graph.child_mask)

    def chosen(self, choice: Chosen) -> Embeddings:
        """Of the chosen images and all texts, with gradients; each child stands by itself: (M, 1, D)."""
        graph, num_slots = self.graph, self.graph.child_mask.shape[1]
        rows, slots = choice.high // num_slots, (choice.high % num_slots).unsqueeze(1)
        text_shares = self.text_shares[rows.unsqueeze(1), slots]
        children = unit(self.last_update(self._hidden(rows, slots), text_shares, rows))

        row_of = torch.full((len(self.parents),), -1, device=rows.device)
        row_of[graph.retained] = torch.arange(len(graph.retained), device=rows.device)
        with_children = (row_of[choice.low] >= 0).nonzero().squeeze(1)
        rows = row_of[choice.low[with_children]]
        all_slots = torch.arange(num_slots, device=rows.device).expand(len(rows), -1)
        hidden = self._hidden(rows, all_slots)
        mask = graph.child_mask[rows]
        from_children = self.last.hierarchy.collect("image", self.asked[rows], hidden, mask), with_children, mask
        nodes, keep = self.parents[choice.low], graph.keep_low[choice.low]
        parents = unit(self.last.parents(nodes, self.low_text, keep, *from_children))
        alone = torch.ones_like(slots, dtype=torch.bool)
        return Embeddings(parents, children, *self.final_texts, torch.arange(len(alone)), alone)


class Network(nn.Module):
    """Message passing in layers.

    ``network(graph, choose)`` gives the embeddings of all nodes, without gradients, and those that the logits need,
    with gradients: of the texts, and of the images that ``choose`` picks from the former, each child by itself. Where
    no gradients are asked for both are the same. A slide's features are frozen and get no gradient. Without
    ``keep_graph`` the embeddings may take the place of the graph's features.
    """

    layers: nn.ModuleList


class GraphNetwork(Network):
    """Two layers, with ReLU and optional dropout between them, and unit vectors at the end."""

    def __init__(self, layers: Sequence[HierarchicalLayer], dropout: float = 0.0):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, graph: HierarchicalGraph, choose: Choose, keep_graph: bool = True
    ) -> tuple[Embeddings, Embeddings]:
        propagation = _Propagation(self, graph, keep_graph)
        embeddings = propagation.embeddings()
        if not torch.is_grad_enabled():
            return embeddings, embeddings
        return embeddings, propagation.chosen(choose(embeddings))

    def activate(self, nodes: Tensor) -> Tensor:
        """Between the layers; overwrites the nodes."""
        return self.dropout(F.relu(nodes, inplace=True))
