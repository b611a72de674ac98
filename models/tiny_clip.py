"""A small CLIP with random weights, in Hugging Face's format: stands in for a real model in the demo and the tests."""

from pathlib import Path

import torch
from safetensors.torch import save

import utils.torchvision_compat  # noqa: F401  (before transformers)
from utils.files import write_text
from utils.whole_files import write_bytes

WEIGHT_SPREAD = 3.0  # times CLIP's initialisation, so that texts come out clearly different


def save_tiny_clip(folder: Path, width: int = 64, seed: int = 0) -> None:
    """Write config.json and model.safetensors of a random CLIP, two text layers of the given width.

    It brings no tokenizer files: CLIP's standard vocabulary is meant.
    """
    from transformers import CLIPConfig, CLIPModel

    sizes = {"intermediate_size": 2 * width, "num_attention_heads": 4, "projection_dim": width}
    start, end = 49406, 49407  # of a text, in CLIP's vocabulary
    text = {"num_hidden_layers": 2, "hidden_size": width, "bos_token_id": start, "eos_token_id": end}
    vision = {"num_hidden_layers": 2, "hidden_size": width, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config={**sizes, **text, "pad_token_id": end, "initializer_factor": WEIGHT_SPREAD},
        vision_config={**sizes, **vision, "initializer_factor": WEIGHT_SPREAD},
        projection_dim=width,
        initializer_factor=WEIGHT_SPREAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIPModel(config)
    config.architectures, config.dtype = [CLIPModel.__name__], torch.float32
    write_text(folder / "config.json", config.to_json_string())
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(tensors, {"format": "pt"}))
