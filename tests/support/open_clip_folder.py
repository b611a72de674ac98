"""Small models in open_clip's form, with random weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
OPEN_CLIPS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "quick_gelu": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "resnet": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": TEXT,
    },
    "timm": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": True,
            "timm_pool": "token",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": TEXT,
    },
    "coca": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    },
}


def save_open_clip(folder: Path, kind: str = "vit", weights: str = "open_clip_pytorch_model.bin", **more: Any) -> Path:
    """A folder as open_clip's hub repositories are."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    config = {"model_cfg": OPEN_CLIPS[kind], **more}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder
