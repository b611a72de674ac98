"""What holds for every family of vision-language models, on a small random model of each in its published form."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from models.prompts import PromptLearner, PromptTokens
from models.tiny_clip import save_tiny_clip
from models.vlms import ImageSide, TextSide, load_image_side, load_text_side
from models.vlms.loading import read_weights
from models.vlms.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.vlms.registry import FAMILIES, Source, family_of, find_model
from tests.support.golden_vlms import register_tiny_vit
from tests.support.images import as_pillow, assert_alike, draw_images, encode, grey_levels
from tests.support.published_other_vlms import (
    VIT,
    bert_tokens,
    load_keep,
    load_open_clip_bert,
    save_dual_encoder,
    save_keep,
    save_open_clip_bert,
    save_siglip,
)
from tests.support.published_vlms import save_conch, save_open_clip

TEXTS = ["small nests", "mitoses", "clear cells (5x)"]


@dataclass(frozen=True)
class Example:
    """A family's model on the disk, and what its own library makes of images and texts.

    save: (folder, seed) -> what --vlm_path names. pixels: images for the tower. features: of those pixels. text_ids:
    (N, L) ids of texts with the special ones. text_features: of those ids.
    """

    family: str
    normalised: bool
    save: Callable[[Path, int], Path]
    pixels: Callable[[Path, Tensor], Tensor]
    features: Callable[[Path, Tensor], Tensor]
    text_ids: Callable[[Path, list[str]], Tensor]
    text_features: Callable[[Path, Tensor], Tensor]


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


# ---- CONCH -----------------------------------------------------------------------------------------------------------


def conch_pixels(weights: Path, images: Tensor) -> Tensor:
    return torch.stack([open_clip.image_transform(32, is_train=False)(image) for image in as_pillow(images)])


def conch_features(weights: Path, pixels: Tensor) -> Tensor:
    from conch.image_tower import load_image_tower

    return load_image_tower(weights, read_weights([weights])).eval()(pixels)


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


def open_clip_text_features(folder: Path, ids: Tensor) -> Tensor:
    return open_clip.create_model(f"local-dir:{folder}").eval().encode_text(ids, normalize=False)


def of_open_clip(name: str, kind: str, length: int) -> Example:
    return Example(
        name, False, lambda folder, seed: save_open_clip(folder, kind, seed=seed), open_clip_pixels,
        open_clip_features, lambda folder, texts: open_clip.tokenize(texts, length), open_clip_text_features,
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
        lambda folder, texts: open_clip.tokenize(texts), of_clip("get_text_features"),
    ),
    Example("CONCH", True, save_conch, conch_pixels, conch_features, conch_ids, conch_text_features),
    of_open_clip("open_clip", "vit", 12),
    of_open_clip("open_clip", "quick_gelu", 12),
    of_open_clip("open_clip", "resnet", 12),
    of_open_clip("open_clip", "coca", 12),
    Example(
        "open_clip with BERT", False, save_open_clip_bert, torchvision_pixels,
        lambda folder, pixels: load_open_clip_bert(folder).encode_image(pixels), bert_ids,
        lambda folder, ids: load_open_clip_bert(folder).encode_text(ids),
    ),
    Example(
        "KEEP", True, save_keep, keep_pixels, lambda folder, pixels: load_keep(folder).encode_image(pixels), bert_ids,
        keep_text_features,
    ),
    Example(
        "SigLIP", False, save_siglip, transformers_pixels, of_transformers("get_image_features"), siglip_ids,
        of_transformers("get_text_features"),
    ),
    Example(
        "VisionTextDualEncoder", False, save_dual_encoder, transformers_pixels, of_transformers("get_image_features"),
        bert_ids, of_transformers("get_text_features"),
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_vit(VIT, monkeypatch)


of_examples = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.family)


def image_side(example: Example, folder: Path, seed: int = 0) -> ImageSide:
    return load_image_side("any", str(example.save(folder, seed)))


def text_side(example: Example, folder: Path, seed: int = 0) -> TextSide:
    return load_text_side("any", str(example.save(folder, seed)))


def test_every_family_has_an_example() -> None:
    without = {"MUSK"}  # its network is in its authors' package: tests/models/vlms/test_musk.py
    assert {family.name for family in FAMILIES} - without == {example.family for example in EXAMPLES}


@of_examples
def test_the_family_is_recognised_by_its_files(tmp_path: Path, example: Example) -> None:
    files = find_model(Source("any", str(example.save(tmp_path / "model", 0))))
    assert family_of(files).name == example.family


# ---- images ----------------------------------------------------------------------------------------------------------


@of_examples
def test_images_are_prepared_and_encoded_as_by_the_library(tmp_path: Path, example: Example) -> None:
    path = example.save(tmp_path / "model", 0)
    side, images = load_image_side("any", str(path)), draw_images()
    pixels = example.pixels(path, images)
    with torch.no_grad():
        expected = example.features(path, pixels)
        np.testing.assert_allclose(side.tower(pixels), expected, rtol=0, atol=1e-4)
    ours = side.transform(images)
    assert (ours.dtype, ours.shape) == (torch.float32, pixels.shape)
    assert grey_levels(ours - pixels) < 2.01
    features = encode(side, images)
    assert_alike(features, expected)
    assert (side.output_dim, side.projected, side.normalised) == (features.shape[1], True, example.normalised)
    assert bool(((features.norm(dim=1) - 1).abs() < 1e-5).all()) == example.normalised


@of_examples
def test_an_image_side_takes_bytes_and_each_patch_by_itself(tmp_path: Path, example: Example) -> None:
    side, images = image_side(example, tmp_path / "model"), draw_images()
    before = images.clone()
    features = encode(side, images)
    assert torch.equal(images, before)
    for row, image in zip(features, images, strict=True):
        np.testing.assert_allclose(encode(side, image[None])[0], row, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encode(side, images).dtype == torch.float32
    with pytest.raises(TypeError, match=r"torch\.float32, expected torch\.uint8"):
        side.encode_images(images.float() / 255)
    if torch.cuda.is_available():
        on_device = encode(side.to("cuda"), images.to("cuda"))
        assert on_device.is_cuda
        assert_alike(on_device.cpu(), features)


# ---- texts -----------------------------------------------------------------------------------------------------------


@of_examples
def test_texts_are_tokenised_and_encoded_as_by_the_library(tmp_path: Path, example: Example) -> None:
    path = example.save(tmp_path / "model", 0)
    side, ids = load_text_side("any", str(path)), example.text_ids(path, TEXTS)
    tokens = PromptTokens(side, TEXTS, 0, "end")
    assert torch.equal(tokens.token_ids, ids)
    assert side.tokenize(TEXTS) == [without_special(side, row.tolist()) for row in ids]
    with torch.no_grad():
        expected = example.text_features(path, ids)
        embeddings = side.embed(ids)
        np.testing.assert_allclose(side.encode_prompts(embeddings, ids), expected, rtol=0, atol=1e-5)
        tree = side.prefix_tree(ids, torch.zeros(len(ids), dtype=torch.long))
        np.testing.assert_allclose(side.encode_prompts(embeddings, ids, tree), expected, rtol=0, atol=1e-5)
    assert embeddings.shape == (*ids.shape, side.width)
    assert (side.context_length, side.output_dim) == (ids.shape[1], expected.shape[1])


def without_special(side: TextSide, ids: list[int]) -> list[int]:
    start, end, _ = side.special_tokens
    assert start is None or ids[0] == start
    return ids[0 if start is None else 1 : ids.index(end)]


@of_examples
def test_both_sides_meet_in_one_space(tmp_path: Path, example: Example) -> None:
    texts, images = text_side(example, tmp_path / "model"), image_side(example, tmp_path / "model")
    assert texts.output_dim == images.output_dim == encode(images, draw_images(32, 32)).shape[1]
    assert texts.logit_scale.shape == () and texts.logit_scale.dtype == torch.float32


@of_examples
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_gradients_reach_the_context_and_the_side_keeps_none(tmp_path: Path, example: Example, position: str) -> None:
    side = text_side(example, tmp_path / "model")
    prompts = PromptLearner(side, TEXTS[:1], TEXTS[1:2], 1, 4, position=position).train()
    assert [name for name, value in prompts.named_parameters() if value.requires_grad] == ["context_tokens"]
    assert not side.training
    torch.cat(prompts()).square().sum().backward()
    gradient = prompts.context_tokens.grad
    assert gradient is not None and (gradient.abs().sum(1) > 0).all()
    assert all(value.grad is None for value in side.parameters())


# ---- both ------------------------------------------------------------------------------------------------------------


@of_examples
def test_sides_are_frozen_on_the_cpu_and_known_by_their_weights(tmp_path: Path, example: Example) -> None:
    for side in (image_side, text_side):
        one, again = (side(example, tmp_path / name) for name in ("one", "again"))
        other = side(example, tmp_path / "other", seed=1)
        assert not any(module.training for module in one.modules())
        assert not any(value.requires_grad for value in one.parameters())
        assert {value.device.type for value in one.state_dict().values()} == {"cpu"}
        assert one.fingerprint() == again.fingerprint() != other.fingerprint()
        with torch.no_grad():
            next(iter(one.parameters())).view(-1)[0] += 1
        assert one.fingerprint() != again.fingerprint()


@of_examples
def test_an_image_side_is_known_by_all_that_makes_its_features(tmp_path: Path, example: Example) -> None:
    one, again = (image_side(example, tmp_path / name) for name in ("one", "again"))
    identity = one.identity()
    assert identity == again.identity() and identity.fingerprint != image_side(example, tmp_path / "b", 1).identity()[2]
    assert (identity.family, identity.name, identity.projected) == (example.family, "", True)
    assert identity.normalised == example.normalised
    again.transform = replace(again.transform, mean=(0.1, 0.2, 0.3))
    assert again.identity().fingerprint != identity.fingerprint
    one.settings = {**one.settings, "num_heads": 99}
    assert one.identity().fingerprint != identity.fingerprint


@of_examples
def test_text_and_image_side_come_from_the_same_files(tmp_path: Path, example: Example) -> None:
    path = example.save(tmp_path / "model", 0)
    text, image = load_text_side("any", str(path)), load_image_side("any", str(path))
    assert text.origin == image.origin
    assert text.origin.family == example.family and text.origin.weights
