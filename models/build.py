"""Picks the parts of a model: the one place that knows the variants."""

from models.filtering import TextGuidedFiltering
from models.hive_mil import HiveMIL
from models.htcl import HTCL
from models.htcl import released as released_htcl
from models.logits import TopKLogits
from models.message_passing import HierarchicalLayer
from models.network import DROPOUT, GraphNetwork
from models.prompts import PromptLearner, PublishedEncoding
from models.released.checkpoint import released_names
from models.released.filtering import ReleasedFiltering
from models.released.message_passing import ReleasedLayer, ReleasedNetwork
from models.released.text_encoding import ReleasedEncoding
from models.text_towers import ClipTextTower, TextTower
from utils.config import Config
from utils.losses import build_bag_loss

NUM_LAYERS = 2

_WITHOUT_EFFECT = {
    "paper": {"mode", "prototype_number"},
    "released": {
        "mode", "prototype_number", "drop_out", "bag_loss", "tgdf", "htcl", "hier_aggregator", "hier_direction",
    },
}  # fmt: skip


def options_without_effect(config: Config) -> set[str]:
    """Options that the chosen model does not read, or that another option switches off."""
    unread = set(_WITHOUT_EFFECT[config.variant])
    switched_off = {
        "contrastive_lambda": config.htcl == "none" and config.variant == "paper",
        "filter_alpha": config.tgdf == "none" and config.variant == "paper",
        "hier_aggregator": config.hier_direction == "none",
        "top_k_low": config.scales == "high",
        "top_k_high": config.scales == "low",
        "LLM": config.text_prompt is not None,
    }
    return unread | {name for name, is_off in switched_off.items() if is_off}


def build_model(
    config: Config, tower: TextTower, low_texts: list[str], high_texts: list[str], num_classes: int
) -> HiveMIL:
    """The model that the options describe, newly initialised from the global generator.

    low_texts, high_texts: K*O and K*O*S descriptions, class-major. The tower is shared, not copied.
    """
    is_released = config.variant == "released"
    prompts = PromptLearner(
        tower,
        low_texts,
        high_texts,
        num_classes,
        config.num_context_tokens,
        config.class_specific_token,
        config.class_token_position,
        encoding=ReleasedEncoding if is_released else PublishedEncoding,
    )
    head = TopKLogits(num_classes, config.top_k_low, config.top_k_high, config.scales)
    dim = tower.output_dim
    if is_released:
        xavier = isinstance(tower, ClipTextTower)
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
        build_bag_loss(config.bag_loss, num_classes),
        HTCL[config.htcl],
        config.contrastive_lambda,
    )
