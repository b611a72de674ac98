"""CONCH's text tower (Lu et al., Nature Medicine 2024) as open_clip's TextTransformer, from CONCH's weight file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

PUBLISHED_CONFIG: dict[str, Any] = {
    "embed_dim": 512,
    "text_cfg": {
        "context_length": 127,
        "vocab_size": 32007,
        "width": 768,
        "heads": 12,
        "layers": 12,
        "embed_cls": True,
        "pad_id": 0,
    },
}


def read_config(weights: Path) -> dict[str, Any]:
    """The sizes beside the weights (``open_clip_config.json``), else CONCH's published ones."""
    config_file = weights.with_name("open_clip_config.json")
    if not config_file.exists():
        return PUBLISHED_CONFIG
    config: dict[str, Any] = json.loads(config_file.read_text())["model_cfg"]
    return config


def load_text_transformer(weights: Path, state: Mapping[str, Tensor]) -> tuple[Any, Tensor]:
    """Build open_clip's TextTransformer from CONCH's ``pytorch_model.bin`` (its image tower may be missing); and the
    logit scale, a scalar.

    weights: where the file lies. state: its tensors by name.
    Raises RuntimeError when keys or shapes of ``text.*`` do not fit, KeyError without ``logit_scale``.
    """
    from open_clip.transformer import TextTransformer

    config = read_config(weights)
    transformer = TextTransformer(
        **config["text_cfg"], output_dim=config["embed_dim"], output_tokens=True, correct_cls_mask=False
    )
    text_state = {name.removeprefix("text."): value for name, value in state.items() if name.startswith("text.")}
    transformer.load_state_dict(text_state, strict=True)
    return transformer, state["logit_scale"]
