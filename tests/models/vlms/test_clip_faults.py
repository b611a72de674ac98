"""Folders of Hugging Face CLIP that are at fault, for one side or for both."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side, load_text_side
from tests.support.damage import LFS_POINTER, change_json, cut
from tests.support.published_vlms import change_clip_weights, save_clip_vocabulary, without_weights
from utils.errors import Fault, UserError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX, SHARD = "model.safetensors.index.json", "model-00002-of-00002.safetensors"
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


def shard(folder: Path, count: int, absent: int = 0) -> Path:
    """The weights in several files, some of which are not there. Returns the last that is."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    names = sorted(state)
    for number, file in enumerate(files):
        save_file({name: state[name] for name in names[number::count]}, folder / file, metadata={"format": "pt"})
    listed = {name: files[number % count] for number, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"weight_map": listed}))
    for file in files[count - absent :]:
        (folder / file).unlink()
    return folder / files[count - absent - 1]


def with_tokenizer(spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    """vocab.json and merges.txt of CLIP in the folder, then spoilt."""

    def put(folder: Path) -> None:
        save_clip_vocabulary(folder)
        spoil(folder)

    return put


def turn_vocabulary(folder: Path) -> None:
    change_json(folder / "vocab.json", lambda ids: dict(zip(ids, [*list(ids.values())[1:], 0], strict=True)))


# what is done to the folder, the code, the file at fault ("" for the folder), and what is found
OF_BOTH: dict[str, Case] = {
    "no_config": (lambda folder: (folder / CONFIG).unlink(), "vlm.missing", "", "no config.json found"),
    "not_clip": (change_config(model_type="bert"), "vlm.other_type", CONFIG, "model_type is 'bert'"),
    "config_a_list": (lambda folder: (folder / CONFIG).write_text("[]"), "vlm.config", CONFIG, "a JSON list"),
    "config_a_pointer": (
        lambda folder: (folder / CONFIG).write_bytes(LFS_POINTER),
        "vlm.unreadable",
        CONFIG,
        "a git-lfs pointer",
    ),
    "config_empty": (lambda folder: (folder / CONFIG).write_bytes(b""), "vlm.unreadable", CONFIG, "an empty file"),
    "no_weights": (lambda folder: (folder / WEIGHTS).unlink(), "vlm.missing", "", "no weights found"),
    "cut_off": (lambda folder: cut(folder / WEIGHTS), "vlm.unreadable", WEIGHTS, "damaged, or cut off"),
    "page": (lambda folder: (folder / WEIGHTS).write_text("<!DOCTYPE html>"), "vlm.unreadable", WEIGHTS, "a page of"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "vlm.unreadable", WEIGHTS, "an empty file"),
    "pointer": (
        lambda folder: (folder / WEIGHTS).write_bytes(LFS_POINTER),
        "vlm.unreadable",
        WEIGHTS,
        "a git-lfs pointer",
    ),
    "a_shard_is_missing": (lambda folder: shard(folder, 3, absent=1), "vlm.incomplete", INDEX, "1 of 3 shards"),
    "no_shard_is_there": (lambda folder: shard(folder, 2, absent=2), "vlm.incomplete", INDEX, "2 of 2 shards"),
    "a_shard_is_a_pointer": (
        lambda folder: shard(folder, 2).write_bytes(LFS_POINTER),
        "vlm.unreadable",
        SHARD,
        "a git-lfs pointer",
    ),
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
    "tokenizer_a_pointer": (
        lambda folder: (folder / "tokenizer.json").write_bytes(LFS_POINTER), "vlm.tokenizer", "tokenizer.json",
        "a git-lfs pointer",
    ),
    "no_merges": (with_tokenizer(lambda folder: (folder / "merges.txt").unlink()), "vlm.tokenizer", "", "merges.txt"),
    "empty_merges": (
        with_tokenizer(lambda folder: (folder / "merges.txt").write_bytes(b"")), "vlm.tokenizer", "merges.txt",
        "an empty file",
    ),
    "few_merges": (
        with_tokenizer(lambda folder: (folder / "merges.txt").write_text("#version: 0.2\n")), "vlm.tokenizer", "",
        "CLIP's standard one",
    ),
    "words_renumbered": (with_tokenizer(turn_vocabulary), "vlm.tokenizer", "", "CLIP's standard one"),
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
    assert (fault.code, fault.where, fault.found) == ("vlm.missing", f"--vlm_path {source}", "no such folder or file")


@pytest.mark.parametrize("side", LOADS)
def test_a_file_instead_of_a_folder_of_clip(clip_folder: Path, side: str) -> None:
    file = str(clip_folder / CONFIG)
    fault = fault_of(side, "any", file)
    assert (fault.code, fault.where) == ("vlm.not_weights", file)


def test_sharded_weights_are_read_together(clip_folder: Path) -> None:
    expected = load_text_side("any", str(clip_folder)).fingerprint()
    shard(clip_folder, 3)
    assert load_text_side("any", str(clip_folder)).fingerprint() == expected


def spoil_vision(folder: Path) -> None:
    change_json(folder / CONFIG, lambda said: {**said, "vision_config": {"hidden_size": 30, "num_attention_heads": 7}})
    change_clip_weights(folder, lambda state: {**state, "vision_model.post_layernorm.weight": torch.ones(3)})


def spoil_texts(folder: Path) -> None:
    change_json(folder / CONFIG, lambda said: {**said, "text_config": {"hidden_size": 30, "num_attention_heads": 7}})
    change_clip_weights(folder, lambda state: {**state, "text_model.final_layer_norm.weight": torch.ones(3)})


@pytest.mark.parametrize(("side", "spoil"), [("text", spoil_vision), ("image", spoil_texts)])
def test_faults_of_the_other_side_do_not_matter(clip_folder: Path, side: str, spoil: Callable[[Path], None]) -> None:
    expected = LOADS[side]("any", str(clip_folder)).fingerprint()
    spoil(clip_folder)
    assert LOADS[side]("any", str(clip_folder)).fingerprint() == expected
    (other,) = {*LOADS} - {side}
    with pytest.raises(UserError):
        LOADS[other]("any", str(clip_folder))
