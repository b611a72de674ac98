"""An example of every family: a small published model, and what its own library makes of images and texts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from models.tiny_clip import save_tiny_clip
from models.vlms.loading import read_weights
from models.vlms.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from tests.support.images import as_pillow
from tests.support.published_other_vlms import (
    bert_tokens,
    load_keep,
    load_open_clip_bert,
    save_dual_encoder,
    save_keep,
    save_open_clip_bert,
    save_siglip,
)
from tests.support.published_vlms import save_conch, save_open_clip


@dataclass(frozen=True)
class Example:
    """A family's model on the disk, and what its own library makes of images and texts.

    save: (folder, seed) -> what --vlm_path names. pixels: images for the tower. features: of those pixels. text_ids:
    (N, L) ids of texts with the special ones. text_features: of those ids. own_features: what the image tower makes of
    pixels before the projection; None where it has none.
    """

    family: str
    normalised: bool
    save: Callable[[Path, int], Path]
    pixels: Callable[[Path, Tensor], Tensor]
    features: Callable[[Path, Tensor], Tensor]
    text_ids: Callable[[Path, list[str]], Tensor]
    text_features: Callable[[Path, Tensor], Tensor]
    own_features: Callable[[Path, Tensor], Tensor] | None


# ---- CLIP ------------------------------------------------------------------------------------------------------------


def save_clip(folder: Path, seed: int) -> Path:
    save_tiny_clip(folder, width=32, seed=seed)
    return folder


def clip_pixels(folder: Path, images: Tensor) -> Tensor:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return torch.as_tensor(processor(images=as_pillow(images), return_tensors="pt")["pixel_values"])


def of_clip(method: str) -> Callable[[Path, Tensor], Tensor]:
    def features(folder: Path, inputs: Tensor) -> Tensor:
        from transformers import CLIPModel

        return getattr(CLIPModel.from_pretrained(folder), method)(inputs).pooler_output

    return features


def clip_own_features(folder: Path, pixels: Tensor) -> Tensor:
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(folder).vision_model(pixels).pooler_output


# ---- CONCH -----------------------------------------------------------------------------------------------------------


def conch_pixels(weights: Path, images: Tensor) -> Tensor:
    return torch.stack([open_clip.image_transform(32, is_train=False)(image) for image in as_pillow(images)])


def conch_features(weights: Path, pixels: Tensor) -> Tensor:
    from conch.image_tower import load_image_tower

    return load_image_tower(weights, read_weights([weights])).eval()(pixels)


def conch_own_features(weights: Path, pixels: Tensor) -> Tensor:
    from conch.image_tower import load_image_tower

    return load_image_tower(weights, read_weights([weights])).eval().pool(pixels)


def conch_ids(weights: Path, texts: list[str]) -> Tensor:
    """One token a byte, in the order of the byte level alphabet; start 1, end 2, padding 0."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    rows = [[1, *(3 + alphabet.index("Ġ" if letter == " " else letter) for letter in text), 2] for text in texts]
    return torch.tensor([row + [0] * (24 - len(row)) for row in rows])


def conch_text_features(weights: Path, ids: Tensor) -> Tensor:
    from conch.text_tower import load_text_transformer

    return load_text_transformer(weights, read_weights([weights]))[0].eval()(ids)[0]


# ---- open_clip -------------------------------------------------------------------------------------------------------


def open_clip_pixels(folder: Path, images: Tensor) -> Tensor:
    transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
    return torch.stack([transform(image) for image in as_pillow(images)])


def open_clip_features(folder: Path, pixels: Tensor) -> Tensor:
    return open_clip.create_model(f"local-dir:{folder}").eval().encode_image(pixels, normalize=False)


def open_clip_own_features(folder: Path, pixels: Tensor) -> Tensor:
    visual = open_clip.create_model(f"local-dir:{folder}").eval().visual
    visual.proj = None
    given = visual(pixels)
    return given[0] if isinstance(given, tuple) else given


