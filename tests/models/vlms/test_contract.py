"""What holds for every family of vision-language models, on a small random model of each in its published form."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.prompts import PromptLearner, PromptTokens
from models.text_length import token_limit
from models.vlms import ImageSide, TextSide, load_image_side, load_text_side
from models.vlms.registry import FAMILIES, Source, family_of, find_model
from tests.support.golden_vlms import register_tiny_vit
from tests.support.images import assert_alike, draw_images, encode, grey_levels
from tests.support.published_other_vlms import VIT
from tests.support.vlm_examples import EXAMPLES, Example

TEXTS = ["small nests", "mitoses", "clear cells (5x)"]


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
@pytest.mark.parametrize("num_context_tokens", [0, 5])
def test_a_description_is_cut_where_it_exceeds_the_limit(
    tmp_path: Path, example: Example, num_context_tokens: int
) -> None:
    side = text_side(example, tmp_path / "model")
    count, most = token_limit(side, num_context_tokens)
    start, _, _ = side.special_tokens
    assert most + num_context_tokens + (1 if start is None else 2) == side.context_length
    seen = set()
    for words in range(1, most + 3):
        text = " ".join(["x"] * words)
        tokens = PromptTokens(side, [text], num_context_tokens, "end")
        assert tokens.num_cut == (count(text) > most)
        seen.add(tokens.num_cut)
    assert seen == {0, 1}


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
    assert identity == again.identity() and not identity.is_same(image_side(example, tmp_path / "b", 1).identity())
    assert (identity.family, identity.name, identity.projected) == (example.family, "", True)
    assert identity.normalised == example.normalised
    again.transform = replace(again.transform, mean=(0.1, 0.2, 0.3))
    assert not again.identity().is_same(identity)
    one.settings = {**one.settings, "num_heads": 99}
    assert not one.identity().is_same(identity)


@of_examples
def test_text_and_image_side_come_from_the_same_files(tmp_path: Path, example: Example) -> None:
    path = example.save(tmp_path / "model", 0)
    text, image = load_text_side("any", str(path)), load_image_side("any", str(path))
    assert text.origin == image.origin
    assert text.origin.family == example.family and text.origin.weights
