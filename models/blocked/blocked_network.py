"""Two layers of message passing, from a slide's graph to its embeddings: models/network.py in blocks.

The children are passed over once, in blocks that stay in the cache: first layer, the sums that texts and parents need
of it, second layer. What is kept of that pass is the embeddings. The logits depend on a few images alone (each text's
best), so in training the second layer is computed again, with gradients, for these.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocked.layer import BlockedLayer
from models.blocked.messages import shares
from models.graph import Attention, Chosen, HierarchicalGraph, Network, Propagated
from utils.interface import Embeddings

EPS = 1e-12  # the least length that is divided by
BLOCK = {"cpu": 128}  # parents a block
LARGE_BLOCK = 4096  # on any other device


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
    its children are never kept, but updated again where they are needed. image_weights and text_weights: of each layer,
    what low nodes give to their children (R or T, heads, C or S)."""

    def __init__(self, network: "BlockedNetwork", graph: HierarchicalGraph):
        first, self.last = cast(tuple[BlockedLayer, BlockedLayer], network.layers)
        self.activate, self.graph = network.activate, graph
        self.scale = 1 / (1 - network.dropout.p) if network.training else 1.0
        dtype = graph.low_image.dtype
        self.edges = graph.keep_high.to(dtype)
        self.text_shares = shares(graph.keep_high, dtype)
        num_children = self.edges.sum((0, 1)).clamp(min=1).unsqueeze(1)  # of each high text
        to_low_text = shares(graph.keep_low.t(), dtype)

        means = self.edges.flatten(0, 1).t() @ graph.high_image.flatten(0, 1) / num_children
        *texts, text_weights = first.texts(graph.low_text, graph.high_text, to_low_text @ graph.low_image, means)
        self.low_text, self.high_text = (self.activate(text) for text in texts)
        with_children = graph.low_image[graph.retained]
        self.first_update = first.child_update(with_children, graph.high_text)
        asked = first.from_children.ask(with_children)
        collected, weights = first.from_children.collect(asked, graph.high_image, graph.child_mask)
        from_children = collected, graph.retained, graph.child_mask
        self.parents = self.activate(first.parents(graph.low_image, graph.low_text, graph.keep_low, *from_children))

        with_children = self.parents[graph.retained]
        self.last_update = self.last.child_update(with_children, self.high_text)
        self.asked = self.last.from_children.ask(with_children)
        sums = self._pass_over_children()
        image_means = to_low_text @ self.parents, sums / num_children
        low_text, high_text, last_text_weights = self.last.texts(self.low_text, self.high_text, *image_means)
        self.final_texts = unit(low_text), unit(high_text)
        self.image_weights = weights, self.last_weights
        self.text_weights = text_weights, last_text_weights

    def _pass_over_children(self) -> Tensor:
        """Sets the children's final embeddings and what the last layer collects from them, without gradients.

        Returns the sums of the hidden features over each high text's children, (T*S, D), with gradients.
        """
        graph, needs_gradient = self.graph, torch.is_grad_enabled()
        self.children = torch.empty_like(graph.high_image) if needs_gradient else graph.high_image
        self.alive = torch.empty_like(graph.high_image, dtype=torch.bool) if needs_gradient else None
        sums, collected = torch.zeros_like(graph.high_text), []
        with torch.no_grad():
            for rows in blocks(len(graph.high_image), sums.device):
                hidden = self.activate(self.first_update(graph.high_image[rows], self.text_shares[rows], rows))
                sums.addmm_(self.edges[rows].flatten(0, 1).t(), hidden.flatten(0, 1).to(sums.dtype))
                collected.append(self.last.from_children.collect(self.asked[rows], hidden, graph.child_mask[rows]))
                unit(self.last_update(hidden, self.text_shares[rows], rows), out=self.children[rows])
                if self.alive is not None:
                    torch.gt(hidden, 0, out=self.alive[rows])
        self.collected, self.last_weights = (torch.cat(parts) for parts in zip(*collected, strict=True))
        if self.alive is None:
            return sums
        constants = graph.high_image, self.edges, self.text_shares, self.alive, self.scale
        differentiable: Tensor = _HiddenSums.apply(sums, *constants, *self.first_update)  # type: ignore[no-untyped-call]
        return differentiable

    def _hidden(self, rows: Tensor, slots: Tensor) -> Tensor:
        """The first layer's children in the given slots (N, k) of the parents ``rows`` (N,): (N, k, D)."""
        assert self.alive is not None
        place = rows.unsqueeze(1), slots
        updated = self.first_update(self.graph.high_image[place], self.text_shares[place], rows)
        return updated * (self.alive[place].to(updated.dtype) * self.scale)

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
        collected, _ = self.last.from_children.collect(self.asked[rows], hidden, mask)
        from_children = collected, with_children, mask
        nodes, keep = self.parents[choice.low], graph.keep_low[choice.low]
        parents = unit(self.last.parents(nodes, self.low_text, keep, *from_children))
        alone = torch.ones_like(slots, dtype=torch.bool)
        return Embeddings(parents, children, *self.final_texts, torch.arange(len(alone)), alone)

    def attention(self) -> Attention:
        """The layers' weights, means over the heads; of no layer where no message goes upwards."""
        image = [weights.mean(1) * self.graph.child_mask for weights in self.image_weights if weights.shape[1]]
        text = [weights.mean(1) for weights in self.text_weights if weights.shape[1]]
        return Attention.of_layers(self.graph, image, text)


class BlockedNetwork(Network):
    """Two layers, with ReLU and optional dropout between them, and unit vectors at the end.

    choose: the images that the logits depend on; these and the texts are what carries gradients, each child standing by
    itself. A slide's features are frozen and get no gradient. Without gradients the children's embeddings take the
    place of the graph's children.
    """

    def __init__(self, layers: Sequence[BlockedLayer], choose: Choose, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.choose = choose
        self.dropout = nn.Dropout(dropout)

    def forward(self, graph: HierarchicalGraph, attention: bool = False) -> Propagated:
        propagation = _Propagation(self, graph)
        embeddings = propagation.embeddings()
        trained = embeddings
        if torch.is_grad_enabled():
            trained = propagation.chosen(self.choose(embeddings))
        return Propagated(embeddings, trained, propagation.attention() if attention else None)

    def activate(self, nodes: Tensor) -> Tensor:
        """Between the layers; overwrites the nodes."""
        activated: Tensor = self.dropout(F.relu(nodes, inplace=True))
        return activated
