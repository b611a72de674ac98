"""CLIP's image encoders against transformers' own model and image processor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.image_encoders import load_image_encoder
from models.tiny_clip import save_tiny_clip
from tests.support.damage import change_json, cut
from tests.support.images import as_pillow, assert_alike, draw_images, encode, grey_levels
from utils.errors import UserError


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    save_tiny_clip(tmp_path / "clip", width=32)
    return tmp_path / "clip"


def clip_features(folder: Path, pixels: Tensor) -> Tensor:
    from transformers import CLIPModel

    with torch.no_grad():
        return CLIPModel.from_pretrained(folder).get_image_features(pixel_values=pixels).pooler_output


@pytest.mark.parametrize("on_bytes", [True, False])
@pytest.mark.parametrize("size", [(256, 256), (300, 225), (224, 336), (20, 30), (32, 32)])
def test_clip_preprocesses_as_pillow_does(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], on_bytes: bool
) -> None:
    """on_bytes False: in floating point, as torchvision does on GPUs."""
    from torchvision.transforms.v2.functional import _geometry
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if not on_bytes:
        monkeypatch.setattr(_geometry, "_do_native_uint8_resize_on_cpu", lambda interpolation: False)

    images = draw_images(*size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = processor(images=as_pillow(images), return_tensors="pt")["pixel_values"]
    ours = load_image_encoder("any", str(clip_folder)).preprocess(images)
    assert (ours.dtype, ours.shape) == (torch.float32, (3, 3, 32, 32))
    assert grey_levels(ours - torch.as_tensor(expected)) < (1e-3 if size == (32, 32) else 2.01)


def test_clip_gives_its_image_features(clip_folder: Path) -> None:
    from transformers import CLIPImageProcessor

    images = draw_images()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor(images=as_pillow(images), return_tensors="pt")["pixel_values"]
    expected = clip_features(clip_folder, pixels)
    encoder = load_image_encoder("any", str(clip_folder))
    assert_alike(encode(encoder, images), expected)
    with torch.no_grad():
        np.testing.assert_allclose(encoder.tower(pixels), expected, rtol=0, atol=1e-4)
    told = encoder.name, encoder.input_size, encoder.output_dim, encoder.projected, encoder.normalised
    assert told == ("any", 32, 32, True, False)
    assert (expected.norm(dim=1) - 1).abs().min() > 0.1


def test_clip_reads_its_preprocessor_config(clip_folder: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    images = draw_images(256, 320)
    for said in (
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
        {"size": 40, "crop_size": 32, "resample": 2},
        {"size": 32, "crop_size": 32},
    ):
        settings = {**said, "image_mean": mean, "image_std": std}
        (clip_folder / "preprocessor_config.json").write_text(json.dumps({**settings, "do_resize": True}))
        edges = {"size": {"shortest_edge": said["size"]}} if isinstance(said["size"], int) else {}
        processor = CLIPImageProcessorPil(**{**settings, **edges, "crop_size": {"height": 32, "width": 32}})
        expected = processor(images=as_pillow(images), return_tensors="pt")["pixel_values"]
        ours = load_image_encoder("any", str(clip_folder)).preprocess(images)
        assert grey_levels(ours - torch.as_tensor(expected), torch.tensor(std).view(3, 1, 1)) < 2.01, said


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not the settings of a CLIPImageProcessor"),
        ({"image_mean": [0.5]}, r"mean \[0.5\] .* expected three numbers each"),
        ({"image_std": [0.5, 0, 1]}, "those of std above 0"),
        ({"image_std": "abc"}, "not the settings of a CLIPImageProcessor"),
        ({"resample": 0}, "interpolation '0': expected bicubic or bilinear"),
        ({"size": 224, "crop_size": 224}, "images of 224 pixels, but the vision tower takes 32"),
    ],
)
def test_a_faulty_preprocessor_config(clip_folder: Path, said: Any, found: str) -> None:
    file = clip_folder / "preprocessor_config.json"
    file.write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(UserError, match=found) as caught:
        load_image_encoder("any", str(clip_folder))
    assert str(file) in str(caught.value)


def test_the_width_is_that_of_the_whole_model(clip_folder: Path) -> None:
    """A config.json whose vision_config still has transformers' default of 512."""
    change_json(
        clip_folder / "config.json",
        lambda said: {**said, "vision_config": {**said["vision_config"], "projection_dim": 512}},
    )
    encoder = load_image_encoder("any", str(clip_folder))
    assert encoder.output_dim == encode(encoder, draw_images(32, 32)).shape[1] == 32


def change_weights(folder: Path, new: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(new(load_file(file)), file, metadata={"format": "pt"})


def test_half_precision_weights_become_float32(clip_folder: Path) -> None:
    expected = encode(load_image_encoder("any", str(clip_folder)), draw_images())
    change_weights(clip_folder, lambda state: {name: value.half() for name, value in state.items()})
    change_json(clip_folder / "config.json", lambda said: {**said, "dtype": "float16"})
    encoder = load_image_encoder("any", str(clip_folder))
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    assert_alike(encode(encoder, draw_images()), expected)


def without(part: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        change_weights(folder, lambda state: {name: value for name, value in state.items() if part not in name})

    return spoil


def widen_projection(folder: Path) -> None:
    change_weights(folder, lambda state: {**state, "visual_projection.weight": torch.ones(32, 9)})


def other_type(folder: Path) -> None:
    change_json(folder / "config.json", lambda said: {**said, "model_type": "bert"})


CLIP_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no_vision": (without("vision_model"), "not a complete CLIP image tower: 39 weights are missing"),
    "one_layer": (without("vision_model.encoder.layers.1.mlp.fc1.bias"), "1 weights are missing"),
    "no_projection": (without("visual_projection"), r"1 weights are missing, 0 .* \(visual_projection.weight\)"),
    "another_shape": (widen_projection, "0 weights are missing, 1 have another shape .*visual_projection.weight"),
    "no_config": (lambda folder: (folder / "config.json").unlink(), "no config.json found"),
    "no_clip": (other_type, "model_type is 'bert', expected 'clip'"),
    "no_weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot load the vision-language model"),
    "cut_off": (lambda folder: cut(folder / "model.safetensors"), "cannot load .* Give --vlm_path the folder"),
}


@pytest.mark.parametrize("case", CLIP_FAULTS)
def test_a_faulty_folder_of_clip(clip_folder: Path, case: str) -> None:
    spoil, found = CLIP_FAULTS[case]
    spoil(clip_folder)
    with pytest.raises(UserError, match=found) as caught:
        load_image_encoder("any", str(clip_folder))
    assert str(clip_folder) in str(caught.value)


def test_the_text_side_of_clip_is_not_needed(clip_folder: Path) -> None:
    expected = encode(load_image_encoder("any", str(clip_folder)), draw_images())
    without("text_")(clip_folder)
    encoder = load_image_encoder("any", str(clip_folder))
    np.testing.assert_array_equal(encode(encoder, draw_images()), expected)
    assert not any("text" in name for name in encoder.state_dict())
