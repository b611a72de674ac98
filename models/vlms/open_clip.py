"""Models of the open_clip library whose texts are read causally: CLIP with a ViT or a ResNet, CoCa (OmiCLIP).

A model is a folder with ``open_clip_config.json``, a checkpoint of ``open_clip:ARCH``, or a checkpoint alone, whose
sizes its weights tell. The activation is in no weight: it is what the configuration or the architecture says
(``ViT-B-16-quickgelu``), what the catalogue says of a published model, else open_clip's own, GELU.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before timm and open_clip)
from models.vlms.catalogue import OPEN_CLIP
from models.vlms.heads import linear_layer, make_head, matrix_layer, no_head
from models.vlms.loading import build, count_layers, only_tensor, reading_config, renamed, with_prefix
from models.vlms.places import OPEN_CLIP_CONFIG, ModelFiles
from models.vlms.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from models.vlms.sides import Family, ImageSide, TextSide
from models.vlms.text_transformer import CausalTextSide, ClassTokenTextSide
from models.vlms.tokenizers import clip_tokenizer
from utils.errors import Fault, UserError
from utils.image_head import ImageHead

LIST_OF_ARCHITECTURES = 'python -c "import open_clip; print(open_clip.list_models())"'
OF_TEXTS = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")
"""Names of text weights where they have no prefix of their own; in the form of CoCa all have ``text.``."""
HEAD_WIDTH = 64  # of every published ViT and text tower


# ---- configurations --------------------------------------------------------------------------------------------------


def described(files: ModelFiles) -> tuple[dict[str, Any], str]:
    """The configuration of a model and where it is from. Raises UserError where its architecture is not known."""
    if files.architecture:
        from open_clip import get_model_config

        config = get_model_config(files.architecture)
        if config is None:
            where, found = f"open_clip:{files.architecture}", f"open_clip has no architecture {files.architecture}"
            mend = f"list them with: {LIST_OF_ARCHITECTURES}"
            raise UserError(Fault("vlm.unknown_architecture", where, found, mend=mend))
        return {"model_cfg": config}, f"{files.told} with open_clip's {files.architecture}"
    config = files.config(OPEN_CLIP_CONFIG)
    if config is not None:
        return config, f"{files.told} with {OPEN_CLIP_CONFIG}"
    with reading_config(files.told):
        return {"model_cfg": sizes_of(files.tensors)}, files.told


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """``model_cfg`` of a CLIP or a CoCa as its weights tell it; heads are as wide as in every published model.

    Raises KeyError where a weight that tells a size is missing.
    """
    text = text_weights(tensors)
    width, length = text["token_embedding.weight"].shape[1], len(text["positional_embedding"])
    layers = "resblocks."
    has_class = "cls_emb" in text
    said = {
        "context_length": length - has_class, "vocab_size": len(text["token_embedding.weight"]), "width": width,
        "heads": max(1, width // HEAD_WIDTH), "layers": count_layers(text, f"transformer.{layers}"),
        "embed_cls": has_class,
    }  # fmt: skip
    visual = renamed(tensors, "visual.")
    embed_dim = int(text["text_projection"].shape[1])
    if "attnpool.positional_embedding" in visual:
        edge = _edge(len(visual["attnpool.positional_embedding"]) - 1)
        blocks = [count_layers(visual, f"layer{stage}.") for stage in (1, 2, 3, 4)]
        width = len(visual["layer1.0.conv1.weight"])
        vision = {"image_size": 32 * edge, "layers": blocks, "width": width}
    else:
        wide, _, patch, _ = visual["conv1.weight"].shape
        vision = {
            "image_size": patch * _edge(len(visual["positional_embedding"]) - 1), "patch_size": patch, "width": wide,
            "layers": count_layers(visual, f"transformer.{layers}"), "head_width": min(HEAD_WIDTH, wide),
        }  # fmt: skip
        if "attn_pool.query" in visual:
            queries = len(visual["attn_pool.query"])
            vision |= {"attentional_pool": True, "attn_pooler_queries": queries, "output_tokens": True}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": said}


def _edge(patches: int) -> int:
    edge: int = round(patches**0.5)
    return edge


def text_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's weights by open_clip's names of a tower that stands by itself, in either form of a file."""
    return renamed(tensors, "text.") or with_prefix(tensors, *OF_TEXTS)


def _quick_gelu(model: Mapping[str, Any], files: ModelFiles) -> bool:
    told = model.get("quick_gelu")
    return bool(files.entry and files.entry.quick_gelu and not files.architecture) if told is None else bool(told)


# ---- texts -----------------------------------------------------------------------------------------------------------


