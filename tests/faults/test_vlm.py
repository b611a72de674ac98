"""Faulty or missing vision-language models."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import SimulatedTask
from tests.support.damage import (
    HIGH,
    LFS_POINTER,
    LOW,
    SLIDE,
    Refused,
    change_json,
    check_fault,
    check_told,
    cut,
    own_clip,
)


def without_text_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if not name.startswith("text_model.encoder")}
    save_file(kept, file, metadata={"format": "pt"})


def wider_config(folder: Path) -> None:
    wider = {"hidden_size": 32}
    change_json(folder / "config.json", lambda config: {**config, "text_config": {**config["text_config"], **wider}})


# what is done to the folder, the fault's code, what its sentence says
CLIP_FAULTS = {
    "no_config": (
        lambda folder: (folder / "config.json").unlink(), "vlm.missing", ("no config.json found", "Hugging Face CLIP"),
    ),
    "not_clip": (
        lambda folder: change_json(folder / "config.json", lambda config: {**config, "model_type": "bert"}),
        "vlm.other_type", ("model_type is 'bert'", "expected 'clip'"),
    ),
    "config_cut_off": (lambda folder: cut(folder / "config.json"), "json.damaged", ("config.json",)),
    "config_a_list": (lambda folder: (folder / "config.json").write_text("[]"), "vlm.other_type", ("config.json",)),
    "no_weights": (
        lambda folder: (folder / "model.safetensors").unlink(), "vlm.unreadable", ("model.safetensors", "--vlm_path"),
    ),
    "weights_cut_off": (lambda folder: cut(folder / "model.safetensors"), "vlm.unreadable", ("--vlm_path",)),
    "weights_a_pointer": (
        lambda folder: (folder / "model.safetensors").write_bytes(LFS_POINTER), "vlm.unreadable", ("--vlm_path",),
    ),
    "no_text_weights": (
        without_text_weights, "vlm.incomplete", ("32 weights are missing", "text_model.encoder.layers.0"),
    ),
    "other_widths": (wider_config, "vlm.incomplete", ("have another shape",)),
    "tokenizer_no_json": (lambda folder: (folder / "tokenizer.json").write_text("{"), "vlm.tokenizer", ("tokenizer",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CLIP_FAULTS)
def test_a_faulty_folder_of_clip(task: SimulatedTask, refused: Refused, case: str) -> None:
    folder = own_clip(task)
    break_folder, code, words = CLIP_FAULTS[case]
    break_folder(folder)
    (fault,) = refused()
    check_told(fault, code, str(folder), *words)


def test_a_local_folder_of_clip_is_no_hub_id_to_download(task: SimulatedTask, refused: Refused) -> None:
    folder = own_clip(task)
    (folder / "model.safetensors").unlink()
    (fault,) = refused()
    assert f"hf download {folder}" not in str(fault)


@pytest.mark.parametrize("source", ["{root}/nowhere", "./nowhere", "nowhere", "two/slashes/nowhere"])
def test_a_folder_of_clip_that_is_not_there(task: SimulatedTask, refused: Refused, source: str) -> None:
    source = source.format(root=task.root)
    (fault,) = refused("--vlm_path", source)
    check_fault(fault, "vlm.missing", f"--vlm_path {source}", "no such folder")


def test_a_file_instead_of_a_folder_of_clip(task: SimulatedTask, refused: Refused) -> None:
    file = task.root / "tinyclip" / "config.json"
    (fault,) = refused("--vlm_path", str(file))
    check_fault(fault, "vlm.not_a_folder", file, "is a file", "expected the folder of a Hugging Face CLIP model")


def test_a_clip_of_another_width_is_told_for_all_files_but_hides_no_other_fault(
    task: SimulatedTask, refused: Refused
) -> None:
    from models.tiny_clip import save_tiny_clip

    save_tiny_clip(task.root / "narrow", width=8)
    (task.root / "simulated.json").unlink()
    prompts, *features = refused("--vlm_path", str(task.root / "narrow"), faults=1 + 2 * 28)
    check_fault(prompts, "prompt.missing", task.root / "simulated.json")
    for folder in (LOW, HIGH):
        file = task.features / folder / f"{SLIDE}.h5"
        (fault,) = (fault for fault in features if str(fault).startswith(f"{file}: "))
        check_fault(fault, "features.width", file, "features are 16 wide", "expected 8")


def test_a_feature_extractor_of_unknown_model(refused: Refused) -> None:
    (fault,) = refused(without="--vlm_path")
    check_fault(fault, "vlm.unknown", "--feature_extractor tinyclip", "name it with --vlm_path")


def test_a_hub_that_cannot_be_reached(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPModel

    def unreachable(source: str, **_: object) -> None:
        raise OSError(f"We couldn't connect to 'https://huggingface.co' to load {source}.\nCheck your internet.")

    monkeypatch.setattr(CLIPModel, "from_pretrained", unreachable)
    (fault,) = refused("--vlm_path", "vinid/plip")
    words = "couldn't connect", "--vlm_path", "hf download vinid/plip --local-dir FOLDER"
    check_told(fault, "vlm.not_downloaded", "vinid/plip", *words)


@pytest.fixture
def conch_folder(task: SimulatedTask, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for CONCH's files in place of conch/, which may hold the real ones."""
    import conch.tokenizer
    import models.text_towers

    folder = task.root / "conch"
    folder.mkdir()
    monkeypatch.setattr(conch.tokenizer, "HERE", folder)
    monkeypatch.setattr(models.text_towers, "CONCH_WEIGHTS", folder / "pytorch_model.bin")
    installed = [entry for entry in conch.tokenizer.sys.path if not (Path(entry) / "conch/open_clip_custom").is_dir()]
    monkeypatch.setattr(conch.tokenizer.sys, "path", installed)
    return folder


