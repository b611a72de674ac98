"""Prompts through the frozen towers, against the vision-language models' own text encoders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer
from torch import nn

import conch.tokenizer
from conch.text_tower import load_text_tower as load_conch_file
from models.prompts import PromptLearner, PromptTokens
from models.text_towers import load_clip_text_tower, load_text_tower
from models.tiny_clip import save_tiny_clip
from utils.errors import UserError

TEXTS = [
    "Nested Growth : small nests of polygonal cells between thin septa.",
    "Mitoses : frequent.",
    "Pale Cytoplasm : clear, lipid-rich cytoplasm with crisp borders, 5x overview (pT1a).",
    "Keratin Pearls : concentric layers of eosinophilic, keratinized material in solid islands of large cells.",
]
POSITIONS = ("end", "middle", "front")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP folder as the hub serves it: config.json, model.safetensors, and tokenizer files."""
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=32, seed=3)
    standard = SimpleTokenizer()
    merges = sorted(standard.bpe_ranks, key=standard.bpe_ranks.__getitem__)
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): index for token, index in standard.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    return folder


def literal(text: str, num_context: int, position: str) -> str:
    before = {"end": num_context, "middle": num_context // 2, "front": 0}[position]
    return " ".join(["X"] * before + [text] + ["X"] * (num_context - before))


def set_context_to_placeholder(prompts: PromptLearner) -> None:
    """The context becomes the embedding of the X's that stand in the prompt."""
    places = prompts.context_positions.unsqueeze(-1).expand(-1, -1, prompts.tower.width)
    with torch.no_grad():
        prompts.context_tokens.copy_(prompts.token_embeddings.gather(1, places)[0])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("num_context", [1, 5, 16])
def test_clip_reads_the_literal_string(clip_folder: Path, position: str, num_context: int) -> None:
    """transformers' own tokenizer and get_text_features."""
    from transformers import AutoTokenizer, CLIPModel

    tower = load_clip_text_tower(str(clip_folder))
    prompts = PromptLearner(tower, TEXTS[:2], TEXTS[2:], 2, num_context, position=position)
    set_context_to_placeholder(prompts)
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    strings = [literal(TEXTS[row], num_context, position) for row in (0, 2, 1, 3)]
    inputs = tokenizer(strings, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = CLIPModel.from_pretrained(clip_folder).get_text_features(**inputs)
        features = getattr(features, "pooler_output", features)
        low, high = prompts()
    np.testing.assert_allclose(low, features[[0, 2]], rtol=0, atol=1e-5 * float(features.abs().max()))
    np.testing.assert_allclose(high, features[[1, 3]], rtol=0, atol=1e-5 * float(features.abs().max()))


def test_the_standard_vocabulary_gives_the_same_tokens(clip_folder: Path, tmp_path: Path) -> None:
    save_tiny_clip(tmp_path, width=32)
    with_files, without = load_clip_text_tower(str(clip_folder)), load_clip_text_tower(str(tmp_path))
    assert with_files.tokenize(TEXTS) == without.tokenize(TEXTS)
    assert with_files.special_tokens == without.special_tokens == (49406, 49407, 0)


def test_a_saved_clip_is_the_same_model_after_loading(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path / "one", width=16, seed=1)
    save_tiny_clip(tmp_path / "two", width=16, seed=1)
    save_tiny_clip(tmp_path / "other", width=16, seed=2)
    one, two, other = (load_clip_text_tower(str(tmp_path / name)).state_dict() for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert float(one["logit_scale"]) == pytest.approx(2.6592, abs=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_long_description_is_cut_and_the_context_never(clip_folder: Path, position: str) -> None:
    tower = load_clip_text_tower(str(clip_folder))
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


@pytest.fixture
def conch_file(golden: Path, tmp_path: Path) -> Path:
    """The small CONCH of the golden cases with its tokenizer beside it, as a user would lay it out."""
    for file in ("visible_conch/pytorch_model.bin", "visible_conch/open_clip_config.json"):
        (tmp_path / Path(file).name).write_bytes((golden / file).read_bytes())
    tokenizer = golden / "conch_tokenizer" / conch.tokenizer.TOKENIZER_FILE
    (tmp_path / conch.tokenizer.TOKENIZER_FILE).write_bytes(tokenizer.read_bytes())
    return tmp_path / "pytorch_model.bin"


def test_conch_reads_plain_texts_as_published(conch_file: Path, golden: Path) -> None:
    tower = load_text_tower("conch", str(conch_file))
    expected = np.load(golden / "visible_conch" / "conch_encode_text.npz")
    texts = json.loads((golden / "visible_conch" / "conch_encode_text.json").read_text())
    tokens = PromptTokens(tower, texts, 0, "end")
    np.testing.assert_array_equal(tokens.token_ids, expected["tokens"])
    with torch.no_grad():
        features = tower.encode(tower.embed(tokens.token_ids), tokens.token_ids)
    np.testing.assert_allclose(features, expected["pooled"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_conch_reads_the_literal_string(conch_file: Path, position: str) -> None:
    """open_clip's TextTransformer on all 127 tokens of the literal string. The X at the start of a text is another
    token to CONCH than one behind a word, so each context vector is set to the embedding of its own place."""
    tower = load_text_tower("conch", str(conch_file))
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


def test_conch_with_no_room_for_padding(conch_file: Path) -> None:
    """A text that fills all 127 positions: the class embedding then sees itself."""
    tower = load_text_tower("conch", str(conch_file))
    ids = torch.randint(3, 32007, (2, 127), generator=torch.Generator().manual_seed(0))
    ids[1, 100:] = 0
    with torch.no_grad():
        expected, _ = tower.transformer(ids)
        ours = tower.encode(tower.embed(ids), ids)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_conch_at_its_real_size(golden: Path, tmp_path: Path) -> None:
    """Key names, shapes and results of CONCH's own code, weights filled from a seed."""
    shapes = json.loads((golden / "conch_full_size_keys.json").read_text())
    generator = torch.Generator().manual_seed(1)
    state = {"logit_scale": torch.tensor(4.0)}
    for name in sorted(key for key in shapes if key.startswith("text.")):
        value = torch.randn(tuple(shapes[name]), generator=generator) * 0.02
        is_scale = value.dim() == 1 and name.endswith(".weight")
        state[name] = value + 1 if is_scale else value
    torch.save(state, tmp_path / "pytorch_model.bin")
    tower = load_conch_file(tmp_path / "pytorch_model.bin", golden / "conch_tokenizer" / conch.tokenizer.TOKENIZER_FILE)
    expected = np.load(golden / "conch_full_size.npz")
    tokens = torch.from_numpy(expected["tokens"]).long()
    with torch.no_grad():
        features = tower.eval().encode(tower.embed(tokens), tokens)
    np.testing.assert_allclose(features, expected["text_embedding"], rtol=0, atol=1e-4)


def test_the_tokenizer_of_an_installed_conch_package_is_found(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "conch" / "open_clip_custom" / "tokenizers"
    package.mkdir(parents=True)
    monkeypatch.setattr(conch.tokenizer, "HERE", tmp_path / "nothing")
    assert conch.tokenizer.find_tokenizer_file() is None
    (package / conch.tokenizer.TOKENIZER_FILE).write_bytes(b"{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert conch.tokenizer.find_tokenizer_file() == package / conch.tokenizer.TOKENIZER_FILE


def test_class_specific_context_serves_its_class_alone(clip_folder: Path) -> None:
    torch.manual_seed(0)
    prompts = PromptLearner(load_clip_text_tower(str(clip_folder)), TEXTS[:2], TEXTS[2:], 2, 4, class_specific=True)
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
    tower = load_clip_text_tower(str(clip_folder)).requires_grad_(False)
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


def test_only_the_context_is_trained(clip_folder: Path) -> None:
    tower = load_text_tower("anything", str(clip_folder))
    prompts = PromptLearner(tower, TEXTS[:2], TEXTS[2:], 2)
    assert [name for name, parameter in prompts.named_parameters() if parameter.requires_grad] == ["context_tokens"]
    prompts.train()
    assert isinstance(prompts.tower, nn.Module) and not prompts.tower.training


def test_an_incomplete_clip_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_tiny_clip(tmp_path, width=16)
    file = tmp_path / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if "layers.1.mlp.fc1.weight" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing"):
        load_clip_text_tower(str(tmp_path))
