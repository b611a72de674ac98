"""DTFD-MIL, double-tier feature distillation (Zhang et al., 2022), with aggregated features (AFS) handed on."""

import hashlib
from math import log

import torch
from torch import Tensor, nn

from models.baselines.gated_attention import GatedAttention
from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, slide_loss
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

EMBEDDING, HIDDEN = 512, 128
MAX_GRADIENT_NORM = 5.0


class AttentionClassifier(nn.Module):
    """alpha = softmax over rows of the gated attention; f = sum_i alpha_i h_i; logits = Wc f."""

    def __init__(self, dim: int, hidden: int, num_classes: int):
        super().__init__()
        self.attention = GatedAttention(dim, hidden)
        self.classify = nn.Linear(dim, num_classes)

    def forward(self, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """rows (M, dim), their attention's scores (M, 1) -> logits (K,), f (dim,), alpha (M,)."""
        weights = scores.squeeze(1).softmax(0)
        pooled = weights @ rows
        return self.classify(pooled), pooled, weights


class DTFDMIL(SlideModel):
    """h_i = ReLU(W0 x_i), without bias. The patches, shuffled, are cut into G groups of nearly equal size. Tier 1, the
    same for all groups: f_g = sum_i alpha_i h_i with the attention inside the group, group logits Wt f_g. Tier 2: the
    same over the f_g, with weights of its own, gives the slide's logits.

    Tier 1 learns from the mean loss of the group logits, tier 2 from the loss of the slide's logits, for which f_g is
    constant: so one optimiser does what the authors' two do. Groups are drawn anew in training; in evaluation slide_id
    and ``seed`` settle them, and the probabilities are the mean over ``num_mean_inference`` groupings.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        num_groups: int = 4,
        num_mean_inference: int = 1,
        seed: int = 1,
        embedding: int = EMBEDDING,
        hidden: int = HIDDEN,
    ):
        super().__init__()
        self.embed = nn.Linear(feature_dim, embedding, bias=False)
        self.tier1 = AttentionClassifier(embedding, hidden, num_classes)
        self.tier2 = AttentionClassifier(embedding, hidden, num_classes)
        self.bag_loss = bag_loss
        self.num_groups = num_groups
        self.num_mean_inference = num_mean_inference
        self.seed = seed

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,). losses: tier1 and tier2. details, the groups of all groupings in turn: group_logits (G, K),
        group_features (G, embedding), group (groupings, N), each patch's group; attention (1, N), a patch's weight in
        its group times that of its group, mean over the groupings."""
        patches = self.embed(bag.patches).relu()
        scores = self.tier1.attention(patches)
        groupings = [self._tiers(patches, scores, order) for order in self.orders(bag)]
        logits = _mean_prediction([slide_logits for slide_logits, _ in groupings])
        details = {name: torch.cat([found[name] for _, found in groupings]) for name in groupings[0][1]}
        details["attention"] = details["attention"].mean(0, keepdim=True)
        loss, losses = None, {}
        tier2 = slide_loss(self.bag_loss, logits, bag.label)
        if tier2 is not None:
            labels = torch.full(details["group_logits"].shape[:1], bag.label, device=logits.device)
            tier1 = self.bag_loss(details["group_logits"], labels)
            loss, losses = tier1 + tier2, {"tier1": tier1, "tier2": tier2}
        return ModelOutput(logits, loss, losses, details={name: value.detach() for name, value in details.items()})

    def orders(self, bag: Bag) -> list[Tensor]:
        """For each grouping a permutation (N,) of the patches, cut into nearly equal runs to give the groups."""
        size, device = len(bag.patches), bag.patches.device
        if self.training:
            return [torch.randperm(size).to(device)]
        digest = hashlib.sha256(f"{self.seed} {bag.slide_id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
        return [torch.randperm(size, generator=generator).to(device) for _ in range(self.num_mean_inference)]

    def clip_gradients(self) -> None:
        """Norm 5 at most, separately for the embedding, tier 1's attention, its classifier, and tier 2."""
        for part in (self.embed, self.tier1.attention, self.tier1.classify, self.tier2):
            nn.utils.clip_grad_norm_(part.parameters(), MAX_GRADIENT_NORM)

    def _tiers(self, patches: Tensor, scores: Tensor, order: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits of one grouping, and what led to them."""
        groups = order.tensor_split(min(self.num_groups, len(order)))
        found = [self.tier1(patches[members], scores[members]) for members in groups]
        group_features = torch.stack([features for _, features, _ in found])
        handed_on = group_features.detach()
        logits, _, group_weights = self.tier2(handed_on, self.tier2.attention(handed_on))
        attention = [weight * alpha for weight, (_, _, alpha) in zip(group_weights, found, strict=True)]
        group = [torch.full_like(members, number) for number, members in enumerate(groups)]
        back = order.argsort()
        return logits, {
            "group_logits": torch.stack([group_logits for group_logits, _, _ in found]),
            "group_features": group_features,
            "group": torch.cat(group)[back].unsqueeze(0),
            "attention": torch.cat(attention)[back].unsqueeze(0),
        }


def _mean_prediction(logits: list[Tensor]) -> Tensor:
    """Logits (K,) whose softmax is the mean of the softmaxes; one alone stays as it is."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack(logits).log_softmax(1).logsumexp(0) - log(len(logits))


def _build(config: Config, inputs: Inputs) -> DTFDMIL:
    return DTFDMIL(
        inputs.feature_dim, inputs.num_classes, bag_loss(config, inputs), config.num_groups,
        config.num_mean_inference, config.seed,
    )  # fmt: skip


KIND = Kind(_build)
