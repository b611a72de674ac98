"""Weight files in CONCH's form: at its real size filled from a seed, and small."""

import json
from pathlib import Path

import torch
from torch import Tensor

from conch.image_tower import ConchImageTower

SMALL = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "heads": 2, "attn_pooler_heads": 4}
SMALL_WIDTH = 8


def golden_visual(golden: Path) -> dict[str, Tensor]:
    """``visual.*`` at CONCH's real size, as the golden results were made."""
    shapes = json.loads((golden / "conch_full_size_keys.json").read_text())
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name in sorted(key for key in shapes if key.startswith("visual.")):
        value = torch.randn(tuple(shapes[name]), generator=generator) * 0.02
        is_scale = value.dim() == 1 and name.endswith(".weight")
        state[name] = value + 1 if is_scale else value
    return state


def small_visual() -> dict[str, Tensor]:
    """``visual.*`` of a small CONCH, random but always the same, with parts of the caption pooler."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = ConchImageTower(SMALL_WIDTH, SMALL)
        state = {f"visual.{name}": torch.randn(value.shape) * 0.3 for name, value in tower.state_dict().items()}
    return {**state, "visual.attn_pool_caption.query": torch.ones(4, 16), "visual.ln_caption.weight": torch.ones(16)}


def save_small(folder: Path, **changes: object) -> Path:
    """A small CONCH's pytorch_model.bin with its sizes beside it. changes: to its tensors; None takes one away."""
    state = {"logit_scale": torch.tensor(4.0), "text.cls_emb": torch.ones(3), **small_visual(), **changes}
    weights = folder / "pytorch_model.bin"
    torch.save({name: value for name, value in state.items() if value is not None}, weights)
    config = {"model_cfg": {"embed_dim": SMALL_WIDTH, "text_cfg": {}, "vision_cfg": SMALL}}
    weights.with_name("open_clip_config.json").write_text(json.dumps(config))
    return weights
