"""The projection of every family: what the library's tower gives before it becomes what the image side gives."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from models.vlms import load_image_side
from models.vlms.registry import load_head
from tests.support.faults import check_fault, expect_faults
from tests.support.golden_vlms import register_tiny_vit
from tests.support.images import draw_images, encode
from tests.support.musk_stand_in import load_musk, save_musk
from tests.support.published_other_vlms import VIT
from tests.support.published_vlms import OPEN_CLIPS, TEXT, save_conch, save_open_clip
from tests.support.vlm_examples import EXAMPLES, Example

WITH_HEAD = [example for example in EXAMPLES if example.own_features]
WITHOUT = [example for example in EXAMPLES if not example.own_features]


@pytest.fixture(autouse=True)
def tiny_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_vit(VIT, monkeypatch)


def check_head(path: Path, own_features: Callable[[Path, Tensor], Tensor]) -> np.ndarray:
    """The head makes the image side's features of the tower's own, which are given back."""
    side, head = load_image_side("any", str(path)), load_head("any", str(path))
    images = draw_images()
    with torch.no_grad():
        own = own_features(path, side.transform(images)).numpy()
    projected = head(own)
    np.testing.assert_allclose(projected, encode(side, images), rtol=0, atol=1e-5)
    assert projected.dtype == np.float32
    assert own.shape[1] in head.widths
    assert (head.output_dim, head.normalised) == (side.output_dim, side.normalised)
    assert (head.told, head.weights) == (side.origin.told, side.origin.weights)
    again = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(again(own), projected)
    return own


@pytest.mark.parametrize("example", WITH_HEAD, ids=lambda example: example.family)
def test_own_features_become_the_image_sides(tmp_path: Path, example: Example) -> None:
    path = example.save(tmp_path / "model", 0)
    assert example.own_features is not None
    check_head(path, example.own_features)
    head = load_head("any", str(path))
    assert head.lengths_tell == (example.family == "CONCH")
    assert head.takes_any_length == (example.family != "KEEP")


def test_musks_own_features_of_one_scale_and_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalised beforehand or not; the package itself is not needed."""
    folder = save_musk(tmp_path / "musk", monkeypatch)
    own = check_head(folder, lambda folder, pixels: load_musk(folder).without_head(pixels))
    monkeypatch.undo()
    head = load_head("musk", str(folder))
    assert (head.widths, head.normalised, head.lengths_tell) == ((8, 16), True, False)
    np.testing.assert_allclose(head(own / np.linalg.norm(own, axis=1, keepdims=True)), head(own), atol=1e-6)
    np.testing.assert_array_equal(head(np.hstack([own, own + 1])), head(own))


@pytest.mark.parametrize("kind", [{"timm_proj": "linear", "timm_proj_bias": True}, {"timm_proj": "mlp"}])
def test_towers_of_timm_in_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]) -> None:
    vision = {"timm_model_name": "tiny_vit", "timm_pool": "", "image_size": 32, **kind}
    made = {"embed_dim": 16, "custom_text": True, "vision_cfg": vision, "text_cfg": TEXT}
    monkeypatch.setitem(OPEN_CLIPS, "tiny", made)
    folder = save_open_clip(tmp_path / "model", "tiny")
    check_head(folder, lambda folder, pixels: open_clip.create_model(f"local-dir:{folder}").eval().visual.trunk(pixels))


@pytest.mark.parametrize("example", WITHOUT, ids=lambda example: example.family)
def test_towers_whose_own_features_are_in_the_joint_space(tmp_path: Path, example: Example) -> None:
    path = example.save(tmp_path / "model", 0)
    with expect_faults("projection.unreadable") as faults:
        load_head("any", str(path))
    check_fault(faults[0], "projection.unreadable", path)


def spoilt(path: Path, name: str, value: Tensor | None) -> Path:
    """A weight file of one tensor less, or of another one."""
    weights = torch.load(next(path.glob("*.bin")) if path.is_dir() else path)
    weights = {**weights, name: value}
    file = path.parent / "spoilt.bin"
    torch.save({name: value for name, value in weights.items() if value is not None}, file)
    return file


SPOILT: dict[str, tuple[str, str, Tensor | None]] = {
    "conch_absent": ("CONCH", "visual.proj_contrast", None),
    "conch_no_square": ("CONCH", "visual.proj_contrast", torch.ones(8, 4)),
    "open_clip_absent": ("open_clip", "visual.proj", None),
    "open_clip_vector": ("open_clip", "visual.proj", torch.ones(8)),
    "open_clip_infinite": ("open_clip", "visual.proj", torch.full((32, 16), torch.nan)),
}


@pytest.mark.parametrize("case", SPOILT)
def test_weights_without_a_fitting_projection(tmp_path: Path, case: str) -> None:
    family, name, value = SPOILT[case]
    path = save_conch(tmp_path / "model") if family == "CONCH" else save_open_clip(tmp_path / "model")
    file = spoilt(path, name, value)
    with expect_faults("projection.unreadable") as faults:
        load_head("any", str(file))
    assert faults[0].where == str(file) and faults[0].expected


def test_layers_that_do_not_fit_each_other(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    keep = next(example for example in EXAMPLES if example.family == "KEEP")
    file = keep.save(tmp_path / "model", 0) / "model.safetensors"
    weights = load_file(file)
    for name, value in (("visual_head.2.weight", torch.ones(16, 17)), ("visual_head.0.bias", torch.ones(3))):
        save_file({**weights, name: value}, file)
        with expect_faults("projection.unreadable"):
            load_head("any", str(file))


def test_files_of_another_family_than_the_name_says(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "model")
    with expect_faults("vlm.other_family"):
        load_head("keep", str(folder))
    with expect_faults("vlm.missing") as faults:
        load_head("keep", str(tmp_path / "none"), "--project-with")
    assert faults[0].where == f"--project-with {tmp_path / 'none'}"
    assert "--vlm_path" not in str(faults[0])
