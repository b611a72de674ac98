"""DSMIL, dual-stream MIL (Li et al., 2021), after binli123/dsmil-wsi."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kind import Kind
from utils.interface import Bag, ModelOutput, SlideModel

QUERY = 128


class DSMIL(SlideModel):
    """Stream 1: c_i = Wi x_i, max_k = max_i c_ik at patch m_k. Stream 2: q(x) = tanh(Wb ReLU(Wa x));
    A_ki = softmax over patches of q(x_i) . q(x_{m_k}) / sqrt(query); B_k = sum_i A_ki x_i;
    l_k = sum_jd F_kjd B_jd + b_k. loss = (BCE(l) + BCE(max)) / 2, each the mean over classes against the one-hot label.

    A class's probability is sigmoid(l_k), divided by the sum over classes: the logits returned are log sigmoid(l).
    two_scale: a patch is [the child's features, its parent's], for each real child.
    """

    def __init__(self, feature_dim: int, num_classes: int, two_scale: bool = False, query: int = QUERY):
        super().__init__()
        dim = 2 * feature_dim if two_scale else feature_dim
        self.classify_patches = nn.Linear(dim, num_classes)
        self.query = nn.Sequential(nn.Linear(dim, query), nn.ReLU(), nn.Linear(query, query), nn.Tanh())
        self.classify = nn.Conv1d(num_classes, num_classes, kernel_size=dim)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d):
                nn.init.orthogonal_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.two_scale = two_scale

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: attention (K, N), instance_logits (N, K), max_logits and bag_logits (K,), the streams'
        own, critical_index (K,) int64, bag_embedding (K, dim)."""
        patches = self.patches(bag)
        instance_logits = self.classify_patches(patches)
        max_logits, critical = instance_logits.max(0)
        queries = self.query(patches)
        attention = (queries[critical] @ queries.t() / queries.shape[1] ** 0.5).softmax(1)
        embedding = attention @ patches
        bag_logits = self.classify(embedding).squeeze(1)
        details = {
            "attention": attention,
            "instance_logits": instance_logits,
            "max_logits": max_logits,
            "bag_logits": bag_logits,
            "critical_index": critical,
            "bag_embedding": embedding,
        }
        details = {name: value.detach() for name, value in details.items()}
        logits = F.logsigmoid(bag_logits)
        if bag.label < 0:
            return ModelOutput(logits, details=details)
        target = F.one_hot(torch.tensor(bag.label), len(logits)).to(logits)
        losses = {
            "bag": F.binary_cross_entropy_with_logits(bag_logits, target),
            "max": F.binary_cross_entropy_with_logits(max_logits, target),
        }
        return ModelOutput(logits, 0.5 * losses["bag"] + 0.5 * losses["max"], losses, details=details)

    def patches(self, bag: Bag) -> Tensor:
        """(N, D), or (N, 2 D) from both scales: high first; parents in order, then children."""
        if not self.two_scale:
            return bag.patches
        parents = bag.low_features.unsqueeze(1).expand_as(bag.high_features)
        return torch.cat([bag.high_features, parents], dim=-1)[bag.child_mask]


KIND = Kind(
    lambda config, inputs: DSMIL(inputs.feature_dim, inputs.num_classes, config.two_scale),
    form=lambda config: "hierarchy" if config.two_scale else "patches",
)
