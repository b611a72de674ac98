"""Picks the parts of HiVE-MIL: the one place that knows its variants."""

from models.blocked.blocked_network import BlockedNetwork
from models.blocked.layer import BlockedLayer
from models.filtering import TextGuidedFiltering
from models.graph import Network
from models.hive_mil import HiveMIL
from models.htcl import HTCL
from models.htcl import released as released_htcl
from models.kind import Inputs, Kind, bag_loss
from models.logits import TopKLogits
from models.losses import build_bag_loss
from models.prompts import PromptLearner, PublishedEncoding
from models.released.checkpoint import released_names
from models.released.filtering import ReleasedFiltering
from models.released.message_passing import ReleasedLayer, ReleasedNetwork
from models.released.text_encoding import ReleasedEncoding, released_reading
from utils.config import Config

NUM_LAYERS = 2
DROPOUT = 0.25


def build(config: Config, inputs: Inputs) -> HiveMIL:
    """low_texts, high_texts: K*O and K*O*S descriptions. The tower is shared, not copied."""
    tower, num_classes = inputs.tower, inputs.num_classes
    assert tower is not None
    is_released = config.variant == "released"
    prompts = PromptLearner(
        tower,
        [*inputs.low_texts],
        [*inputs.high_texts],
        num_classes,
        config.num_context_tokens,
        config.class_specific_token,
        config.class_token_position,
        encoding=ReleasedEncoding if is_released else PublishedEncoding,
    )
    head = TopKLogits(num_classes, config.top_k_low, config.top_k_high, config.scales)
    dim = tower.output_dim
    if is_released:
        xavier = released_reading(tower).xavier
        return HiveMIL(
            prompts,
            ReleasedFiltering(config.filter_alpha, tower.logit_scale),
            ReleasedNetwork([ReleasedLayer(dim, xavier) for _ in range(NUM_LAYERS)], head.choose),
            head,
            build_bag_loss("ce", num_classes),
            released_htcl,
            config.contrastive_lambda,
            released_names,
        )
    return HiveMIL(
        prompts,
        TextGuidedFiltering(config.filter_alpha, config.tgdf),
        _network(config, dim, head),
        head,
        bag_loss(config, inputs),
        HTCL[config.htcl],
        config.contrastive_lambda,
    )


def _network(config: Config, dim: int, head: TopKLogits) -> Network:
    """The paper variant's, computed as ``--graph_backend`` says."""
    options = dim, config.hier_aggregator, config.hier_direction
    dropout = DROPOUT if config.drop_out else 0.0
    if config.graph_backend == "pyg":
        from models.network import GraphNetwork, HeteroLayer  # PyTorch Geometric takes seconds to import

        return GraphNetwork([HeteroLayer(*options) for _ in range(NUM_LAYERS)], dropout)
    return BlockedNetwork([BlockedLayer(*options) for _ in range(NUM_LAYERS)], head.choose, dropout)


HIVE_MIL = Kind(build, form=lambda config: "hierarchy")