def open_clip_text_features(folder: Path, ids: Tensor) -> Tensor:
    return open_clip.create_model(f"local-dir:{folder}").eval().encode_text(ids, normalize=False)


def of_open_clip(name: str, kind: str, length: int) -> Example:
    return Example(
        name, False, lambda folder, seed: save_open_clip(folder, kind, seed=seed), open_clip_pixels,
        open_clip_features, lambda folder, texts: open_clip.tokenize(texts, length), open_clip_text_features,
        None if kind == "resnet" else open_clip_own_features,
    )  # fmt: skip


# ---- with BERT -------------------------------------------------------------------------------------------------------


def torchvision_pixels(folder: Path, images: Tensor) -> Tensor:
    return torch.stack([open_clip.image_transform(32, is_train=False)(image) for image in as_pillow(images)])


def keep_pixels(folder: Path, images: Tensor) -> Tensor:
    transform = open_clip.image_transform(32, is_train=False, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return torch.stack([transform(image) for image in as_pillow(images)])


def bert_ids(folder: Path, texts: list[str]) -> Tensor:
    return bert_tokens(folder, texts)["input_ids"]


def keep_text_features(folder: Path, ids: Tensor) -> Tensor:
    return load_keep(folder).encode_text({"input_ids": ids, "attention_mask": (ids != 0).long()})


# ---- transformers ----------------------------------------------------------------------------------------------------


def transformers_pixels(folder: Path, images: Tensor) -> Tensor:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    return processor(images=as_pillow(images), return_tensors="pt")["pixel_values"]


def of_transformers(method: str) -> Callable[[Path, Tensor], Tensor]:
    def features(folder: Path, inputs: Tensor) -> Tensor:
        from transformers import AutoModel

        masked = (
            {"attention_mask": (inputs != 0).long()} if (folder / "vocab.txt").exists() and "text" in method else {}
        )
        return getattr(AutoModel.from_pretrained(folder).eval(), method)(inputs, **masked).pooler_output

    return features


def siglip_ids(folder: Path, texts: list[str]) -> Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer(texts, padding="max_length", max_length=32, return_tensors="pt")["input_ids"]


EXAMPLES = [
    Example(
        "Hugging Face CLIP", False, save_clip, clip_pixels, of_clip("get_image_features"),
        lambda folder, texts: open_clip.tokenize(texts), of_clip("get_text_features"), clip_own_features,
    ),
    Example(
        "CONCH", True, save_conch, conch_pixels, conch_features, conch_ids, conch_text_features, conch_own_features
    ),
    of_open_clip("open_clip", "vit", 12),
    of_open_clip("open_clip", "quick_gelu", 12),
    of_open_clip("open_clip", "resnet", 12),
    of_open_clip("open_clip", "coca", 12),
    Example(
        "open_clip with BERT", False, save_open_clip_bert, torchvision_pixels,
        lambda folder, pixels: load_open_clip_bert(folder).encode_image(pixels), bert_ids,
        lambda folder, ids: load_open_clip_bert(folder).encode_text(ids),
        lambda folder, pixels: load_open_clip_bert(folder).visual.trunk(pixels),
    ),
    Example(
        "KEEP", True, save_keep, keep_pixels, lambda folder, pixels: load_keep(folder).encode_image(pixels), bert_ids,
        keep_text_features, lambda folder, pixels: load_keep(folder).visual(pixels),
    ),
    Example(
        "SigLIP", False, save_siglip, transformers_pixels, of_transformers("get_image_features"), siglip_ids,
        of_transformers("get_text_features"), None,
    ),
    Example(
        "VisionTextDualEncoder", False, save_dual_encoder, transformers_pixels, of_transformers("get_image_features"),
        bert_ids, of_transformers("get_text_features"), of_transformers("vision_model"),
    ),
]  # fmt: skip
