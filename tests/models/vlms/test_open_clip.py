"""open_clip's image side against open_clip's own models and transforms."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from models.vlms import load_image_side
from tests.support.damage import LFS_POINTER, change_json, cut
from tests.support.images import as_pillow, assert_alike, draw_images, encode, grey_levels
from tests.support.published_vlms import OPEN_CLIPS, VISION, save_open_clip
from utils.errors import UserError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_pytorch_model.bin"


def open_clip_features(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """What open_clip itself makes of images: preprocessed, and encoded."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = torch.stack([transform(image) for image in as_pillow(images)])
    with torch.no_grad():
        return pixels, model.eval().encode_image(pixels, normalize=False)


def code_of(extractor: str, vlm_path: str | None) -> str:
    with pytest.raises(UserError) as caught:
        load_image_side(extractor, vlm_path)
    (fault,) = caught.value.faults
    return fault.code


@pytest.mark.parametrize("weights", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
@pytest.mark.parametrize("kind", OPEN_CLIPS)
def test_open_clip_models_give_their_image_features(tmp_path: Path, kind: str, weights: str) -> None:
    folder = save_open_clip(tmp_path / "model", kind, weights)
    images = draw_images()
    pixels, expected = open_clip_features(folder, images)
    side = load_image_side("any", str(folder))
    assert grey_levels(side.transform(images) - pixels) < 2.01
    with torch.no_grad():
        np.testing.assert_allclose(side.tower(pixels), expected, rtol=1e-4, atol=1e-4)
    assert_alike(encode(side, images), expected)
    told = side.transform.input_size, side.output_dim, side.projected, side.normalised
    assert told == (224 if kind == "timm" else 32, 16, True, False)
    assert {name.split(".")[1] for name in side.state_dict()} == {"visual"}


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_open_clip_reads_its_preprocess_config(tmp_path: Path, interpolation: str) -> None:
    said = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "interpolation": interpolation, "resize_mode": "shortest"}
    folder = save_open_clip(tmp_path / "model", preprocess_cfg=said)
    images = draw_images(256, 300)
    pixels, _ = open_clip_features(folder, images)
    ours = load_image_side("any", str(folder)).transform(images)
    assert grey_levels(ours - pixels, torch.tensor(said["std"]).view(3, 1, 1)) < 2.01


def test_an_open_clip_text_side_of_the_hub_is_not_looked_for(tmp_path: Path) -> None:
    """As BiomedCLIP's, whose text tower is described in another repository."""
    folder = save_open_clip(tmp_path / "model")
    expected = encode(load_image_side("any", str(folder)), draw_images())
    elsewhere = {"hf_model_name": "nobody/nothing", "hf_proj_type": "mlp"}
    change_json(
        folder / "open_clip_config.json",
        lambda said: {"model_cfg": {**said["model_cfg"], "text_cfg": elsewhere}},
    )
    np.testing.assert_array_equal(encode(load_image_side("any", str(folder)), draw_images()), expected)


@pytest.mark.parametrize("form", ["plain", "of_training", "safetensors"])
def test_an_architecture_of_open_clip_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from safetensors.torch import load_file

    folder = save_open_clip(tmp_path / "model", weights="open_clip_model.safetensors")
    expected = encode(load_image_side("any", str(folder)), draw_images())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny", OPEN_CLIPS["vit"])
    checkpoint = folder / "open_clip_model.safetensors"
    if form != "safetensors":
        state = load_file(checkpoint)
        checkpoint = tmp_path / "epoch_3.pt"
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(state if form == "plain" else wrapped, checkpoint)
    side = load_image_side("open_clip:ViT-Tiny", str(checkpoint))
    np.testing.assert_array_equal(encode(side, draw_images()), expected)
    for vlm_path in (None, str(tmp_path / "nowhere.pt"), str(folder)):
        assert code_of("open_clip:ViT-Tiny", vlm_path) == "vlm.missing"
    assert code_of("open_clip:ViT-Nothing", str(checkpoint)) == "vlm.unknown_architecture"


def test_an_open_clip_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the hub's cache, as after a download."""
    import huggingface_hub.constants as hub

    folder = save_open_clip(tmp_path / "model")
    expected = encode(load_image_side("any", str(folder)), draw_images())
    repository, commit = tmp_path / "hub" / "models--some--clip", "0" * 40
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    side = load_image_side("any", "hf-hub:some/clip")
    np.testing.assert_array_equal(encode(side, draw_images()), expected)
    with pytest.raises(UserError, match=r"some/other: .* hf download some/other --local-dir FOLDER"):
        load_image_side("any", "hf-hub:some/other")
    assert code_of("any", "hf-hub:some/other") == "vlm.not_downloaded"


def change_config(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        change_json(
            folder / "open_clip_config.json",
            lambda said: {"model_cfg": {**said["model_cfg"], **changes.pop("cfg", {})}, **changes},
        )

    return spoil


def change_state(new: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "open_clip_pytorch_model.bin"
        torch.save(new(torch.load(file)), file)

    return spoil


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a_list": (lambda folder: (folder / CONFIG).write_text("[]"), "vlm.config", "a JSON list"),
    "no_model": (lambda folder: (folder / CONFIG).write_text("{}"), "vlm.config", "model_cfg"),
    "not_square": (change_config(cfg={"vision_cfg": {**VISION, "image_size": [32, 40]}}), "vlm.config", "not square"),
    "odd_option": (change_config(cfg={"vision_cfg": {**VISION, "wings": 2}}), "vlm.config", "wings"),
    "mean": (change_config(preprocess_cfg={"mean": [0.5]}), "vlm.config", "expected three numbers each"),
    "interpolation": (change_config(preprocess_cfg={"interpolation": "nearest"}), "vlm.config", "bicubic or bilinear"),
    "more_layers": (
        change_config(cfg={"vision_cfg": {**VISION, "layers": 3}}), "vlm.incomplete", "12 weights are missing",
    ),
    "fewer_layers": (
        change_config(cfg={"vision_cfg": {**VISION, "layers": 1}}), "vlm.incomplete", "12 weights are unknown",
    ),
    "another_width": (
        change_config(cfg={"embed_dim": 8}), "vlm.incomplete", "1 weights are of another shape (visual.proj)",
    ),
    "no_weights": (lambda folder: (folder / WEIGHTS).unlink(), "vlm.missing", "no weights found"),
    "cut_off": (lambda folder: cut(folder / WEIGHTS), "vlm.unreadable", "not readable as the weights"),
    "pointer": (lambda folder: (folder / WEIGHTS).write_bytes(LFS_POINTER), "vlm.unreadable", "git-lfs pointer"),
    "text_alone": (
        change_state(lambda state: {name: value for name, value in state.items() if "visual" not in name}),
        "vlm.incomplete", "32 weights are missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_folder_of_open_clip(tmp_path: Path, case: str) -> None:
    folder = save_open_clip(tmp_path / "model")
    spoil, code, found = FAULTS[case]
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_image_side("any", str(folder))
    (fault,) = caught.value.faults
    assert fault.code == code
    assert str(folder) in fault.where and found in fault.found


def test_a_config_of_open_clip_that_is_no_json(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "model")
    (folder / CONFIG).write_text("{")
    with pytest.raises(UserError, match=r"open_clip_config\.json: not valid JSON"):
        load_image_side("any", str(folder))