def small_conch(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a small CONCH; its sizes are written beside them."""
    from open_clip.transformer import TextTransformer

    sizes = {"context_length": 127, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1, "embed_cls": True}
    sizes["pad_id"] = 0
    tower = TextTransformer(**sizes, output_dim=16, output_tokens=True, correct_cls_mask=False)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 16, "text_cfg": sizes}}))
    state = {f"text.{name}": value for name, value in tower.state_dict().items()}
    return {**state, "logit_scale": torch.tensor(4.0)}


def test_conch_without_its_weights(task: SimulatedTask, refused: Refused, conch_folder: Path) -> None:
    features = task.features.rename(task.features.with_name("simulated_conch"))
    for folder in (LOW, HIGH):
        (features / folder).rename(features / folder.replace("tinyclip", "conch"))
    (fault,) = refused("--feature_extractor", "conch", without="--vlm_path")
    check_fault(fault, "vlm.missing", conch_folder / "pytorch_model.bin", "MahmoodLab/CONCH", "--vlm_path")


def test_a_weight_file_of_conch_that_is_not_there(refused: Refused, conch_folder: Path) -> None:
    weights = conch_folder / "other.bin"
    (fault,) = refused("--vlm_path", str(weights))
    check_fault(fault, "vlm.missing", weights, "CONCH's weights are not there")


def test_conch_without_its_tokenizer(refused: Refused, conch_folder: Path) -> None:
    weights = conch_folder / "pytorch_model.bin"
    torch.save(small_conch(conch_folder), weights)
    (fault,) = refused("--vlm_path", str(weights))
    words = "tokenizer file is not there", f"beside {weights}", "github.com/mahmoodlab/CONCH"
    check_told(fault, "vlm.tokenizer", "conch_byte_level_bpe_uncased.json", *words)


def save_conch(**changes: object) -> Callable[[Path], None]:
    """Save a small CONCH's weights, changed: a value of None takes a tensor away."""

    def save(weights: Path) -> None:
        state = {**small_conch(weights.parent), **changes}
        torch.save({name: value for name, value in state.items() if value is not None}, weights)

    return save


CONCH_FAULTS = {
    "pointer": (lambda weights: weights.write_bytes(LFS_POINTER), "pytorch_model.bin"),
    "no_bytes": (lambda weights: weights.write_bytes(b""), "pytorch_model.bin"),
    "cut_off": (lambda weights: (save_conch()(weights), cut(weights)), "pytorch_model.bin"),
    "list": (lambda weights: torch.save([torch.ones(2)], weights), "pytorch_model.bin"),
    "a_tensor_missing": (save_conch(**{"text.cls_emb": None}), "cls_emb"),
    "no_logit_scale": (save_conch(logit_scale=None), "logit_scale"),
    "another_shape": (save_conch(**{"text.text_projection": torch.ones(16, 9)}), "text_projection"),
    "tokenizer_no_json": (save_conch(), "conch_byte_level_bpe_uncased.json"),
}


@pytest.mark.parametrize("case", CONCH_FAULTS)
def test_faulty_files_of_conch(refused: Refused, conch_folder: Path, case: str) -> None:
    (conch_folder / "conch_byte_level_bpe_uncased.json").write_text("{")
    weights = conch_folder / "pytorch_model.bin"
    make, named = CONCH_FAULTS[case]
    make(weights)
    (fault,) = refused("--vlm_path", str(weights))
    check_told(fault, "vlm.incomplete", str(conch_folder), named, "expected")
