"""A text tower, texts and slides with random contents, for the benchmarks."""

import torch

import utils.torchvision_compat  # noqa: F401  (before transformers)
from models.vlms.clip import ClipTextSide
from models.vlms.tokenizers import StandardTokenizer
from utils.interface import Bag

DIM, NUM_CHILDREN, NUM_CLASSES = 512, 16, 2
MISSING = 0.06  # of the children, as in a slide of 1,880 and 28,249 patches
WORDS = [
    "nests",
    "of",
    "polygonal",
    "tumour",
    "cells",
    "with",
    "clear",
    "cytoplasm",
    "keratin",
    "pearls",
    "papillae",
    "thin",
    "fibrovascular",
    "cores",
    "necrosis",
    "lymphocytes",
    "around",
    "glands",
    "mitoses",
    "crisp",
    "borders",
    "dense",
    "stroma",
    "vessels",
    "foamy",
    "macrophages",
    "small",
    "nucleoli",
]


def clip_tower(layers: int = 12) -> ClipTextSide:
    """PLIP's text side, ViT-B/32's: 512 wide, 12 layers, 8 heads, with random weights. layers: fewer of its layers."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = CLIPConfig(
        text_config={**text, "num_hidden_layers": layers, "initializer_factor": 3.0},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=DIM,
        initializer_factor=3.0,
    )
    return ClipTextSide(CLIPModel(config).float(), StandardTokenizer()).requires_grad_(False).eval()


def slide(num_parents: int, device: torch.device, seed: int = 0, num_children: int | None = None) -> Bag:
    """Random features. num_children: patches at the high magnification in all, at random places (default: a share of
    ``MISSING`` is not there)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(num_parents, NUM_CHILDREN, generator=generator)
    least = MISSING if num_children is None else drawn.flatten().sort(descending=True).values[num_children - 1]
    mask = drawn >= least
    low = torch.randn(num_parents, DIM, generator=generator)
    high = torch.randn(num_parents, NUM_CHILDREN, DIM, generator=generator).mul_(mask.unsqueeze(-1))
    return Bag(f"slide_{seed}", low, high, mask, seed % NUM_CLASSES).to(device)
