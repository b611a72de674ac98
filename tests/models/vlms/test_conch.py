"""CONCH's two sides against CONCH's own results, and files that hold less. Its networks are held in tests/conch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import conch.tokenizer
import models.vlms.conch
from conch.tokenizer import TOKENIZER_FILE
from models.prompts import PromptTokens
from models.vlms import load_image_side, load_text_side
from tests.support.conch_weights import SMALL_WIDTH
from tests.support.damage import LFS_POINTER, cut
from tests.support.images import draw_images, encode
from tests.support.published_vlms import copy_golden_conch, save_conch
from utils.errors import UserError

# ---- texts -----------------------------------------------------------------------------------------------------------


def test_conch_reads_plain_texts_as_published(golden: Path, tmp_path: Path) -> None:
    tower = load_text_side("conch", str(copy_golden_conch(golden, tmp_path)))
    expected = np.load(golden / "visible_conch" / "conch_encode_text.npz")
    texts = json.loads((golden / "visible_conch" / "conch_encode_text.json").read_text())
    tokens = PromptTokens(tower, texts, 0, "end")
    np.testing.assert_array_equal(tokens.token_ids, expected["tokens"])
    with torch.no_grad():
        features = tower.encode_prompts(tower.embed(tokens.token_ids), tokens.token_ids)
    np.testing.assert_allclose(features, expected["pooled"], rtol=0, atol=1e-5)


def test_conch_with_no_room_for_padding(golden: Path, tmp_path: Path) -> None:
    """A text that fills all 127 positions: the class embedding then sees itself."""
    tower = load_text_side("conch", str(copy_golden_conch(golden, tmp_path)))
    ids = torch.randint(3, 32007, (2, 127), generator=torch.Generator().manual_seed(0))
    ids[1, 100:] = 0
    with torch.no_grad():
        expected, _ = tower.transformer(ids)
        ours = tower.encode_prompts(tower.embed(ids), ids)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
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
    shutil.copy(golden / "conch_tokenizer" / TOKENIZER_FILE, tmp_path)
    tower = load_text_side("conch", str(tmp_path / "pytorch_model.bin"))
    expected = np.load(golden / "conch_full_size.npz")
    tokens = torch.from_numpy(expected["tokens"]).long()
    with torch.no_grad():
        features = tower.encode_prompts(tower.embed(tokens), tokens)
    np.testing.assert_allclose(features, expected["text_embedding"], rtol=0, atol=1e-4)


def test_the_tokenizer_of_an_installed_conch_package_is_found(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "conch" / "open_clip_custom" / "tokenizers"
    package.mkdir(parents=True)
    monkeypatch.setattr(conch.tokenizer, "HERE", tmp_path / "nothing")
    assert conch.tokenizer.find_tokenizer_file() is None
    (package / TOKENIZER_FILE).write_bytes(b"{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert conch.tokenizer.find_tokenizer_file() == package / TOKENIZER_FILE


# ---- images ----------------------------------------------------------------------------------------------------------


def test_conch_is_projected_and_normalised(tmp_path: Path) -> None:
    side = load_image_side("conch", str(save_conch(tmp_path)))
    told = side.transform.input_size, side.output_dim, side.projected, side.normalised
    assert told == (32, SMALL_WIDTH, True, True)
    np.testing.assert_allclose(encode(side, draw_images()).norm(dim=1), 1, atol=1e-5)


# ---- files at fault --------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CONCH in a folder that stands for conch/, which may hold the real files."""
    monkeypatch.setattr(conch.tokenizer, "HERE", tmp_path)
    installed = [entry for entry in conch.tokenizer.sys.path if not (Path(entry) / "conch/open_clip_custom").is_dir()]
    monkeypatch.setattr(conch.tokenizer.sys, "path", installed)
    return save_conch(tmp_path)


def change(**changes: object) -> Callable[[Path], None]:
    """Replace tensors of the weight file; None takes one away."""

    def spoil(file: Path) -> None:
        state = {**torch.load(file), **changes}
        torch.save({name: value for name, value in state.items() if value is not None}, file)

    return spoil


Case = tuple[Callable[[Path], object], str, str]
OF_BOTH: dict[str, Case] = {
    "pointer": (lambda file: file.write_bytes(LFS_POINTER), "vlm.unreadable", "a git-lfs pointer"),
    "no_bytes": (lambda file: file.write_bytes(b""), "vlm.unreadable", "an empty file"),
    "cut_off": (cut, "vlm.unreadable", "damaged, or cut off"),
    "list": (lambda file: torch.save([torch.ones(2)], file), "vlm.unreadable", "no tensors"),
}
OF_IMAGES: dict[str, Case] = {
    "text_alone": (lambda file: torch.save({"text.cls_emb": torch.ones(2)}, file), "vlm.incomplete", "of visual"),
}
OF_TEXTS: dict[str, Case] = {
    "a_tensor_missing": (change(**{"text.cls_emb": None}), "vlm.incomplete", "cls_emb"),
    "no_logit_scale": (change(logit_scale=None), "vlm.incomplete", "logit_scale"),
    "another_shape": (change(**{"text.text_projection": torch.ones(16, 9)}), "vlm.incomplete", "text_projection"),
    "tokenizer_no_json": (
        lambda file: file.with_name(TOKENIZER_FILE).write_text("{"), "vlm.incomplete", TOKENIZER_FILE,
    ),
}  # fmt: skip
LOADS = {"text": load_text_side, "image": load_image_side}
CASES = {
    **{f"{side}-{name}": (side, case) for side in LOADS for name, case in OF_BOTH.items()},
    **{f"image-{name}": ("image", case) for name, case in OF_IMAGES.items()},
    **{f"text-{name}": ("text", case) for name, case in OF_TEXTS.items()},
}


@pytest.mark.parametrize("name", CASES)
def test_faulty_files_of_conch(weights: Path, name: str) -> None:
    side, (spoil, code, found) = CASES[name]
    spoil(weights)
    with pytest.raises(UserError) as caught:
        LOADS[side]("conch", str(weights))
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == (code, str(weights))
    assert found in fault.found


@pytest.mark.parametrize("side", LOADS)
def test_conch_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    nowhere = tmp_path / "nowhere.bin"
    monkeypatch.setattr(models.vlms.conch, "WEIGHTS", nowhere)
    for path, where in ((None, str(nowhere)), (str(nowhere), f"--vlm_path {nowhere}")):
        with pytest.raises(UserError) as caught:
            LOADS[side]("conch", path)
        (fault,) = caught.value.faults
        assert (fault.code, fault.where) == ("vlm.missing", where)
        assert "MahmoodLab/" in fault.mend and "--vlm_path" in fault.mend


def test_conch_without_its_tokenizer(weights: Path) -> None:
    weights.with_name(TOKENIZER_FILE).unlink()
    with pytest.raises(UserError) as caught:
        load_text_side("any", str(weights))
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("vlm.tokenizer", f"conch/{TOKENIZER_FILE}")
    assert f"beside {weights}" in fault.found and "github.com/mahmoodlab/CONCH" in fault.mend
