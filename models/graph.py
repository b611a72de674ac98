"""The hierarchical heterogeneous graph: dense, as a PyTorch Geometric HeteroData; and what a network makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from utils.interface import Embeddings

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

NODE_TYPES = ("low_image", "high_image", "low_text", "high_text")


@dataclass(frozen=True)
class HierarchicalGraph:
    """One slide's nodes and edges.

    Children stand below their parent, so the image hierarchy needs no edge list: the r-th row of ``high_image`` holds
    the children of low_image node ``retained[r]``. High text j is a child of low text ``j // num_subtexts``.

    low_image: (P, D). high_image: (R, C, D) for R retained parents. low_text: (T, D). high_text: (T*S, D).
    retained: (R,) int64. child_mask: (R, C) bool, True where there is a node.
    keep_low: (P, T) bool, edges low_image - low_text. keep_high: (R, C, T*S) bool, edges high_image - high_text.
    num_children: () int64, the slide's, with those of parents that are not retained.
    """

    low_image: Tensor
    high_image: Tensor
    low_text: Tensor
    high_text: Tensor
    retained: Tensor
    child_mask: Tensor
    keep_low: Tensor
    keep_high: Tensor
    num_children: Tensor

    @property
    def num_subtexts(self) -> int:
        return len(self.high_text) // len(self.low_text)

    def filtered(self) -> Tensor:
        """The shares of all pairs of patch and text that are no edges (paper, Table 15): (2,), low and high; NaN of a
        scale without any edge. All pairs of the children of a parent that is not retained count as filtered."""
        num_low, num_high = self.keep_low.sum(), self.keep_high.sum()
        shares = [num_low / self.keep_low.numel(), num_high / (self.num_children * len(self.high_text))]
        return 1 - torch.stack(shares).masked_fill(torch.stack([num_low, num_high]) == 0, float("nan"))

    def to_hetero_data(self) -> "HeteroData":
        """The same graph with one node a row and edge lists, both directions of every relation.

        high_image nodes are the True slots of ``child_mask`` in row-major order.
        """
        from torch_geometric.data import HeteroData

        data = HeteroData()
        data["low_image"].x = self.low_image
        data["high_image"].x = self.high_image[self.child_mask]
        data["low_text"].x = self.low_text
        data["high_text"].x = self.high_text
        parent = self.retained.unsqueeze(1).expand_as(self.child_mask)[self.child_mask]
        num_high_texts = len(self.high_text)
        text_child = torch.arange(num_high_texts, device=self.high_text.device)
        edges = {
            ("low_image", "intra", "low_text"): self.keep_low.nonzero().t(),
            ("high_image", "intra", "high_text"): self.keep_high[self.child_mask].nonzero().t(),
            ("high_image", "hierarchy", "low_image"): torch.stack(
                [torch.arange(len(parent), device=parent.device), parent]
            ),
            ("high_text", "hierarchy", "low_text"): torch.stack([text_child, text_child // self.num_subtexts]),
        }
        for (source, name, target), index in edges.items():
            data[source, name, target].edge_index = index
            data[target, name, source].edge_index = index.flip(0)
        return data


class Chosen(NamedTuple):
    """Images: rows of low_image (N,), and places of children (M,) in the flattened (R*C,)."""

    low: Tensor
    high: Tensor


class Attention(NamedTuple):
    """What low nodes give to their children in each of L layers, means over the heads; L = 0 where no message goes
    upwards.

    image: (L, R, C), of the retained parents and their slots, 0 for an empty one. text: (L, T, S), of low texts and
    their high texts.
    """

    image: Tensor
    text: Tensor

    @classmethod
    def of_layers(cls, graph: HierarchicalGraph, image: Sequence[Tensor], text: Sequence[Tensor]) -> "Attention":
        """From one tensor a layer, (R, C) and (T, S)."""
        no_image = graph.low_image.new_zeros(0, *graph.child_mask.shape)
        no_text = graph.low_text.new_zeros(0, len(graph.low_text), graph.num_subtexts)
        return cls(
            torch.cat([no_image, *(layer.detach().unsqueeze(0) for layer in image)]),
            torch.cat([no_text, *(layer.detach().unsqueeze(0) for layer in text)]),
        )


class Propagated(NamedTuple):
    """What a network makes of a graph.

    embeddings: of all nodes. trained: what the logits and the losses are made of, where gradients are asked for with
    these; a network may leave out the images that they do not depend on. attention: where it was asked for.
    """

    embeddings: Embeddings
    trained: Embeddings
    attention: Attention | None = None


class Network(nn.Module):
    """Message passing in layers: ``network(graph, attention=False) -> Propagated``. The graph may be used up."""

    layers: nn.ModuleList
