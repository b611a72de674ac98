"""CLAM, clustering-constrained attention MIL (Lu et al., 2021), after mahmoodlab/CLAM: one attention branch for all
classes (CLAM_SB) or one a class (CLAM_MB)."""

import torch
from torch import Tensor, nn

from models.baselines.gated_attention import GatedAttention
from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, build_bag_loss, slide_loss
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

EMBEDDING, HIDDEN = 512, 256
DROPOUT = 0.25


class CLAM(SlideModel):
    """h_i = drop(ReLU(W0 x_i)); A = softmax over patches of the gated attention, (B, N); M = A h, (B, embedding).

    One branch (B = 1): logits = Wc M_0. A branch a class (B = K): logit_k = w_k M_k + b_k.
    loss = bag_weight * bag loss + (1 - bag_weight) * instance loss, the mean over classes c of a loss of the scores
    I_c(h): of the true class, the k_sample patches of highest attention have target 1 and the k_sample of lowest
    target 0; of each other class, with ``subtyping`` alone, the k_sample of highest attention have target 0.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        instance_loss: BagLoss,
        branch_per_class: bool,
        k_sample: int = 8,
        bag_weight: float = 0.7,
        subtyping: bool = True,
        dropout: float = 0.0,
        embedding: int = EMBEDDING,
        hidden: int = HIDDEN,
    ):
        super().__init__()
        branches, outputs = (num_classes, 1) if branch_per_class else (1, num_classes)
        self.embed = nn.Sequential(nn.Linear(feature_dim, embedding), nn.ReLU(), nn.Dropout(dropout))
        self.attention = GatedAttention(embedding, hidden, branches, dropout)
        self.classify = nn.ModuleList(nn.Linear(embedding, outputs) for _ in range(branches))
        self.classify_instances = nn.ModuleList(nn.Linear(embedding, 2) for _ in range(num_classes))
        self.bag_loss = bag_loss
        self.instance_loss = instance_loss
        self.k_sample = k_sample
        self.bag_weight = bag_weight
        self.subtyping = subtyping

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: attention and attention_raw (B, N), slide_features (B, embedding); with a label also
        instance_targets and instance_predictions, the classes' chosen patches one after the other."""
        patches = self.embed(bag.patches)
        raw = self.attention(patches).t()
        attention = raw.softmax(1)
        slide = attention @ patches
        logits = torch.cat([classify(features) for classify, features in zip(self.classify, slide, strict=True)])
        details = {"attention": attention.detach(), "attention_raw": raw.detach(), "slide_features": slide.detach()}
        of_bag = slide_loss(self.bag_loss, logits, bag.label)
        if of_bag is None:
            return ModelOutput(logits, details=details)
        of_instances, targets, predictions = self._instances(patches, raw.detach(), bag.label)
        details |= {"instance_targets": targets, "instance_predictions": predictions}
        loss = self.bag_weight * of_bag + (1 - self.bag_weight) * of_instances
        return ModelOutput(logits, loss, {"bag": of_bag, "instance": of_instances}, details=details)

    def _instances(self, patches: Tensor, raw: Tensor, label: int) -> tuple[Tensor, Tensor, Tensor]:
        """The instance loss, targets and predictions. A branch's patches are ranked by the scores before the softmax,
        which stay apart where small weights round to the same number."""
        k_sample = min(self.k_sample, len(patches))
        losses, targets, predictions = [], [], []
        for index, classify in enumerate(self.classify_instances):
            is_true = index == label
            if not (is_true or self.subtyping):
                continue
            scores = raw[index % len(raw)]
            chosen = scores.topk(k_sample).indices
            if is_true:
                chosen = torch.cat([chosen, scores.topk(k_sample, largest=False).indices])
            target = torch.zeros_like(chosen)
            target[:k_sample] = int(is_true)
            logits = classify(patches[chosen])
            losses.append(self.instance_loss(logits, target))
            targets.append(target)
            predictions.append(logits.detach().argmax(1))
        return torch.stack(losses).mean(), torch.cat(targets), torch.cat(predictions)


def _build(config: Config, inputs: Inputs, branch_per_class: bool) -> CLAM:
    return CLAM(
        inputs.feature_dim,
        inputs.num_classes,
        bag_loss(config, inputs),
        build_bag_loss(config.inst_loss, 2),
        branch_per_class,
        config.k_sample,
        config.bag_weight,
        not config.no_subtyping,
        DROPOUT if config.drop_out else 0.0,
    )


SINGLE_BRANCH = Kind(lambda config, inputs: _build(config, inputs, False))
MULTI_BRANCH = Kind(lambda config, inputs: _build(config, inputs, True))
