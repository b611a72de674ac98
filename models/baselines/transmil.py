"""TransMIL, a transformer over correlated patches (Shao et al., 2021), after szc19990412/TransMIL.

The authors pin nystrom-attention 0.0.9, which returns the wrong rows of a padded sequence; here they are the right
ones, as in its later releases.
"""

from math import isqrt

import torch
from nystrom_attention import NystromAttention
from torch import Tensor, nn

from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, bag_output
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

EMBEDDING, HEADS, LANDMARKS = 512, 8, 256
ITERATIONS, KERNEL = 6, 33
DROPOUT = 0.1
KERNELS = 7, 5, 3


class AttentionLayer(nn.Module):
    """h + Nystrom attention (Xiong et al., 2021) of LN h."""

    def __init__(self, dim: int, attention: NystromAttention):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = attention

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, dim) -> (n, dim), and the first token's weights of all (heads, n), detached: a row of the product
        of three matrices that stands for a softmax; weights may be negative, and the padding takes a part of the sum.
        """
        attended, factors = self.attention(self.norm(tokens).unsqueeze(0), return_attn_matrices=True)
        to_landmarks, between, from_landmarks = (factor.squeeze(0).detach() for factor in factors)
        start = to_landmarks.shape[1] - len(tokens)
        weights = to_landmarks[:, start : start + 1] @ between @ from_landmarks[..., start:]
        return tokens + attended.squeeze(0), weights.squeeze(1)


class PositionEncoding(nn.Module):
    """PPEG: g + conv7(g) + conv5(g) + conv3(g), depthwise, on patch tokens (s * s, dim) laid out as a square."""

    def __init__(self, dim: int):
        super().__init__()
        self.convolve = nn.ModuleList(nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim) for size in KERNELS)

    def forward(self, patches: Tensor) -> Tensor:
        side = isqrt(len(patches))
        grid: Tensor = patches.t().unflatten(1, (side, side))
        return sum((convolve(grid) for convolve in self.convolve), start=grid).flatten(1).t()


class TransMIL(SlideModel):
    """h = ReLU(W0 x), the first patches once more up to a square number, a class token in front; an attention layer,
    the position encoding of the patches, an attention layer; logits = Wc LN(h)_0. The order of patches matters."""

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        dropout: float = 0.0,
        embedding: int = EMBEDDING,
        heads: int = HEADS,
        landmarks: int = LANDMARKS,
        iterations: int = ITERATIONS,
        kernel: int = KERNEL,
    ):
        super().__init__()

        def layer() -> AttentionLayer:
            head_dim = embedding // heads
            attention = NystromAttention(
                embedding, head_dim, heads, landmarks, iterations, residual_conv_kernel=kernel, dropout=dropout
            )
            return AttentionLayer(embedding, attention)

        self.embed = nn.Sequential(nn.Linear(feature_dim, embedding), nn.ReLU())
        self.class_token = nn.Parameter(torch.randn(1, embedding))
        self.layer1 = layer()
        self.position = PositionEncoding(embedding)
        self.layer2 = layer()
        self.norm = nn.LayerNorm(embedding)
        self.classify = nn.Linear(embedding, num_classes)
        self.bag_loss = bag_loss

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: attention (heads, N), the class token's in the last layer, a repeated patch's parts
        added up; embedded_patches (N, embedding), and the tokens (1 + s * s, embedding) after_layer1,
        after_position_encoding and after_layer2."""
        embedded = self.embed(bag.patches)
        num_patches = len(embedded)
        side = isqrt(num_patches - 1) + 1
        num_repeated = side * side - num_patches
        tokens = torch.cat([self.class_token, embedded, embedded[:num_repeated]])
        first, _ = self.layer1(tokens)
        encoded = torch.cat([first[:1], self.position(first[1:])])
        last, of_class_token = self.layer2(encoded)
        logits = self.classify(self.norm(last[0]))

        attention = of_class_token[:, 1 : 1 + num_patches].clone()
        attention[:, :num_repeated] += of_class_token[:, 1 + num_patches :]
        details = {
            "attention": attention,
            "embedded_patches": embedded,
            "after_layer1": first,
            "after_position_encoding": encoded,
            "after_layer2": last,
        }
        return bag_output(self.bag_loss, logits, bag.label, details)


def _build(config: Config, inputs: Inputs) -> TransMIL:
    dropout = DROPOUT if config.drop_out else 0.0
    return TransMIL(inputs.feature_dim, inputs.num_classes, bag_loss(config, inputs), dropout)


KIND = Kind(_build)