def load_text(files: ModelFiles) -> TextSide:
    """The text side of a CLIP or a CoCa. The vision side is not looked at.

    Raises UserError where the text tower is of another kind, where its weights are missing or do not fit, and where the
    tokenizer cannot be had.
    """
    from open_clip.model import _build_text_tower

    config, told = described(files)
    with reading_config(told):
        model = config["model_cfg"]
        said = {**model["text_cfg"], "output_tokens": False}
        kind = ClassTokenTextSide if said.get("embed_cls") else CausalTextSide
        vocabulary, width = said.get("vocab_size", 49408), model["embed_dim"]
    tensors = text_weights(files.tensors)
    if why := _not_causal(said):
        found = f"its text tower is not read: {why}"
        mend = "name the model in the form of transformers, or another model"
        raise UserError(Fault("vlm.no_text_side", files.told, found, mend=mend))
    quick_gelu = _quick_gelu(model, files)
    with reading_config(told):
        tower: Any = build(lambda: _build_text_tower(width, said, quick_gelu), tensors, "text", told)
    scale = only_tensor(files.tensors, "logit_scale", files.told)
    return kind(tower, scale.reshape(()), clip_tokenizer(files.folder, vocabulary))


def _not_causal(said: Mapping[str, Any]) -> str | None:
    """What of a text tower is read by none of this project's text sides."""
    if said.get("hf_model_name"):
        return f"it is {said['hf_model_name']}, whose weights are not in the file"
    pools = said.get("pool_type", "argmax")
    if said.get("no_causal_mask") or pools != "argmax":
        return "it has no causal mask" if said.get("no_causal_mask") else f"it pools by {pools!r}"
    odd = [name for name in ("block_type", "qk_norm", "scaled_cosine_attn", "proj_type") if said.get(name)]
    return f"it has {', '.join(odd)}" if odd and said.get("proj_type") != "linear" else None


# ---- images ----------------------------------------------------------------------------------------------------------


class OpenClipImageTower(nn.Module):
    """The vision side of an open_clip model: what its encode_image gives, not normalised."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        given = self.visual(images)
        features: Tensor = given[0] if isinstance(given, tuple) else given  # CoCa's tower gives tokens too
        return features


def load_image(files: ModelFiles) -> ImageSide:
    """The image side of any open_clip model; its text side is not looked at. Features are not normalised.

    Raises UserError where the configuration describes no model, and where weights are missing or do not fit it.
    """
    from open_clip.model import _build_vision_tower

    config, told = described(files)
    with reading_config(told):
        model = config["model_cfg"]
        vision = {**model["vision_cfg"], "timm_model_pretrained": False}
        quick_gelu, width = _quick_gelu(model, files), model["embed_dim"]
        transform = _preprocessing(vision.get("image_size", 224), config.get("preprocess_cfg") or {})
        tensors = with_prefix(files.tensors, "visual.")
        tower = build(
            lambda: OpenClipImageTower(_build_vision_tower(width, vision, quick_gelu)), tensors, "image", told
        )
    return ImageSide(tower, width, transform, {"quick_gelu": quick_gelu, "vision": vision})


def _preprocessing(image_size: Any, said: Mapping[str, Any]) -> Preprocessing:
    """What ``preprocess_cfg`` says, else CLIP's standard, at the tower's own size (an edge, or height and width).

    Raises ValueError where that is no square, or a resizing that is not known.
    """
    size, *others = {image_size} if isinstance(image_size, int) else set(image_size)
    if others:
        raise ValueError(f"images of {image_size} pixels are not square")
    mode = said.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise ValueError(f"resize_mode {mode!r}: expected shortest or squash")
    mean, std = tuple(said.get("mean") or CLIP_MEAN), tuple(said.get("std") or CLIP_STD)
    return Preprocessing(size, size, mean, std, said.get("interpolation") or "bicubic", squash=mode == "squash")


def load_head(files: ModelFiles) -> ImageHead:
    """What a ViT of open_clip or of timm does to its own features. Raises UserError where there is no projection, as in
    a ResNet, whose attention pool ends in the joint space."""
    if "visual.proj" in files.tensors:
        return make_head(files, matrix_layer(files, "visual.proj"))
    for names in (("visual.head.proj",), ("visual.head.mlp.fc1", "visual.head.mlp.fc2")):
        if f"{names[0]}.weight" in files.tensors:
            return make_head(files, *(linear_layer(files, name) for name in names))
    return no_head(files)


# ---- the family ------------------------------------------------------------------------------------------------------


def _recognises(names: Collection[str]) -> bool:
    return "text.cls_emb" in names or any(
        name.startswith(("visual.", "text.token_embedding", "token_embedding.")) for name in names
    )


FAMILY = Family(name=OPEN_CLIP, recognises=_recognises, load_text=load_text, load_image=load_image, load_head=load_head)
