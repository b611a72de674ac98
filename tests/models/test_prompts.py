"""Prompts through the frozen towers, against the vision-language models' own text encoders."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.prompts import PromptLearner, PromptTokens
from models.vlms import load_text_side
from tests.support.published_vlms import copy_golden_conch, save_clip_with_tokenizer

TEXTS = [
    "Nested Growth : small nests of polygonal cells between thin septa.",
    "Mitoses : frequent.",
    "Pale Cytoplasm : clear, lipid-rich cytoplasm with crisp borders, 5x overview (pT1a).",
    "Keratin Pearls : concentric layers of eosinophilic, keratinized material in solid islands of large cells.",
]
POSITIONS = ("end", "middle", "front")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip_with_tokenizer(tmp_path_factory.mktemp("clip"))


def literal(text: str, num_context: int, position: str) -> str:
    before = {"end": num_context, "middle": num_context // 2, "front": 0}[position]
    return " ".join(["X"] * before + [text] + ["X"] * (num_context - before))


def set_context_to_placeholder(prompts: PromptLearner) -> None:
    """The context becomes the embedding of the X's that stand in the prompt."""
    places = prompts.context_positions.unsqueeze(-1).expand(-1, -1, prompts.tower.width)
    with torch.no_grad():
        prompts.context_tokens.copy_(prompts.token_embeddings.gather(1, places)[0])


@cache
def published_clip(folder: Path) -> tuple[Any, Any]:
    """transformers' own tokenizer and model."""
    from transformers import AutoTokenizer, CLIPModel

    return AutoTokenizer.from_pretrained(folder), CLIPModel.from_pretrained(folder)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("num_context", [1, 5, 16])
def test_clip_reads_the_literal_string(clip_folder: Path, position: str, num_context: int) -> None:
    """transformers' own tokenizer and get_text_features."""
    tokenizer, model = published_clip(clip_folder)
    tower = load_text_side("any", str(clip_folder))
    prompts = PromptLearner(tower, TEXTS[:2], TEXTS[2:], 2, num_context, position=position)
    set_context_to_placeholder(prompts)
    strings = [literal(TEXTS[row], num_context, position) for row in (0, 2, 1, 3)]
    inputs = tokenizer(strings, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = model.get_text_features(**inputs)
        features = getattr(features, "pooler_output", features)
        low, high = prompts()
    np.testing.assert_allclose(low, features[[0, 2]], rtol=0, atol=1e-5 * float(features.abs().max()))
    np.testing.assert_allclose(high, features[[1, 3]], rtol=0, atol=1e-5 * float(features.abs().max()))


@pytest.mark.parametrize("position", POSITIONS)
def test_a_long_description_is_cut_and_the_context_never(clip_folder: Path, position: str) -> None:
    tower = load_text_side("any", str(clip_folder))
    long, short = "cells " * 100, "cells"
    tokens = PromptTokens(tower, [long, short], 16, position)
    assert tokens.num_cut == 1
    bos, eos, _ = tower.special_tokens
    x = tower.tokenize(["X"])[0][0]
    assert tokens.token_ids.shape == (2, 77)
    for row in range(2):
        assert tokens.token_ids[row, 0] == bos
        assert (tokens.token_ids[row] == eos).sum() == 1
        assert (tokens.token_ids[row, tokens.context_positions[row]] == x).all()
        assert (tokens.token_ids[row] == x).sum() == 16
    assert tokens.token_ids[0, -1] == eos


@pytest.mark.parametrize("position", POSITIONS)
def test_conch_reads_the_literal_string(golden: Path, tmp_path: Path, position: str) -> None:
    """open_clip's TextTransformer on all 127 tokens of the literal string. The X at the start of a text is another
    token to CONCH than one behind a word, so each context vector is set to the embedding of its own place."""
    tower = load_text_side("conch", str(copy_golden_conch(golden, tmp_path)))
    prompts = PromptLearner(tower, TEXTS[:2], TEXTS[2:], 2, 16, position=position)
    set_context_to_placeholder(prompts)
    strings = [literal(TEXTS[row], 16, position) for row in (0, 2, 1, 3)]
    ids = torch.zeros(4, 127, dtype=torch.long)
    for row, body in enumerate(tower.tokenizer.encode(strings)):
        ids[row, : len(body) + 2] = torch.tensor([1, *body, 2])
    with torch.no_grad():
        expected, _ = tower.transformer(ids)
        low, high = prompts()
    np.testing.assert_allclose(torch.cat([low, high]), expected[[0, 2, 1, 3]], rtol=0, atol=1e-5)


def test_class_specific_context_serves_its_class_alone(clip_folder: Path) -> None:
    torch.manual_seed(0)
    prompts = PromptLearner(load_text_side("any", str(clip_folder)), TEXTS[:2], TEXTS[2:], 2, 4, class_specific=True)
    assert prompts.context_tokens.shape == (2, 4, 32)
    with torch.no_grad():
        before = prompts()
        prompts.context_tokens[1] += 1.0
        after = prompts()
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[0], new[0])
        assert not torch.allclose(old[1], new[1])


def test_features_follow_the_context_without_gradients(clip_folder: Path) -> None:
    """What is kept between evaluations is dropped when the context is trained or loaded."""
    tower = load_text_side("any", str(clip_folder))
    prompts = PromptLearner(tower, TEXTS[:2], TEXTS[2:], 2, 4)
    optimizer = torch.optim.Adam([prompts.context_tokens], lr=0.1)
    with torch.no_grad():
        first = prompts()[0].clone()
    prompts()[0].square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        second = prompts()[0].clone()
    np.testing.assert_array_equal(second, prompts()[0].detach())
    assert not torch.allclose(first, second)
    state = {"context_tokens": torch.zeros(4, 32)}
    prompts.load_state_dict(state, strict=False)
    with torch.no_grad():
        assert not torch.allclose(second, prompts()[0])
