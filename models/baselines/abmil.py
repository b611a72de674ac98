"""ABMIL, attention-based MIL with gates (Ilse et al., 2018), as MIL-Lab builds it."""

from torch import nn

from models.baselines.gated_attention import GatedAttention
from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, bag_output
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

EMBEDDING, HIDDEN = 512, 384
DROPOUT = 0.25


def initialise(model: nn.Module) -> None:
    """MIL-Lab's initial weights of all linear layers: Kaiming-uniform, without biases."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ABMIL(SlideModel):
    """h_i = ReLU(W0 x_i); alpha = softmax over patches of the gated attention; z = sum_i alpha_i h_i; logits = Wc z."""

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        dropout: float = 0.0,
        embedding: int = EMBEDDING,
        hidden: int = HIDDEN,
    ):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(feature_dim, embedding), nn.ReLU())
        self.attention = GatedAttention(embedding, hidden, dropout=dropout)
        self.classify = nn.Linear(embedding, num_classes)
        initialise(self)
        self.bag_loss = bag_loss

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: attention and attention_raw (1, N), slide_features (embedding,)."""
        patches = self.embed(bag.patches)
        raw = self.attention(patches).t()
        attention = raw.softmax(1)
        slide = (attention @ patches).squeeze(0)
        logits = self.classify(slide)
        details = {"attention": attention, "attention_raw": raw, "slide_features": slide}
        return bag_output(self.bag_loss, logits, bag.label, details)


def _build(config: Config, inputs: Inputs) -> ABMIL:
    dropout = DROPOUT if config.drop_out else 0.0
    return ABMIL(inputs.feature_dim, inputs.num_classes, bag_loss(config, inputs), dropout)


KIND = Kind(_build)
