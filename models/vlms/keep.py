"""KEEP (Zhou et al., 2024): a ViT-L/16 with a projection of two layers, and BERT with its own pooler.

The networks are built here from timm and transformers: the repository's own code is not run. The hub's file names the
LayerScale weights ``ls1.weight``, the authors' copy on Google Drive ``ls1.gamma``, as timm does.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before timm and transformers)
from models.vlms.bert import BertTextSide, TextTower, bert_config, make_bert
from models.vlms.catalogue import KEEP
from models.vlms.heads import linear_layer, make_head
from models.vlms.loading import (
    build,
    count_layers,
    only_tensor,
    reading_config,
    renamed,
    with_prefix,
    without_position_ids,
)
from models.vlms.places import CONFIG, ModelFiles
from models.vlms.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from models.vlms.sides import Family, ImageSide
from models.vlms.tokenizers import BERT_FILES, own_tokenizer
from utils.image_head import ImageHead

MODEL_TYPE = "keep"
CONTEXT_LENGTH = 256
HEAD_WIDTH = 64
VISUAL = ("visual.", "visual_head.")


class KeepImageTower(nn.Module):
    """Features projected and of unit length. trunk: unprojected features (N, V); V is the ViT's width."""

    def __init__(self, vit: nn.Module, width: int, output_dim: int):
        super().__init__()
        self.visual = vit
        self.visual_head = nn.Sequential(nn.Linear(width, output_dim), nn.GELU(), nn.Linear(output_dim, output_dim))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.visual_head(self.visual(images)), dim=-1)


def load_text(files: ModelFiles) -> BertTextSide:
    """The text side. The vision side is not looked at.

    Raises UserError where weights are missing or do not fit, and where the tokenizer is not in the folder.
    """
    tensors = without_position_ids(with_prefix(files.tensors, "text."))
    with reading_config(str(files.folder / CONFIG)):
        config = bert_config(renamed(tensors, "text."), _said(files, "text_config"))
    tower: Any = build(lambda: TextTower(text=make_bert(config, with_pooler=True)), tensors, "text", files.told)
    tokenizer = own_tokenizer(files.folder, config.vocab_size, BERT_FILES)
    scale = only_tensor(files.tensors, "logit_scale", files.told)
    length = min(CONTEXT_LENGTH, config.max_position_embeddings)
    return BertTextSide(tower.text, nn.Identity(), "pooler", scale, tokenizer, length, config.hidden_size)


def load_image(files: ModelFiles) -> ImageSide:
    """The image side; its features are projected and of unit length. The text side is not looked at.

    Raises UserError where weights are missing or do not fit.
    """
    tensors = {
        re.sub(r"\.ls([12])\.weight$", r".ls\1.gamma", name): value
        for name, value in with_prefix(files.tensors, *VISUAL).items()
    }
    for name in ("visual.patch_embed.proj.weight", "visual.pos_embed", "visual_head.2.weight"):
        only_tensor(tensors, name, files.told)
    said = _said(files, "vision_config")
    with reading_config(str(files.folder / CONFIG)):
        sizes = _vit_sizes(tensors, said.get("num_heads") or said.get("num_attention_heads"))
    width, output_dim, size = sizes["embed_dim"], len(tensors["visual_head.2.weight"]), sizes["img_size"]
    tower = build(lambda: KeepImageTower(_vit(sizes), width, output_dim), tensors, "image", files.told)
    transform = Preprocessing(size, size, IMAGENET_MEAN, IMAGENET_STD)
    return ImageSide(tower, output_dim, transform, {"num_heads": sizes["num_heads"]}, normalised=True)


def load_head(files: ModelFiles) -> ImageHead:
    """What KEEP does to its ViT's class token. Raises UserError where its two layers are not there."""
    first, second = linear_layer(files, "visual_head.0"), linear_layer(files, "visual_head.2")
    return make_head(files, first, second, normalised=True)


def _said(files: ModelFiles, part: str) -> dict[str, Any]:
    said = (files.config() or {}).get(part)
    return said if isinstance(said, dict) else {}


def _vit_sizes(tensors: Mapping[str, Tensor], heads: int | None) -> dict[str, int]:
    """The sizes of a timm ViT as its weights tell them."""
    width, _, patch, _ = tensors["visual.patch_embed.proj.weight"].shape
    edge = round((tensors["visual.pos_embed"].shape[1] - 1) ** 0.5)
    return {
        "img_size": patch * edge,
        "patch_size": patch,
        "embed_dim": width,
        "depth": count_layers(tensors, "visual.blocks."),
        "num_heads": heads or max(1, width // HEAD_WIDTH),
    }


def _vit(sizes: Mapping[str, Any]) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    vit: nn.Module = VisionTransformer(**sizes, init_values=1e-5, num_classes=0, dynamic_img_size=True)
    return vit


FAMILY = Family(
    name=KEEP,
    recognises=lambda names: any(
        name.startswith(("visual_head.", "text.embeddings.word_embeddings.")) for name in names
    ),
    load_text=load_text,
    load_image=load_image,
    model_types=(MODEL_TYPE,),
    load_head=load_head,
)
