"""Every family against what the publishing code makes of tiny random models in the published form.

pytest tests/models/vlms --golden-vlms DIR      any folder of the form of ../shared/golden/vlms, or one model of it
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.prompts import PLACEHOLDER, PromptLearner, PromptTokens
from models.vlms import TextSide, load_image_side, load_text_side
from models.vlms.registry import load_head
from tests.conftest import SHARED
from tests.support.golden_vlms import GoldenVlm, find_golden_vlms, prepare_golden

TEXT, IMAGE, PIXELS = 1e-5, 1e-4, 1e-6
POSITIONS = ["end", "middle", "front"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = metafunc.config.getoption("--golden-vlms")
    folders = find_golden_vlms(Path(given) if given else SHARED / "golden" / "vlms")
    assert folders or not given, f"no golden.json in or below {given}"
    if "vlm" in metafunc.fixturenames:
        metafunc.parametrize("vlm", folders, indirect=True, ids=lambda folder: folder.name, scope="module")


@pytest.fixture(scope="module")
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoldenVlm]:
    with pytest.MonkeyPatch.context() as patch:
        yield prepare_golden(request.param, tmp_path_factory.mktemp("golden"), patch)


def unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features, dim=-1)


def encode(side: TextSide, tokens: PromptTokens) -> Tensor:
    with torch.no_grad():
        return side.encode_prompts(side.embed(tokens.token_ids), tokens.token_ids)


def up_to_end(side: TextSide, ids: np.ndarray) -> list[list[int]]:
    """Each row to its first end token: libraries fill the rest in ways of their own."""
    return [row[: row.index(side.special_tokens.end) + 1] for row in ids.tolist()]


def tokens_as_published(vlm: GoldenVlm, side: TextSide) -> PromptTokens:
    """The prompts of the golden context. Some official codes put a full stop behind a text."""
    expected = up_to_end(side, vlm.arrays["token_ids_with_placeholders"])
    for stop in ("", "."):
        texts = [text + stop for text in vlm.texts]
        tokens = PromptTokens(side, texts, len(vlm.arrays["context"]), "end")
        if up_to_end(side, tokens.token_ids.numpy()) == expected:
            return tokens
    raise AssertionError(f"{up_to_end(side, tokens.token_ids.numpy())} are not {expected}")


# ---- images ----------------------------------------------------------------------------------------------------------


def test_images_are_prepared_and_encoded_as_published(vlm: GoldenVlm) -> None:
    expected, pixels = vlm.features("image_features"), torch.from_numpy(vlm.arrays["pixels"])
    for place in range(len(vlm.places)):
        side = vlm.image_side(place)
        with torch.no_grad():
            of_pixels = side.tower(pixels)
            whole = torch.cat([side.encode_images(image) for image in vlm.images()])
        prepared = torch.cat([side.transform(image) for image in vlm.images()])
        np.testing.assert_allclose(prepared, pixels, rtol=0, atol=PIXELS)
        np.testing.assert_allclose(unit(of_pixels), expected, rtol=0, atol=IMAGE)
        np.testing.assert_allclose(unit(whole), expected, rtol=0, atol=IMAGE)
        assert side.output_dim == expected.shape[1]
        assert side.normalised == bool(((of_pixels.norm(dim=1) - 1).abs() < 1e-5).all())
        if not side.normalised:
            np.testing.assert_allclose(of_pixels, vlm.arrays["image_features"], rtol=1e-4, atol=IMAGE)


def test_features_from_before_the_projection_are_projected_as_published(vlm: GoldenVlm) -> None:
    recorded = [name for name in ("image_trunk_unprojected", "image_cls_without_head") if name in vlm.arrays]
    for extractor, path in vlm.places if recorded else []:
        head = load_head(extractor, path)
        projected = head(vlm.arrays[recorded[0]])
        expected = "image_features_normalised" if head.normalised else "image_features"
        np.testing.assert_allclose(projected, vlm.arrays[expected], rtol=0, atol=TEXT)


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_texts_are_tokenised_and_encoded_as_published(vlm: GoldenVlm) -> None:
    for place in range(len(vlm.places)):
        side = vlm.text_side(place)
        tokens = PromptTokens(side, vlm.texts, 0, "end")
        assert up_to_end(side, tokens.token_ids.numpy()) == up_to_end(side, vlm.arrays["token_ids"])
        features = encode(side, tokens)
        np.testing.assert_allclose(unit(features), vlm.features("text_features"), rtol=0, atol=TEXT)
        assert side.output_dim == vlm.image_side(place).output_dim == features.shape[1]
        assert float(side.logit_scale) == pytest.approx(vlm.arrays["logit_scale"].item(), abs=1e-6)


def test_context_stands_where_it_is_published(vlm: GoldenVlm) -> None:
    side, context = vlm.text_side(), torch.from_numpy(vlm.arrays["context"])
    tokens = tokens_as_published(vlm, side)
    literal = vlm.features("text_features_of_literal_placeholders")
    np.testing.assert_allclose(unit(encode(side, tokens)), literal, rtol=0, atol=TEXT)
    places = tokens.context_positions.unsqueeze(-1).expand(-1, -1, side.width)
    embeddings = side.embed(tokens.token_ids).detach().scatter(1, places, context.expand(len(places), -1, -1))
    with torch.no_grad():
        features = side.encode_prompts(embeddings, tokens.token_ids)
    np.testing.assert_allclose(unit(features), vlm.features("text_features_with_context"), rtol=0, atol=TEXT)


@pytest.mark.parametrize("position", POSITIONS)
def test_context_of_a_literal_string_is_that_string(vlm: GoldenVlm, position: str) -> None:
    """With the embeddings of words in place of the context, a prompt is the text with these words in it."""
    side, words = vlm.text_side(), [PLACEHOLDER] * 4
    before = {"end": 4, "middle": 2, "front": 0}[position]
    texts = [" ".join([*words[:before], text, *words[before:]]) for text in vlm.texts]
    expected = encode(side, PromptTokens(side, texts, 0, "end"))
    one = side.tokenize([" ".join(words)])[0]
    if len(one) != len(words):
        pytest.skip("the tokenizer has no token for the word")
    prompts = PromptLearner(side, vlm.texts, vlm.texts, 1, len(words), position=position)
    with torch.no_grad():
        prompts.context_tokens.copy_(side.embed(torch.tensor([one]))[0])
        low, high = prompts()
    for features in (low, high):
        np.testing.assert_allclose(unit(features), unit(expected), rtol=0, atol=TEXT)


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
def test_gradients_reach_the_context(vlm: GoldenVlm, position: str, class_specific: bool) -> None:
    side, texts = vlm.text_side(), vlm.texts[:2]
    prompts = PromptLearner(side, texts, texts, 2, 4, position=position, class_specific=class_specific).train()
    torch.cat(prompts()).square().sum().backward()
    gradient = prompts.context_tokens.grad
    assert gradient is not None and bool((gradient.abs().sum(-1) > 0).all())
    assert all(value.grad is None for value in side.parameters())


# ---- what no file says -----------------------------------------------------------------------------------------------


def test_the_activation_changes_features_and_identity(vlm: GoldenVlm, monkeypatch: pytest.MonkeyPatch) -> None:
    """quick_gelu stands in no weight."""
    import open_clip

    if not vlm.places[0][0].startswith("open_clip:"):
        pytest.skip("its configuration tells the activation")
    told = open_clip.factory._MODEL_CONFIGS["golden"]
    other = {**told, "quick_gelu": not told["quick_gelu"]}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "golden", other)
    text, image = load_text_side(*vlm.places[0]), load_image_side(*vlm.places[0])
    tokens = PromptTokens(text, vlm.texts, 0, "end")
    with torch.no_grad():
        pixels = image.tower(torch.from_numpy(vlm.arrays["pixels"]))
    features = torch.cat([unit(encode(text, tokens)), unit(pixels)])
    expected = torch.cat([vlm.features("text_features"), vlm.features("image_features")])
    assert not torch.allclose(features, expected, atol=IMAGE)
    assert image.fingerprint() == vlm.image_side().fingerprint()
    assert not image.identity().is_same(vlm.image_side().identity())
