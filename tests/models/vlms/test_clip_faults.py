"""Folders of Hugging Face CLIP that are at fault, for one side or for both."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side, load_text_side
from tests.support.damage import LFS_POINTER, change_json, cut
from tests.support.published_vlms import change_clip_weights, without_weights
from utils.errors import Fault, UserError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LOADS = {"text": load_text_side, "image": load_image_side}
Case = tuple[Callable[[Path], object], str, str, str]


def fault_of(side: str, extractor: str, vlm_path: str | None) -> Fault:
    with pytest.raises(UserError) as caught:
        LOADS[side](extractor, vlm_path)
    (fault,) = caught.value.faults
    return fault


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    save_tiny_clip(tmp_path / "clip", width=32)
    return tmp_path / "clip"


def widen_projection(folder: Path) -> None:
    change_clip_weights(folder, lambda state: {**state, "visual_projection.weight": torch.ones(32, 9)})


def change_config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / CONFIG, lambda said: {**said, **changes})


def widen_texts(folder: Path) -> None:
    change_json(folder / CONFIG, lambda said: {**said, "text_config": {**said["text_config"], "hidden_size": 64}})


# what is done to the folder, the code, the file at fault ("" for the folder), and what is found
OF_BOTH: dict[str, Case] = {
    "no_config": (lambda folder: (folder / CONFIG).unlink(), "vlm.missing", "", "no config.json found"),
    "not_clip": (change_config(model_type="bert"), "vlm.other_type", CONFIG, "model_type is 'bert'"),
    "config_a_list": (lambda folder: (folder / CONFIG).write_text("[]"), "vlm.other_type", CONFIG, "is None"),
    "no_weights": (lambda folder: (folder / WEIGHTS).unlink(), "vlm.unreadable", "", "cannot be loaded"),
    "cut_off": (lambda folder: cut(folder / WEIGHTS), "vlm.unreadable", "", "cannot be loaded"),
    "pointer": (lambda folder: (folder / WEIGHTS).write_bytes(LFS_POINTER), "vlm.unreadable", "", "cannot be loaded"),
}
OF_IMAGES: dict[str, Case] = {
    "no_vision": (without_weights("vision_model"), "vlm.incomplete", "", "39 weights are missing"),
    "one_layer": (
        without_weights("vision_model.encoder.layers.1.mlp.fc1.bias"), "vlm.incomplete", "", "1 weights are missing",
    ),
    "no_projection": (
        without_weights("visual_projection"), "vlm.incomplete", "", "1 weights are missing (visual_projection.weight)",
    ),
    "another_shape": (
        widen_projection, "vlm.incomplete", "", "1 weights are of another shape (visual_projection.weight)",
    ),
}  # fmt: skip
OF_TEXTS: dict[str, Case] = {
    "no_text": (without_weights("text_model.encoder"), "vlm.incomplete", "", "32 weights are missing (text_model."),
    "one_weight": (without_weights("text_model.encoder.layers.1.mlp.fc1.weight"), "vlm.incomplete", "", "1 weights"),
    "other_widths": (widen_texts, "vlm.incomplete", "", "are of another shape"),
    "tokenizer_no_json": (
        lambda folder: (folder / "tokenizer.json").write_text("{"), "vlm.tokenizer", "", "cannot be loaded",
    ),
    "other_vocabulary": (
        lambda folder: change_json(
            folder / CONFIG, lambda said: {**said, "text_config": {**said["text_config"], "vocab_size": 100}}
        ),
        "vlm.incomplete", "", "token_embedding",
    ),
}  # fmt: skip
CASES = {
    **{f"{side}-{name}": (side, case) for side in LOADS for name, case in OF_BOTH.items()},
    **{f"image-{name}": ("image", case) for name, case in OF_IMAGES.items()},
    **{f"text-{name}": ("text", case) for name, case in OF_TEXTS.items()},
}


@pytest.mark.parametrize("name", CASES)
def test_a_faulty_folder_of_clip(clip_folder: Path, name: str) -> None:
    side, (spoil, code, file, found) = CASES[name]
    spoil(clip_folder)
    fault = fault_of(side, "any", str(clip_folder))
    assert (fault.code, fault.where) == (code, str(clip_folder / file))
    assert found in fault.found
    assert f"hf download {clip_folder}" not in fault.mend  # a local folder is no hub id


@pytest.mark.parametrize("side", LOADS)
def test_a_config_that_is_no_json(clip_folder: Path, side: str) -> None:
    cut(clip_folder / CONFIG)
    assert "not valid JSON" in str(fault_of(side, "any", str(clip_folder)))


@pytest.mark.parametrize("side", LOADS)
@pytest.mark.parametrize("source", ["{root}/nowhere", "./nowhere", "nowhere", "two/slashes/nowhere"])
def test_a_folder_of_clip_that_is_not_there(tmp_path: Path, source: str, side: str) -> None:
    source = source.format(root=tmp_path)
    fault = fault_of(side, "any", source)
    assert (fault.code, fault.where, fault.found) == ("vlm.missing", f"--vlm_path {source}", "no such folder")


@pytest.mark.parametrize("side", LOADS)
def test_a_file_instead_of_a_folder_of_clip(clip_folder: Path, side: str) -> None:
    file = str(clip_folder / CONFIG)
    fault = fault_of(side, "any", file)
    assert (fault.code, fault.where) == ("vlm.not_a_folder", file)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPModel

    def unreachable(source: str, **_: object) -> None:
        raise OSError(f"We couldn't connect to 'https://huggingface.co' to load {source}.\nCheck your internet.")

    monkeypatch.setattr(CLIPModel, "from_pretrained", unreachable)
    fault = fault_of("text", "plip", None)
    assert (fault.code, fault.where) == ("vlm.not_downloaded", "vinid/plip")
    assert "couldn't connect" in fault.found
    assert "--vlm_path" in fault.mend and "hf download vinid/plip --local-dir FOLDER" in fault.mend
