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
from models.released.text_encoding import ReleasedEncoding, released_position, released_reading
from utils.config import Config

NUM_LAYERS = 2
DROPOUT = 0.25


def build(config: Config, inputs: Inputs) -> HiveMIL:
    """low_texts, high_texts: K*O and K*O*S descriptions. The tower is shared, not copied."""
    tower, num_classes = inputs.tower, inputs.num_classes
    assert tower is not None
    is_released = config.variant == "released"
    position = config.class_token_position
    prompts = PromptLearner(
        tower,
        [*inputs.low_texts],
        [*inputs.high_texts],
        num_classes,
        config.num_context_tokens,
        config.class_specific_token,
        released_position(tower, position) if is_released else position,
        encoding=ReleasedEncoding if is_released else PublishedEncoding,
        per_scale=config.context_per_scale and not is_released,
    )
    is_whole = is_released or config.instances == "both"  # whether both scales are in the graph
    scales = config.scales if is_whole else config.instances
    head = TopKLogits(num_classes, config.top_k_low, config.top_k_high, scales)
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
        TextGuidedFiltering(config.filter_alpha, config.tgdf, config.instances),
        _network(config, dim, head, config.hier_direction if is_whole else "none"),
        head,
        bag_loss(config, inputs),
        HTCL[config.htcl] if is_whole else None,
        config.contrastive_lambda,
    )


def _network(config: Config, dim: int, head: TopKLogits, direction: str) -> Network:
    """The paper variant's, computed as ``--graph_backend`` says; in blocks the layers of Table 13 are not."""
    dropout = DROPOUT if config.drop_out else 0.0
    is_blocked = config.intra_aggregator == "graph" and (config.hier_aggregator != "mlp" or direction == "none")
    options = dim, config.hier_aggregator, direction
    if config.graph_backend == "pyg" or not is_blocked:
        from models.network import GraphNetwork, HeteroLayer  # PyTorch Geometric takes seconds to import

        layers = [HeteroLayer(*options, config.intra_aggregator) for _ in range(NUM_LAYERS)]
        return GraphNetwork(layers, dropout)
    return BlockedNetwork([BlockedLayer(*options) for _ in range(NUM_LAYERS)], head.choose, dropout)


HIVE_MIL = Kind(build, form=lambda config: "hierarchy")
