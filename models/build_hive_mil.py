"""Picks the parts of HiVE-MIL: the one place that knows its variants."""

from models.filtering import TextGuidedFiltering
from models.hive_mil import HiveMIL
from models.htcl import HTCL
from models.htcl import released as released_htcl
from models.kind import Inputs, Kind, bag_loss
from models.logits import TopKLogits
from models.losses import build_bag_loss
from models.message_passing import HierarchicalLayer
from models.network import DROPOUT, GraphNetwork
from models.prompts import PromptLearner, PublishedEncoding
from models.released.checkpoint import released_names
from models.released.filtering import ReleasedFiltering
from models.released.message_passing import ReleasedLayer, ReleasedNetwork
from models.released.text_encoding import ReleasedEncoding, released_reading
from utils.config import Config

NUM_LAYERS = 2


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
            ReleasedNetwork([ReleasedLayer(dim, xavier) for _ in range(NUM_LAYERS)]),
            head,
            build_bag_loss("ce", num_classes),
            released_htcl,
            config.contrastive_lambda,
            released_names,
        )
    layers = [HierarchicalLayer(dim, config.hier_aggregator, config.hier_direction) for _ in range(NUM_LAYERS)]
    return HiveMIL(
        prompts,
        TextGuidedFiltering(config.filter_alpha, config.tgdf),
        GraphNetwork(layers, DROPOUT if config.drop_out else 0.0),
        head,
        bag_loss(config, inputs),
        HTCL[config.htcl],
        config.contrastive_lambda,
    )


HIVE_MIL = Kind(build, form=lambda config: "hierarchy")
