"""HiVE-MIL (Wong et al., NeurIPS 2025): texts and patches at two magnifications, joined in one graph.

The model composes its parts and knows nothing of their variants; models/build.py picks them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from models.graph import HierarchicalGraph
from models.htcl import TextLoss
from models.logits import TopKLogits
from models.message_passing import GraphNetwork
from models.prompts import PromptLearner
from utils.interface import Bag, ModelOutput
from utils.losses import BagLoss

Filtering = Callable[[Bag, Tensor, Tensor], HierarchicalGraph]


class CheckpointLayout(Protocol):
    """Which of a model's tensors a checkpoint holds, and under which names: {our name: name in the file}."""

    def names(self, model: nn.Module) -> dict[str, str]: ...


class TrainedTensors:
    """The project's own layout: what is trained, under its own name. The frozen tower is not saved."""

    def names(self, model: nn.Module) -> dict[str, str]:
        return {name: name for name, parameter in model.named_parameters() if parameter.requires_grad}


class HiveMIL(nn.Module):
    """Sizes: P parents, C children each, K classes, O low texts a class, S high texts a low text, D features.

    prompts: -> low texts (K*O, D), high texts (K*O*S, D). filtering: (bag, texts) -> graph. network: graph ->
    embeddings. head: (embeddings, logit scale) -> logits (K,). contrastive: the text loss, or None.
    """

    def __init__(
        self,
        prompts: PromptLearner,
        filtering: Filtering,
        network: GraphNetwork,
        head: TopKLogits,
        bag_loss: BagLoss,
        contrastive: TextLoss | None,
        contrastive_weight: float,
        layout: CheckpointLayout,
    ):
        super().__init__()
        self.prompts = prompts
        self.filtering = filtering
        self.network = network
        self.head = head
        self.bag_loss = bag_loss
        self.contrastive = contrastive
        self.contrastive_weight = contrastive_weight
        self.layout = layout

    def graph(self, bag: Bag) -> HierarchicalGraph:
        """The slide's graph: the pairs of patch and text that the filtering keeps."""
        low_text, high_text = self.prompts()
        return self.filtering(bag, low_text, high_text)

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,), and, for a labelled slide, loss = bag loss + contrastive_weight * HTCL."""
        embeddings = self.network(self.graph(bag))
        logits = self.head(embeddings, self.prompts.tower.logit_scale)
        if bag.label < 0:
            return ModelOutput(logits, embeddings=embeddings)
        label = torch.tensor([bag.label], device=logits.device)
        losses = {"bag": self.bag_loss(logits.unsqueeze(0), label)}
        loss = losses["bag"]
        if self.contrastive is not None:
            losses["htcl"] = self.contrastive(embeddings.low_text, embeddings.high_text, len(logits))
            loss = loss + self.contrastive_weight * losses["htcl"]
        return ModelOutput(logits, loss, losses, embeddings)

    def checkpoint(self) -> dict[str, Tensor]:
        """The tensors worth saving, under the names of the layout."""
        state = self.state_dict()
        return {saved: state[ours].detach().cpu() for ours, saved in self.layout.names(self).items()}

    def load_checkpoint(self, saved: Mapping[str, Tensor]) -> None:
        """Take over a checkpoint's tensors. Raises ValueError unless its names and shapes are exactly those expected."""
        names = self.layout.names(self)
        state = self.state_dict()
        missing, unexpected = set(names.values()) - set(saved), set(saved) - set(names.values())
        misshapen = [
            f"{theirs} is {tuple(saved[theirs].shape)}, expected {tuple(state[ours].shape)}"
            for ours, theirs in names.items()
            if theirs in saved and saved[theirs].shape != state[ours].shape
        ]
        if missing or unexpected or misshapen:
            raise ValueError(
                f"{len(missing)} tensors are missing ({', '.join(sorted(missing)[:3])}), {len(unexpected)} are unknown "
                f"({', '.join(sorted(unexpected)[:3])}), {len(misshapen)} have another shape "
                f"({'; '.join(misshapen[:3])})"
            )
        self.load_state_dict({ours: saved[theirs] for ours, theirs in names.items()}, strict=False)
