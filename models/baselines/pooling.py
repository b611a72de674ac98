"""Max and mean pooling of patch logits, as in MHIM-MIL; and CLAM's max pooling, which chooses one patch."""

import torch
from torch import Tensor, nn

from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, bag_output
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

HIDDEN = 512
DROPOUT = 0.25


class PatchPooling(SlideModel):
    """z_i = W2 drop(ReLU(W1 x_i)), D -> hidden -> K for each patch; logit_k is the maximum or the mean of the z_ik.

    pooling: "max", "mean", or "best_patch": the logits of the one patch with the largest probability of class 1 (two
    classes; class 0 never chooses) or of any class (more), as CLAM's ``mil`` does.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        pooling: str,
        dropout: float = 0.0,
        hidden: int = HIDDEN,
    ):
        super().__init__()
        self.patch = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.classify = nn.Linear(hidden, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.bag_loss = bag_loss
        self.pooling = pooling

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: patch_logits (N, K)."""
        patch_logits = self.classify(self.patch(bag.patches))
        logits = self._pool(patch_logits)
        return bag_output(self.bag_loss, logits, bag.label, {"patch_logits": patch_logits})

    def _pool(self, patch_logits: Tensor) -> Tensor:
        if self.pooling == "mean":
            return patch_logits.mean(0)
        if self.pooling == "max":
            return patch_logits.amax(0)
        probabilities = patch_logits.softmax(1)
        decisive = probabilities[:, 1] if patch_logits.shape[1] == 2 else probabilities.amax(1)
        return patch_logits[torch.argmax(decisive)]


def _build(config: Config, inputs: Inputs, pooling: str) -> PatchPooling:
    dropout = DROPOUT if config.drop_out else 0.0
    return PatchPooling(inputs.feature_dim, inputs.num_classes, bag_loss(config, inputs), pooling, dropout)


def _build_max(config: Config, inputs: Inputs) -> PatchPooling:
    """``--variant released``: the max pooling of HiVE-MIL's released code, which is CLAM's."""
    return _build(config, inputs, "best_patch" if config.variant == "released" else "max")


MAX = Kind(_build_max)
MEAN = Kind(lambda config, inputs: _build(config, inputs, "mean"))
