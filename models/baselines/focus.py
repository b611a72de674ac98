"""FOCUS (Guo et al., CVPR 2025): neighbouring patches that resemble each other are compressed, guided by texts.

With T the text features of the high prompts, one a class, and e_i = drop(ReLU(LN(W0 x_i))):

1. Redundancy, in windows of consecutive patches: i is redundant where its mean cosine similarity within the window
   exceeds the mean + standard deviation of the window's similarities (``not_redundant``).
2. Relevance r_i = mean_k e_i . T_k, 0 for redundant patches; the ``max_patches`` most relevant stay, in slide order.
3. Compression, in chunks: the first patch stays, and each whose cosine similarity with its predecessor is below the
   threshold (``distinct``).
4. O = MultiHeadAttention(T; what is left); logits = Wc mean_k O_k.

Steps 1 to 3 choose without gradient and follow the authors' code: redundant patches leave only where another is more
relevant than 0. The text side is the published one, learned context in front of each prompt and a frozen tower.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, bag_output
from models.prompt_notes import notes_of_cut
from models.prompts import PromptLearner
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

WINDOW = 8
CHUNK = 8
"""Patches of a chunk of step 3, which the authors' code fixes whatever the window."""
SIMILARITY = 0.8
MAX_PATCHES = 8192
HEADS = 8
DROPOUT = 0.25


def not_redundant(patches: Tensor, window: int = WINDOW) -> Tensor:
    """(N, D) embedded patches -> (N,) bool. The last window may be shorter. A window never loses all its patches: where
    all are redundant the first stays."""
    num_patches = len(patches)
    unit = F.normalize(patches, dim=1)
    padded: Tensor = F.pad(unit, (0, 0, 0, -num_patches % window)).unflatten(0, (-1, window))
    is_real = (torch.arange(len(padded) * window, device=patches.device) < num_patches).view(-1, window)
    sizes = is_real.sum(1, keepdim=True)
    similarity = padded @ padded.transpose(1, 2)  # zero where a patch is padding
    mean = similarity.sum((1, 2)).unsqueeze(1) / sizes**2
    is_pair = is_real.unsqueeze(1) & is_real.unsqueeze(2)
    deviation = (similarity - mean.unsqueeze(2)).masked_fill(~is_pair, 0)
    std = (deviation.square().sum((1, 2)).unsqueeze(1) / sizes**2).sqrt()
    keep = similarity.sum(2) / sizes <= mean + std
    keep[:, 0] |= ~(keep & is_real).any(1)
    return keep.flatten()[:num_patches]


def most_relevant(relevance: Tensor, max_patches: int = MAX_PATCHES) -> Tensor:
    """Indices of the largest of (N,), ascending: (min(max_patches, N),)."""
    return relevance.topk(min(max_patches, len(relevance))).indices.sort().values


def distinct(patches: Tensor, threshold: float = SIMILARITY) -> Tensor:
    """(N, D) -> (N,) bool: the first of each chunk, and those unlike their predecessor, kept or not."""
    unit = F.normalize(patches, dim=1)
    similarity = (unit[1:] * unit[:-1]).sum(1)
    keep = F.pad(similarity < threshold, (1, 0), value=True)
    keep[::CHUNK] = True
    return keep


class FOCUS(SlideModel):
    """Sizes: N high patches, K classes, M patches left, D the text features' width, which the patches are mapped to.

    prompts: its high prompts, one a class, are read; the low ones may be absent.
    """

    def __init__(
        self,
        prompts: PromptLearner,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        dropout: float = 0.0,
        num_heads: int = HEADS,
        window: int = WINDOW,
        similarity: float = SIMILARITY,
        max_patches: int = MAX_PATCHES,
    ):
        super().__init__()
        self.prompts = prompts
        text_dim = prompts.tower.output_dim
        self.embed = nn.Sequential(
            nn.Linear(feature_dim, text_dim), nn.LayerNorm(text_dim), nn.ReLU(), nn.Dropout(dropout)
        )
        self.query, self.key, self.value, self.out = (nn.Linear(text_dim, text_dim) for _ in range(4))
        self.classify = nn.Linear(text_dim, num_classes)
        self.bag_loss = bag_loss
        self.num_heads = num_heads
        self.window, self.similarity, self.max_patches = window, similarity, max_patches

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: text_features (K, D), embedded (N, D), not_redundant (N,) bool, relevance (N,), the
        indices ``selected`` (step 2) and ``kept`` (M,), compressed (M, D), attended (K, D), slide_features (D,), and
        attention (K, N), the mean over heads, zero for patches that were left out."""
        _, text = self.prompts()
        patches = self.embed(bag.patches)
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            keep = not_redundant(patches, self.window)
            relevance = (patches @ text.to(patches.dtype).t()).mean(1) * keep
            selected = most_relevant(relevance, self.max_patches)
            kept = selected[distinct(patches[selected], self.similarity)]
        compressed = patches[kept]
        attended, weights = self._attend(text, compressed)
        slide = attended.mean(0)
        logits = self.classify(slide)
        details = {
            "text_features": text,
            "embedded": patches,
            "not_redundant": keep,
            "relevance": relevance,
            "selected": selected,
            "kept": kept,
            "compressed": compressed,
            "attended": attended,
            "slide_features": slide,
            "attention": weights.new_zeros(len(text), len(patches)).index_copy(1, kept, weights.mean(0)),
        }
        return bag_output(self.bag_loss, logits, bag.label, details)

    def _attend(self, text: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(K, D) texts over (M, D) patches -> (K, D), and the weights (heads, K, M)."""
        query, key, value = (
            layer(x).unflatten(1, (self.num_heads, -1)).transpose(0, 1)
            for layer, x in ((self.query, text), (self.key, patches), (self.value, patches))
        )
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(2)
        return self.out((weights @ value).transpose(0, 1).flatten(1)), weights

    def notes(self) -> list[str]:
        prompts = self.prompts
        return notes_of_cut(prompts.num_cut, len(prompts.token_ids), prompts.tower)


def _build(config: Config, inputs: Inputs) -> FOCUS:
    tower = inputs.tower
    assert tower is not None
    return FOCUS(
        PromptLearner(tower, [], [*inputs.high_texts], inputs.num_classes, config.num_context_tokens),
        inputs.feature_dim,
        inputs.num_classes,
        bag_loss(config, inputs),
        DROPOUT if config.drop_out else 0.0,
    )


KIND = Kind(_build)
