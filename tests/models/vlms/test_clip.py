"""Hugging Face CLIP: its preprocessing and tokenizer in all forms that are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side, load_text_side
from models.vlms.tokenizers import CLIP_ROOM
from tests.support.damage import change_json
from tests.support.images import as_pillow, assert_alike, draw_images, encode, grey_levels
from tests.support.published_vlms import change_clip_weights, save_clip_with_tokenizer, without_weights
from utils.errors import UserError


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    save_tiny_clip(tmp_path / "clip", width=32)
    return tmp_path / "clip"


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
    ours = load_image_side("any", str(clip_folder)).transform(images)
    assert (ours.dtype, ours.shape) == (torch.float32, (3, 3, 32, 32))
    assert grey_levels(ours - torch.as_tensor(expected)) < (1e-3 if size == (32, 32) else 2.01)


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
        ours = load_image_side("any", str(clip_folder)).transform(images)
        assert grey_levels(ours - torch.as_tensor(expected), torch.tensor(std).view(3, 1, 1)) < 2.01, said


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("[1]", "has no attribute"),
        ({"image_mean": [0.5]}, r"mean \(0.5,\) .* expected three numbers each"),
        ({"image_std": [0.5, 0, 1]}, "those of std above 0"),
        ({"image_std": "abc"}, "'>' not supported"),
        ({"resample": 0}, "interpolation '0': expected bicubic or bilinear"),
        ({"size": 224, "crop_size": 224}, "images of 224 pixels"),
    ],
)
def test_a_faulty_preprocessor_config(clip_folder: Path, said: Any, found: str) -> None:
    file = clip_folder / "preprocessor_config.json"
    file.write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(UserError, match=found) as caught:
        load_image_side("any", str(clip_folder))
    assert [(fault.code, fault.where) for fault in caught.value.faults] == [("vlm.preprocessing", str(file))]


def test_a_preprocessor_config_that_is_no_json(clip_folder: Path) -> None:
    (clip_folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json: not valid JSON"):
        load_image_side("any", str(clip_folder))


def test_the_width_is_that_of_the_whole_model(clip_folder: Path) -> None:
    """A config.json whose vision_config still has transformers' default of 512."""
    change_json(
        clip_folder / "config.json",
        lambda said: {**said, "vision_config": {**said["vision_config"], "projection_dim": 512}},
    )
    encoder = load_image_side("any", str(clip_folder))
    assert encoder.output_dim == encode(encoder, draw_images(32, 32)).shape[1] == 32


def test_half_precision_weights_become_float32(clip_folder: Path) -> None:
    expected = encode(load_image_side("any", str(clip_folder)), draw_images())
    change_clip_weights(clip_folder, lambda state: {name: value.half() for name, value in state.items()})
    change_json(clip_folder / "config.json", lambda said: {**said, "dtype": "float16"})
    encoder = load_image_side("any", str(clip_folder))
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    assert_alike(encode(encoder, draw_images()), expected)


def test_the_text_side_of_clip_is_not_needed(clip_folder: Path) -> None:
    expected = encode(load_image_side("any", str(clip_folder)), draw_images())
    without_weights("text_")(clip_folder)
    encoder = load_image_side("any", str(clip_folder))
    np.testing.assert_array_equal(encode(encoder, draw_images()), expected)
    assert not any("text" in name for name in encoder.state_dict())


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_the_standard_vocabulary_gives_the_same_tokens(clip_folder: Path, tmp_path: Path) -> None:
    with_files = load_text_side("any", str(save_clip_with_tokenizer(tmp_path / "with_files")))
    standard = load_text_side("any", str(clip_folder))
    texts = ["Mitoses : frequent.", "Pale Cytoplasm : clear, lipid-rich cytoplasm, 5x overview (pT1a)."]
    assert with_files.tokenize(texts) == standard.tokenize(texts)
    assert with_files.special_tokens == standard.special_tokens == (49406, 49407, 0)
    assert (with_files.context_length, with_files.room) == (77, CLIP_ROOM)


def test_a_saved_clip_is_the_same_model_after_loading(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path / "one", width=16, seed=1)
    save_tiny_clip(tmp_path / "two", width=16, seed=1)
    save_tiny_clip(tmp_path / "other", width=16, seed=2)
    one, two, other = (load_text_side("any", str(tmp_path / name)).state_dict() for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert float(one["logit_scale"]) == pytest.approx(2.6592, abs=1e-4)
