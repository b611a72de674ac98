"""What holds for every family of vision-language models, on a small random model of each in its published form."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

import models.vlms.registry
from models.prompts import PromptLearner, PromptTokens
from models.tiny_clip import save_tiny_clip
from models.vlms import ImageSide, TextSide, load_image_side, load_text_side
from models.vlms.registry import FAMILIES, family_of
from models.vlms.sides import Source
from tests.support.images import as_pillow, assert_alike, draw_images, encode, grey_levels
from tests.support.published_vlms import save_conch, save_open_clip
from utils.errors import UserError
from utils.tensors import read_state

TEXTS = ["small nests", "mitoses", "clear cells (5x)"]


@dataclass(frozen=True)
class Example:
    """A family's model on the disk, and what its own library makes of images and texts.

    save: (folder, seed) -> what --vlm_path names. pixels: images for the tower. features: of those pixels. text_ids:
    (N, L) ids of texts with the special ones. text_features: of those ids; both None without a text side.
    """

    family: str
    normalised: bool
    save: Callable[[Path, int], Path]
    pixels: Callable[[Path, Tensor], Tensor]
    features: Callable[[Path, Tensor], Tensor]
    text_ids: Callable[[list[str]], Tensor] | None = None
    text_features: Callable[[Path, Tensor], Tensor] | None = None


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

    return load_image_tower(weights, read_state(weights)).eval()(pixels)


def conch_ids(texts: list[str]) -> Tensor:
    """One token a byte, in the order of the byte level alphabet; start 1, end 2, padding 0."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    rows = [[1, *(3 + alphabet.index("Ġ" if letter == " " else letter) for letter in text), 2] for text in texts]
    return torch.tensor([row + [0] * (24 - len(row)) for row in rows])


def conch_text_features(weights: Path, ids: Tensor) -> Tensor:
    from conch.text_tower import load_text_transformer

    return load_text_transformer(weights, read_state(weights))[0].eval()(ids)[0]


# ---- open_clip -------------------------------------------------------------------------------------------------------


def open_clip_pixels(folder: Path, images: Tensor) -> Tensor:
    transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
    return torch.stack([transform(image) for image in as_pillow(images)])


def open_clip_features(folder: Path, pixels: Tensor) -> Tensor:
    return open_clip.create_model(f"local-dir:{folder}").eval().encode_image(pixels, normalize=False)


EXAMPLES = [
    Example(
        "Hugging Face CLIP", False, save_clip, clip_pixels, of_clip("get_image_features"),
        lambda texts: open_clip.tokenize(texts), of_clip("get_text_features"),
    ),
    Example("CONCH", True, save_conch, conch_pixels, conch_features, conch_ids, conch_text_features),
    Example(
        "open_clip", False, lambda folder, seed: save_open_clip(folder, seed=seed), open_clip_pixels,
        open_clip_features,
    ),
]  # fmt: skip
WITH_TEXTS = [example for example in EXAMPLES if example.text_features]


def of_examples(examples: list[Example]) -> Any:
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.family)


def image_side(example: Example, folder: Path, seed: int = 0) -> ImageSide:
    return load_image_side("any", str(example.save(folder, seed)))


def text_side(example: Example, folder: Path, seed: int = 0) -> TextSide:
    return load_text_side("any", str(example.save(folder, seed)))


def test_every_family_has_an_example() -> None:
    assert sorted(family.name for family in FAMILIES) == sorted(example.family for example in EXAMPLES)


@of_examples(EXAMPLES)
def test_the_family_is_recognised_by_its_files(tmp_path: Path, example: Example) -> None:
    assert family_of(Source("any", str(example.save(tmp_path / "model", 0)))).name == example.family


# ---- images ----------------------------------------------------------------------------------------------------------


@of_examples(EXAMPLES)
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


@of_examples(EXAMPLES)
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


@of_examples(WITH_TEXTS)
def test_texts_are_tokenised_and_encoded_as_by_the_library(tmp_path: Path, example: Example) -> None:
    assert example.text_ids and example.text_features
    path = example.save(tmp_path / "model", 0)
    side, ids = load_text_side("any", str(path)), example.text_ids(TEXTS)
    tokens = PromptTokens(side, TEXTS, 0, "end")
    assert torch.equal(tokens.token_ids, ids)
    assert side.tokenize(TEXTS) == [without_special(side, row.tolist()) for row in ids]
    with torch.no_grad():
        expected = example.text_features(path, ids)
        embeddings = side.embed(ids)
        np.testing.assert_allclose(side.encode_prompts(embeddings, ids), expected, rtol=0, atol=1e-4)
        tree = side.prefix_tree(ids, torch.zeros(len(ids), dtype=torch.long))
        np.testing.assert_allclose(side.encode_prompts(embeddings, ids, tree), expected, rtol=0, atol=1e-4)
    assert embeddings.shape == (*ids.shape, side.width)
    assert (side.context_length, side.output_dim) == (ids.shape[1], expected.shape[1])


def without_special(side: TextSide, ids: list[int]) -> list[int]:
    start, end, _ = side.special_tokens
    assert start is None or ids[0] == start
    return ids[0 if start is None else 1 : ids.index(end)]


@of_examples(WITH_TEXTS)
def test_both_sides_meet_in_one_space(tmp_path: Path, example: Example) -> None:
    texts, images = text_side(example, tmp_path / "model"), image_side(example, tmp_path / "model")
    assert texts.output_dim == images.output_dim == encode(images, draw_images(32, 32)).shape[1]
    assert texts.logit_scale.shape == () and texts.logit_scale.dtype == torch.float32


@of_examples(WITH_TEXTS)
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


@of_examples(EXAMPLES)
def test_sides_are_frozen_on_the_cpu_and_known_by_their_weights(tmp_path: Path, example: Example) -> None:
    for side in (image_side, text_side) if example in WITH_TEXTS else (image_side,):
        one, again = (side(example, tmp_path / name) for name in ("one", "again"))
        other = side(example, tmp_path / "other", seed=1)
        assert not any(module.training for module in one.modules())
        assert not any(value.requires_grad for value in one.parameters())
        assert {value.device.type for value in one.state_dict().values()} == {"cpu"}
        assert one.fingerprint() == again.fingerprint() != other.fingerprint()
        with torch.no_grad():
            next(iter(one.parameters())).view(-1)[0] += 1
        assert one.fingerprint() != again.fingerprint()


@of_examples(EXAMPLES)
def test_a_side_that_the_family_has_not_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Example
) -> None:
    path = str(example.save(tmp_path / "model", 0))
    if example in WITH_TEXTS:
        without = tuple(replace(family, load_text=None, load_image=None) for family in FAMILIES)
        monkeypatch.setattr(models.vlms.registry, "FAMILIES", without)
        with pytest.raises(UserError) as caught:
            load_image_side("any", path)
        assert [fault.code for fault in caught.value.faults] == ["vlm.no_image_side"]
    with pytest.raises(UserError) as caught:
        load_text_side("any", path)
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("vlm.no_text_side", f"--feature_extractor any --vlm_path {path}")
    assert example.family in fault.found
