"""open_clip's image encoders against open_clip's own models and transforms."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from models.image_encoders import load_image_encoder
from tests.support.damage import LFS_POINTER, change_json, cut
from tests.support.images import as_pillow, assert_alike, draw_images, encode, grey_levels
from tests.support.open_clip_folder import OPEN_CLIPS, VISION, save_open_clip
from utils.errors import UserError


def open_clip_features(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """What open_clip itself makes of images: preprocessed, and encoded."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = torch.stack([transform(image) for image in as_pillow(images)])
    with torch.no_grad():
        return pixels, model.eval().encode_image(pixels, normalize=False)


@pytest.mark.parametrize("weights", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
@pytest.mark.parametrize("kind", OPEN_CLIPS)
def test_open_clip_models_give_their_image_features(tmp_path: Path, kind: str, weights: str) -> None:
    folder = save_open_clip(tmp_path / "model", kind, weights)
    images = draw_images()
    pixels, expected = open_clip_features(folder, images)
    encoder = load_image_encoder("any", str(folder))
    assert grey_levels(encoder.preprocess(images) - pixels) < 2.01
    with torch.no_grad():
        np.testing.assert_allclose(encoder.tower(pixels), expected, rtol=1e-4, atol=1e-4)
    assert_alike(encode(encoder, images), expected)
    told = encoder.name, encoder.input_size, encoder.output_dim, encoder.projected, encoder.normalised
    assert told == ("any", 224 if kind == "timm" else 32, 16, True, False)
    assert {name.split(".")[1] for name in encoder.state_dict()} == {"visual"}


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_open_clip_reads_its_preprocess_config(tmp_path: Path, interpolation: str) -> None:
    said = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "interpolation": interpolation, "resize_mode": "shortest"}
    folder = save_open_clip(tmp_path / "model", preprocess_cfg=said)
    images = draw_images(256, 300)
    pixels, _ = open_clip_features(folder, images)
    ours = load_image_encoder("any", str(folder)).preprocess(images)
    assert grey_levels(ours - pixels, torch.tensor(said["std"]).view(3, 1, 1)) < 2.01


def test_an_open_clip_text_side_of_the_hub_is_not_looked_for(tmp_path: Path) -> None:
    """As BiomedCLIP's, whose text tower is described in another repository."""
    folder = save_open_clip(tmp_path / "model")
    expected = encode(load_image_encoder("any", str(folder)), draw_images())
    elsewhere = {"hf_model_name": "nobody/nothing", "hf_proj_type": "mlp"}
    change_json(
        folder / "open_clip_config.json",
        lambda said: {"model_cfg": {**said["model_cfg"], "text_cfg": elsewhere}},
    )
    np.testing.assert_array_equal(encode(load_image_encoder("any", str(folder)), draw_images()), expected)


@pytest.mark.parametrize("form", ["plain", "of_training", "safetensors"])
def test_an_architecture_of_open_clip_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from safetensors.torch import load_file

    folder = save_open_clip(tmp_path / "model", weights="open_clip_model.safetensors")
    expected = encode(load_image_encoder("any", str(folder)), draw_images())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny", OPEN_CLIPS["vit"])
    checkpoint = folder / "open_clip_model.safetensors"
    if form != "safetensors":
        state = load_file(checkpoint)
        checkpoint = tmp_path / "epoch_3.pt"
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(state if form == "plain" else wrapped, checkpoint)
    encoder = load_image_encoder("open_clip:ViT-Tiny", str(checkpoint))
    np.testing.assert_array_equal(encode(encoder, draw_images()), expected)
    assert encoder.name == "open_clip:ViT-Tiny"
    for vlm_path in (None, str(tmp_path / "nowhere.pt"), str(folder)):
        with pytest.raises(UserError, match=f"--vlm_path {vlm_path}: expected the path of a checkpoint file"):
            load_image_encoder("open_clip:ViT-Tiny", vlm_path)
    with pytest.raises(UserError, match="open_clip has no architecture ViT-Nothing; list them with"):
        load_image_encoder("open_clip:ViT-Nothing", str(checkpoint))


def test_an_open_clip_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the hub's cache, as after a download."""
    import huggingface_hub.constants as hub

    folder = save_open_clip(tmp_path / "model")
    expected = encode(load_image_encoder("any", str(folder)), draw_images())
    repository, commit = tmp_path / "hub" / "models--some--clip", "0" * 40
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    encoder = load_image_encoder("any", "hf-hub:some/clip")
    np.testing.assert_array_equal(encode(encoder, draw_images()), expected)
    with pytest.raises(UserError, match="cannot load the open_clip model 'some/other'") as caught:
        load_image_encoder("any", "hf-hub:some/other")
    assert "hf download some/other --local-dir FOLDER" in str(caught.value)


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


NO_MODEL = "does not describe an image tower that open_clip builds"
OPEN_CLIP_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no_json": (lambda folder: (folder / "open_clip_config.json").write_text("{"), "not valid JSON"),
    "a_list": (lambda folder: (folder / "open_clip_config.json").write_text("[]"), NO_MODEL),
    "no_model": (lambda folder: (folder / "open_clip_config.json").write_text("{}"), NO_MODEL),
    "not_square": (change_config(cfg={"vision_cfg": {**VISION, "image_size": [32, 40]}}), "not square"),
    "odd_option": (change_config(cfg={"vision_cfg": {**VISION, "wings": 2}}), f"{NO_MODEL} .*wings"),
    "mean": (change_config(preprocess_cfg={"mean": [0.5]}), "expected three numbers each"),
    "interpolation": (change_config(preprocess_cfg={"interpolation": "nearest"}), "expected bicubic or bilinear"),
    "more_layers": (
        change_config(cfg={"vision_cfg": {**VISION, "layers": 3}}), "not a complete image tower .*: 12 weights",
    ),
    "fewer_layers": (change_config(cfg={"vision_cfg": {**VISION, "layers": 1}}), "12 weights are unknown to"),
    "another_width": (change_config(cfg={"embed_dim": 8}), r"0 .* missing, 1 have another shape \(visual.proj\)"),
    "no_weights": (lambda folder: (folder / "open_clip_pytorch_model.bin").unlink(), "no weights found; expected"),
    "cut_off": (lambda folder: cut(folder / "open_clip_pytorch_model.bin"), "not readable as the weights"),
    "pointer": (lambda folder: (folder / "open_clip_pytorch_model.bin").write_bytes(LFS_POINTER), "not readable"),
    "text_alone": (
        change_state(lambda state: {name: value for name, value in state.items() if "visual" not in name}),
        "32 weights are missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPEN_CLIP_FAULTS)
def test_a_faulty_folder_of_open_clip(tmp_path: Path, case: str) -> None:
    folder = save_open_clip(tmp_path / "model")
    spoil, found = OPEN_CLIP_FAULTS[case]
    spoil(folder)
    with pytest.raises(UserError, match=found) as caught:
        load_image_encoder("any", str(folder))
    assert str(folder) in str(caught.value)
