"""HiVE-MIL (Wong et al., NeurIPS 2025): texts and patches at two magnifications, joined in one graph.

The model composes its parts and knows nothing of their variants; models/build.py picks them.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from models.graph import NODE_TYPES, HierarchicalGraph, Network
from models.htcl import TextLoss
from models.logits import TopKLogits, full_precision
from models.losses import BagLoss
from models.prompt_notes import notes_of_cut
from models.prompts import PromptLearner, shared_as_each
from utils.interface import Bag, ModelOutput, SlideModel

Filtering = Callable[[Bag, Tensor, Tensor], HierarchicalGraph]
Layout = Callable[["HiveMIL"], dict[str, str]]


class HiveMIL(SlideModel):
    """Sizes: P parents, C children each, K classes, O low texts a class, S high texts a low text, D features.

    prompts: -> low texts (K*O, D), high texts (K*O*S, D). filtering: (bag, texts) -> graph. network: graph ->
    embeddings (models/network.py). head: (embeddings, logit scale) -> logits (K,). contrastive: the text loss, or None.
    layout: names a checkpoint's tensors otherwise than SlideModel does.
    """

    def __init__(
        self,
        prompts: PromptLearner,
        filtering: Filtering,
        network: Network,
        head: TopKLogits,
        bag_loss: BagLoss,
        contrastive: TextLoss | None,
        contrastive_weight: float,
        layout: Layout | None = None,
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
        """The slide's graph: the pairs of patch and text that the filtering keeps. Under autocast, too, similarities
        and thresholds are computed in the features' precision."""
        dtype = bag.low_features.dtype
        low_text, high_text = (text.to(dtype) for text in self.prompts())
        with full_precision(low_text):
            return self.filtering(bag, low_text, high_text)

    def forward(self, bag: Bag, attention: bool = False) -> ModelOutput:
        """logits (K,), and, for a labelled slide, loss = bag loss + contrastive_weight * HTCL. The embeddings are those
        of all nodes. With ``attention`` the details hold ``image_attention`` (L, R, C) and ``text_attention`` (L, K*O,
        S), the weights that low nodes give to their children in each layer (models/graph.py)."""
        graph = self.graph(bag)
        filtered = None if self.training else graph.filtered()
        embeddings, trained, weights = self.network(graph, attention)
        details = {} if weights is None else {"image_attention": weights.image, "text_attention": weights.text}
        with full_precision(bag.low_features):
            trained = trained._replace(
                **{name: getattr(trained, name).to(bag.low_features.dtype) for name in NODE_TYPES}
            )
            logits = self.head(trained, self.prompts.tower.logit_scale)
            if bag.label < 0:
                return ModelOutput(logits, embeddings=embeddings, filtered=filtered, details=details)
            label = torch.tensor([bag.label], device=logits.device)
            losses = {"bag": self.bag_loss(logits.unsqueeze(0), label)}
            loss = losses["bag"]
            if self.contrastive is not None:
                losses["htcl"] = self.contrastive(trained.low_text, trained.high_text, len(logits))
                loss = loss + self.contrastive_weight * losses["htcl"]
        return ModelOutput(logits, loss, losses, embeddings, filtered, details)

    def notes(self) -> list[str]:
        return notes_of_cut(self.prompts.num_cut, len(self.prompts.token_ids), self.prompts.tower)

    def load_checkpoint(self, saved: Mapping[str, Tensor]) -> None:
        """As ``SlideModel.load_checkpoint``; a context for both scales, of earlier versions, serves as that of each."""
        super().load_checkpoint(shared_as_each(saved, self.tensor_names().values()))

    def tensor_names(self) -> dict[str, str]:
        return super().tensor_names() if self.layout is None else self.layout(self)
