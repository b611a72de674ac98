"""MSCPT (Han et al., 2024): texts of both scales against patches of both scales, in the form that reads features.

With Z the low and T the high texts (models/baselines/mscpt_prompts.py), I the low patches that resemble a class, J all
high patches, all of unit length, and s = exp(logit scale):

    X_low = GCN_low(I), X_high = GCN_high(J)
    l_low  = s top5(X_low Z^T)    + s top5(X_low . mean of the class's T)
    l_high = s top100(X_high T^T) + s top100(X_high . mean of the class's Z)
    logits = (l_low + l_high) / 2, loss = CE(logits) + CE(l_low) + CE(l_high)

A top is the mean of a class's largest scores, over all pairs of patch and text. The graph is the authors' code's: each
patch receives from those before it, and from itself; of the high patches the first M alone, M the high texts a class.
The low patches stand in the order of their choice: class by class, the most similar first.

Slides come as features, so the published learned tokens of the image tower have nothing to act on and are left out.
``--variant released`` is the authors' code in the scores of patches with the texts of their own scale: it assigns text
number i to class i modulo K.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.baselines.mscpt_prompts import DeepPromptLearner
from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, slide_loss
from models.prompt_notes import notes_of_cut
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

TOP_LOW, TOP_HIGH = 5, 100
SELECTED = 30
DROPOUT = 0.5


class ForwardGCN(nn.Module):
    """Two graph convolutions with ReLU between, on the graph in which every one of the first ``num_linked`` nodes
    receives from those before it, and every node from itself:

        out_j = b + sum_{i <= j} W x_i / sqrt(d_i d_j),  d_j = j + 1 (one where j is not linked)
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, num_linked: int) -> Tensor:
        """(N, D) -> (N, D)."""
        hidden = self.dropout(_convolve(self.first, nodes, num_linked).relu())
        return _convolve(self.second, hidden, num_linked)


def _convolve(layer: nn.Linear, nodes: Tensor, num_linked: int) -> Tensor:
    mapped = F.linear(nodes, layer.weight)
    linked, others = mapped[:num_linked], mapped[num_linked:]
    degrees = torch.arange(1, len(linked) + 1, device=nodes.device, dtype=layer.weight.dtype).unsqueeze(1)
    received = _sums_so_far(linked / degrees.sqrt()) / degrees.sqrt()
    return torch.cat([received, others]) + layer.bias


def _sums_so_far(rows: Tensor) -> Tensor:
    """Each row added to those before it: (N, D). On CUDA PyTorch's cumsum has no deterministic form."""
    if rows.device.type == "cpu":
        return rows.cumsum(0)
    return rows.new_ones(len(rows), len(rows)).tril() @ rows


def top_mean(scores: Tensor, k: int) -> Tensor:
    """The mean of the k largest of each row: (K, S) -> (K,)."""
    return scores.topk(min(k, scores.shape[1]), dim=1).values.mean(1)


class MSCPT(SlideModel):
    """Sizes: P low and N high patches, K classes, O low and M high texts a class, D features.

    texts: -> T, and Z in ``low_features``. mixes_classes: the released code's assignment of texts to classes.
    """

    def __init__(
        self,
        texts: DeepPromptLearner,
        bag_loss: BagLoss,
        dropout: float = 0.0,
        mixes_classes: bool = False,
        top_low: int = TOP_LOW,
        top_high: int = TOP_HIGH,
        num_selected: int = SELECTED,
    ):
        super().__init__()
        self.texts = texts
        dim = texts.tower.output_dim
        self.low_graph, self.high_graph = ForwardGCN(dim, dropout), ForwardGCN(dim, dropout)
        self.bag_loss = bag_loss
        self.mixes_classes = mixes_classes
        self.top_low, self.top_high, self.num_selected = top_low, top_high, num_selected

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); losses: ``bag`` of the logits, ``low`` and ``high`` of either scale's; details: logits_low and
        logits_high (K,), selected (Q,) low patches, class by class, low_nodes (Q, D) and high_nodes (N, D) behind the
        graphs."""
        low_text, high_text = self.texts.low_features, self.texts()
        low_patches = F.normalize(bag.low_features, dim=1)
        selected = self.select(low_patches)
        num_linked = len(high_text) // self.texts.num_classes
        low = self.low_graph(low_patches[selected], len(selected))
        high = self.high_graph(F.normalize(bag.patches, dim=1), num_linked)
        logits_low = self._score(low, low_text, high_text, self.top_low)
        logits_high = self._score(high, high_text, low_text, self.top_high)
        logits = (logits_low + logits_high) / 2
        losses = {}
        for name, scores in (("bag", logits), ("low", logits_low), ("high", logits_high)):
            loss = slide_loss(self.bag_loss, scores, bag.label)
            if loss is not None:
                losses[name] = loss
        details = {"logits_low": logits_low, "logits_high": logits_high, "low_nodes": low, "high_nodes": high}
        return ModelOutput(
            logits,
            torch.stack([*losses.values()]).sum() if losses else None,
            losses,
            details={"selected": selected, **{name: value.detach() for name, value in details.items()}},
        )

    def select(self, low_patches: Tensor) -> Tensor:
        """For each class the low patches (P, D) most similar to the mean of its low texts, class by class, the most
        similar first; a patch may come more than once. (K * min(num_selected, P),) indices."""
        classes = F.normalize(self._class_means(self.texts.low_features), dim=1)
        with torch.autocast(classes.device.type, enabled=False):
            similarity = classes @ low_patches.t()
        return similarity.topk(min(self.num_selected, len(low_patches)), dim=1).indices.flatten()

    def _class_means(self, texts: Tensor) -> Tensor:
        """(K * number, D) -> (K, D)."""
        by_class: Tensor = texts.unflatten(0, (self.texts.num_classes, -1))
        return by_class.mean(1)

    def _score(self, nodes: Tensor, own_texts: Tensor, other_texts: Tensor, top: int) -> Tensor:
        """(N, D) nodes against the texts of their scale, pair by pair, and against the class means of the other scale's
        -> (K,)."""
        num_classes = self.texts.num_classes
        own = (nodes @ own_texts.t()).flatten()
        by_class = (
            own.view(-1, num_classes).t()
            if self.mixes_classes
            else own.view(len(nodes), num_classes, -1).transpose(0, 1).flatten(1)
        )
        cross = self._class_means(other_texts) @ nodes.t()
        return self.texts.tower.logit_scale.exp() * (top_mean(by_class, top) + top_mean(cross, top))

    def notes(self) -> list[str]:
        return notes_of_cut(self.texts.num_cut, self.texts.num_prompts, self.texts.tower)


def _build(config: Config, inputs: Inputs) -> MSCPT:
    assert inputs.tower is not None
    return MSCPT(
        DeepPromptLearner(inputs.tower, inputs.low_texts, inputs.high_texts, inputs.num_classes),
        bag_loss(config, inputs),
        DROPOUT if config.drop_out else 0.0,
        config.variant == "released",
    )


KIND = Kind(_build, form=lambda config: "both")
