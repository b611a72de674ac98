"""Small models with random weights, saved as each family publishes its models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import SimpleTokenizer
from torch import Tensor

import utils.torchvision_compat  # noqa: F401  (before transformers)
from conch.tokenizer import TOKENIZER_FILE
from models.tiny_clip import save_tiny_clip
from tests.support.conch_weights import SMALL, SMALL_WIDTH, small_visual

# ---- CLIP ------------------------------------------------------------------------------------------------------------


def save_clip_with_tokenizer(folder: Path) -> Path:
    """A CLIP folder as the hub serves it: config.json, model.safetensors, and tokenizer files."""
    from transformers import CLIPTokenizer

    save_tiny_clip(folder, width=32, seed=3)
    vocabulary, merges = _clip_vocabulary()
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    return folder


def save_clip_vocabulary(folder: Path) -> None:
    """CLIP's vocabulary as vocab.json and merges.txt."""
    vocabulary, merges = _clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")


def _clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    standard = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): index for token, index in standard.encoder.items()}
    return vocabulary, sorted(standard.bpe_ranks, key=standard.bpe_ranks.__getitem__)


def change_clip_weights(folder: Path, new: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace the weights of a CLIP folder."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(new(load_file(file)), file, metadata={"format": "pt"})


def without_weights(part: str) -> Callable[[Path], None]:
    """What takes the weights with ``part`` in their names out of a CLIP folder."""

    def spoil(folder: Path) -> None:
        change_clip_weights(folder, lambda state: {name: value for name, value in state.items() if part not in name})

    return spoil


# ---- CONCH -----------------------------------------------------------------------------------------------------------

CONCH_TEXT = {
    "context_length": 24, "vocab_size": 300, "width": 16, "heads": 2, "layers": 2, "embed_cls": True, "pad_id": 0,
}  # fmt: skip


def save_conch(folder: Path, seed: int = 0) -> Path:
    """CONCH's weight file, both sides small, with its sizes and a tokenizer beside it. Returns the weight file."""
    from open_clip.transformer import TextTransformer

    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tower = TextTransformer(**CONCH_TEXT, output_dim=SMALL_WIDTH, output_tokens=True, correct_cls_mask=False)
        state = {f"text.{name}": torch.randn(value.shape) * 0.3 for name, value in tower.state_dict().items()}
    visual = {name: value + 0.01 * seed for name, value in small_visual().items()}
    torch.save({"logit_scale": torch.tensor(4.0), **state, **visual}, folder / "pytorch_model.bin")
    config = {"embed_dim": SMALL_WIDTH, "text_cfg": CONCH_TEXT, "vision_cfg": SMALL}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_byte_tokenizer(folder / TOKENIZER_FILE)
    return folder / "pytorch_model.bin"


def copy_golden_conch(golden: Path, folder: Path) -> Path:
    """The small CONCH of the golden cases with its tokenizer beside it. Returns the weight file."""
    for file in ("visible_conch/pytorch_model.bin", "visible_conch/open_clip_config.json"):
        shutil.copy(golden / file, folder)
    shutil.copy(golden / "conch_tokenizer" / TOKENIZER_FILE, folder)
    return folder / "pytorch_model.bin"


def save_byte_tokenizer(file: Path) -> None:
    """A tokenizer in the form of CONCH's file, with one token a byte."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<pad>", "<start_of_text>", "<end_of_text>", *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    tokenizer.save(str(file))


# ---- open_clip -------------------------------------------------------------------------------------------------------

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
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


def save_open_clip(
    folder: Path, kind: str = "vit", weights: str = "open_clip_pytorch_model.bin", seed: int = 0, **more: Any
) -> Path:
    """A folder as open_clip's hub repositories are."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    config = {"model_cfg": OPEN_CLIPS[kind], **more}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder
