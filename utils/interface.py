"""What goes into a model and what comes out of it. The training loop knows no more of a model than this."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from utils.tensors import misfit
from utils.words import listed

# what a model reads of a slide: parents with their children; the high patches as one flat bag; parents and flat bag
BagForm = Literal["hierarchy", "patches", "both"]


@dataclass(frozen=True)
class Bag:
    """One slide.

    low_features: (P, D) float, the parents' frozen features.
    high_features: (P, C, D) float, the children's; an all-zero row where a slot has no child.
    child_mask: (P, C) bool, True for real children.
    patch_features: (N, D) float, all high patches as one flat bag, for models without a hierarchy; where it is absent
    ``patches`` are the real children. A bag of patches alone has no parents: P = 0.
    label: class index, or -1 where the slide has no label.
    low_coords, high_coords: (P, 2) and (P, C, 2), or (N, 2) of a flat bag, int64, level-0 pixels (x, y) of the
    top-left corners.
    """

    slide_id: str
    low_features: Tensor
    high_features: Tensor
    child_mask: Tensor
    label: int = -1
    low_coords: Tensor | None = None
    high_coords: Tensor | None = None
    patch_features: Tensor | None = None

    @property
    def patches(self) -> Tensor:
        """All real high patches, in the order of the file: (N, D)."""
        return self.high_features[self.child_mask] if self.patch_features is None else self.patch_features

    def features(self) -> dict[str, Tensor]:
        """The features there are, and the mask, by field."""
        names = "low_features", "high_features", "patch_features", "child_mask"
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Bag":
        """The same bag with its features and mask changed."""
        changed: dict[str, Any] = {name: change(value) for name, value in self.features().items()}
        return replace(self, **changed)

    def to(self, device: torch.device) -> "Bag":
        """The same bag with its features and mask on ``device``; coordinates stay where they are."""
        return self.map(lambda features: features.to(device, non_blocking=True))

    def pinned(self) -> "Bag":
        """The same bag with its features and mask in page-locked memory, from where a GPU copies them by itself."""
        return self.map(torch.Tensor.pin_memory)


class Embeddings(NamedTuple):
    """Node embeddings after the graph, of unit length.

    low_image (P, D); high_image (R, C, D) for the R retained parents; low_text (K*O, D); high_text (K*O*S, D).
    retained: (R,) int64, the rows of low_image whose children high_image holds. child_mask: (R, C) bool.
    """

    low_image: Tensor
    high_image: Tensor
    low_text: Tensor
    high_text: Tensor
    retained: Tensor
    child_mask: Tensor


@dataclass(frozen=True)
class ModelOutput:
    """logits: (K,). losses: named scalar terms, unweighted. loss: the scalar to minimise (None without a label).
    embeddings: the nodes' embeddings, where the model has a graph. filtered: (2,), of a graph, the shares of all pairs
    of patch and text that are no edges, at the low and at the high scale; NaN of a scale that is not in the graph.
    details: what else is worth seeing, by name; of a
    model with attention ``attention`` (B, N), its B branches' weights of the N patches."""

    logits: Tensor
    loss: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    embeddings: Embeddings | None = None
    filtered: Tensor | None = None
    details: dict[str, Tensor] = field(default_factory=dict)

    def has_hierarchy(self) -> bool:
        """Whether the model has a graph with both scales; the slide itself may lack children."""
        if self.embeddings is None or self.filtered is None:
            return False
        return len(self.embeddings.retained) > 0 and not bool(self.filtered[0].isnan())


class SlideModel(nn.Module):
    """A model of one slide: ``forward(bag) -> ModelOutput``."""

    def notes(self) -> list[str]:
        """What the user should be told once about this model and these inputs."""
        return []

    def clip_gradients(self) -> None:
        """Called between a step's backward pass and the optimiser; by default gradients stay as they are."""

    def tensor_names(self) -> dict[str, str]:
        """The tensors of a checkpoint: {our name: name in the file}. By default what is trained; a frozen text tower
        is not saved."""
        return {name: name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def checkpoint(self) -> dict[str, Tensor]:
        """The tensors worth saving, on the CPU."""
        state = self.state_dict()
        return {saved: state[ours].detach().cpu() for ours, saved in self.tensor_names().items()}

    def load_checkpoint(self, saved: Mapping[str, Tensor]) -> None:
        """Take over a checkpoint. Raises ValueError unless its names and shapes are exactly those expected, and its
        numbers finite."""
        names = self.tensor_names()
        state = self.state_dict()
        missing, unexpected = set(names.values()) - set(saved), set(saved) - set(names.values())
        unfit = [
            f"{theirs} {problem}"
            for ours, theirs in names.items()
            if theirs in saved and (problem := misfit(saved[theirs], state[ours]))
        ]
        kinds = {"are missing": sorted(missing), "are unknown": sorted(unexpected), "do not fit": unfit}
        faults = [
            f"{len(names)} tensors {kind} ({listed(names, 3, quote=False)})" for kind, names in kinds.items() if names
        ]
        if faults:
            raise ValueError("; ".join(faults))
        self.load_state_dict({ours: saved[theirs] for ours, theirs in names.items()}, strict=False)
