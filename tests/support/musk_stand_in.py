"""A stand-in of MUSK's package: a BEiT3 by the names of MUSK's weights, with what this project calls of the package."""

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.published_other_vlms import randomise, save_pieces, save_tensors

IMAGES, TEXTS = "A", "B"
FIRST_POSITION = 2  # of fairseq


def both(make: Any) -> nn.ModuleDict:
    return nn.ModuleDict({kind: make() for kind in (IMAGES, TEXTS)})


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, both(lambda: nn.Linear(width, width)))
        self.inner_attn_ln = both(lambda: nn.LayerNorm(width, eps=1e-5))

    def forward(self, x: Tensor, kind: str, padding: Tensor | None) -> Tensor:
        q, k, v = (
            getattr(self, name)[kind](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None, :].bool(), float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.out_proj[kind](self.inner_attn_ln[kind](mixed))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.ffn_layernorm = nn.LayerNorm(hidden, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = both(lambda: nn.LayerNorm(width, eps=1e-5))
        self.final_layer_norm = both(lambda: nn.LayerNorm(width, eps=1e-5))
        self.ffn = both(lambda: FeedForward(width, hidden))

    def forward(self, x: Tensor, kind: str, padding: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm[kind](x), kind, padding)
        return x + self.ffn[kind](self.final_layer_norm[kind](x))


class Encoder(nn.Module):
    def __init__(self, sizes: Mapping[str, int]):
        super().__init__()
        width, patches = sizes["encoder_embed_dim"], (sizes["img_size"] // sizes["patch_size"]) ** 2
        self.embed_positions = nn.ModuleDict(
            {IMAGES: nn.Embedding(patches + 3, width), TEXTS: nn.Embedding(1024, width)}
        )
        heads, hidden = sizes["encoder_attention_heads"], sizes["encoder_ffn_embed_dim"]
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(sizes["encoder_layers"]))
        self.layer_norm = both(lambda: nn.LayerNorm(width, eps=1e-5))

    def forward(
        self,
        src_tokens: None,
        encoder_padding_mask: Tensor | None = None,
        token_embeddings: Tensor | None = None,
        multiway_split_position: int = -1,
    ) -> dict[str, Tensor]:
        assert src_tokens is None and token_embeddings is not None
        kind = {-1: IMAGES, 0: TEXTS}[multiway_split_position]
        positions = torch.arange(token_embeddings.shape[1], device=token_embeddings.device) + FIRST_POSITION
        x = token_embeddings + self.embed_positions[kind](positions)
        if encoder_padding_mask is not None:
            x = x * (1 - encoder_padding_mask.unsqueeze(-1).type_as(x))
        for layer in self.layers:
            x = layer(x, kind, encoder_padding_mask)
        return {"encoder_out": self.layer_norm[kind](x)}


class Musk(nn.Module):
    def __init__(self, sizes: Mapping[str, int]):
        super().__init__()
        width, patch = sizes["encoder_embed_dim"], sizes["patch_size"]
        self.beit3 = nn.Module()
        self.beit3.text_embed = nn.Embedding(sizes["vocab_size"], width)
        self.beit3.vision_embed = nn.Module()
        self.beit3.vision_embed.proj = nn.Conv2d(3, width, patch, patch)
        for name in ("cls_token", "mask_token"):
            self.beit3.vision_embed.register_parameter(name, nn.Parameter(torch.zeros(1, 1, width)))
        self.beit3.encoder = Encoder(sizes)
        self.vision_head = nn.Linear(width, width, bias=False)
        self.language_head = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(
        self, image: Tensor, with_head: bool, out_norm: bool, ms_aug: bool, return_global: bool
    ) -> tuple[Tensor, None]:
        assert (with_head, out_norm, ms_aug, return_global) == (True, True, False, True)
        return F.normalize(self.vision_head(self.without_head(image)), dim=-1), None

    def without_head(self, image: Tensor) -> Tensor:
        """What ``with_head=False, out_norm=False`` gives."""
        embed = self.beit3.vision_embed
        patches = embed.proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([embed.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        states: Tensor = self.beit3.encoder(None, token_embeddings=tokens)["encoder_out"]
        return states[:, 0]


def install_stand_in(sizes: Mapping[str, int], patch: pytest.MonkeyPatch) -> None:
    """A package ``musk`` with ``musk.modeling``, and its network of some sizes among timm's architectures."""
    from timm.models import _registry

    for name in ("musk", "musk.modeling"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=name == "musk")
        patch.setitem(sys.modules, name, module)
    patch.setitem(_registry._model_entrypoints, "musk_large_patch16_384", lambda pretrained=False, **_: Musk(sizes))


def save_musk(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A small MUSK as the hub has it, and the stand-in installed in its size."""
    folder.mkdir()
    rows = save_pieces(folder / "spiece.model") + 10
    (folder / "spiece.model").rename(folder / "tokenizer.spm")
    sizes = {
        "img_size": 32, "patch_size": 16, "encoder_embed_dim": 8, "encoder_attention_heads": 2,
        "encoder_ffn_embed_dim": 12, "encoder_layers": 2, "vocab_size": rows,
    }  # fmt: skip
    install_stand_in(sizes, patch)
    save_tensors(randomise(Musk(sizes), 0).state_dict(), folder / "model.safetensors")
    return folder


def load_musk(folder: Path) -> Musk:
    """The stand-in with the weights of a folder."""
    import timm
    from safetensors.torch import load_file

    musk: Any = timm.create_model("musk_large_patch16_384")
    musk.load_state_dict(load_file(folder / "model.safetensors"))
    made: Musk = musk.eval()
    return made
