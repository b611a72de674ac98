"""MUSK: with a stand-in of its authors' package, and without it. Its golden values are held in test_golden.py."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from models.prompts import PromptTokens
from models.vlms import load_image_side, load_text_side
from tests.support.images import draw_images, encode
from tests.support.musk_stand_in import save_musk
from tests.support.published_other_vlms import save_tensors
from utils.errors import Fault, UserError

LOADS = [load_text_side, load_image_side]


def faults_of(extractor: str, path: Path | None) -> list[Fault]:
    faults = []
    for load in LOADS:
        with pytest.raises(UserError) as caught:
            load(extractor, None if path is None else str(path))
        faults += caught.value.faults
    return faults


def test_musk_reads_texts_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_musk(tmp_path / "musk", monkeypatch)
    for extractor in ("musk", "any"):
        text, image = (load(extractor, str(folder)) for load in LOADS)
        assert (text.origin.family, text.context_length, text.room) == ("MUSK", 100, 98)
        features = encode(image, draw_images())
        np.testing.assert_allclose(features.norm(dim=1), 1, atol=1e-5)
        assert features.shape[1] == text.output_dim == image.output_dim
        assert image.normalised and image.transform.input_size == 32
    tokens = PromptTokens(text, ["small nests", "clear cells"], 3, "end")
    assert tokens.token_ids[:, 0].tolist() == [0, 0] and tokens.context_positions[0].tolist() == [1, 2, 3]
    with torch.no_grad():
        shorter = text.encode_prompts(text.embed(tokens.token_ids)[:, :40], tokens.token_ids[:, :40])
        np.testing.assert_allclose(
            text.encode_prompts(text.embed(tokens.token_ids), tokens.token_ids), shorter, atol=1e-6
        )


def test_ids_are_those_of_the_pieces_and_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = save_musk(tmp_path / "musk", monkeypatch)
    side = load_text_side("musk", str(folder))
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.spm"))
    text = "small nests"
    assert side.tokenize([text]) == [[piece + 1 for piece in pieces.encode(text)]]
    assert side.tokenize(["é"])[0][-1] == side.unknown_token == 3


def test_musk_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_musk(tmp_path / "musk", monkeypatch)
    for other in (None, ModuleType("musk")):  # none, and the project of that name at PyPI
        monkeypatch.delitem(sys.modules, "musk.modeling", raising=False)
        monkeypatch.setitem(sys.modules, "musk", other)
        if other:
            other.__spec__ = ModuleSpec("musk", None, is_package=True)
            other.__path__ = []
        for extractor, path in (("musk", None), ("musk", folder), ("any", folder)):
            for fault in faults_of(extractor, path):
                assert fault.code == "vlm.package_missing"
                assert "github.com/lilab-stanford/MUSK" in fault.mend and "PyPI" in fault.mend


def test_musk_that_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own loader would print what is missing and go on."""
    from safetensors.torch import load_file

    folder = save_musk(tmp_path / "musk", monkeypatch)
    file = folder / "model.safetensors"
    state = load_file(file)
    save_tensors({name: value for name, value in state.items() if "layers.1.ffn" not in name}, file)
    assert {fault.code for fault in faults_of("musk", folder)} == {"vlm.incomplete"}
    save_tensors(state, file)
    (folder / "tokenizer.spm").unlink()
    with pytest.raises(UserError) as caught:
        load_text_side("musk", str(folder))
    assert [fault.code for fault in caught.value.faults] == ["vlm.tokenizer"]
