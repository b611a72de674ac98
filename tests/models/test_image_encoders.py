"""Image encoders: CONCH's, what all have in common, and which pair of options names which model."""

from pathlib import Path

import numpy as np
import pytest
import torch

import models.image_encoders
import models.text_towers
from models.image_encoders import ImageEncoder, load_image_encoder
from models.text_towers import load_text_tower
from models.tiny_clip import save_tiny_clip
from tests.support.conch_weights import SMALL_WIDTH, save_small
from tests.support.damage import LFS_POINTER
from tests.support.images import MEAN, STD, as_pillow, assert_alike, draw_images, encode, grey_levels
from tests.support.open_clip_folder import save_open_clip
from utils.errors import UserError

# ---- CONCH -----------------------------------------------------------------------------------------------------------


def test_conch_is_projected_and_normalised(tmp_path: Path) -> None:
    """Resized from 256 pixels; the tower itself is held against CONCH's own results in tests/conch."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    encoder = load_image_encoder("conch", str(save_small(tmp_path)))
    told = encoder.name, encoder.input_size, encoder.output_dim, encoder.projected, encoder.normalised
    assert told == ("conch", 32, SMALL_WIDTH, True, True)
    transform = Compose(
        [Resize(32, InterpolationMode.BICUBIC), CenterCrop(32), ToTensor(), Normalize(MEAN.flatten(), STD.flatten())]
    )
    images = draw_images()
    pixels = torch.stack([transform(image) for image in as_pillow(images)])
    assert grey_levels(encoder.preprocess(images) - pixels) < 2.01
    features = encode(encoder, images)
    np.testing.assert_allclose(features.norm(dim=1), 1, atol=1e-5)
    with torch.no_grad():
        assert_alike(features, encoder.tower(pixels))


def test_conch_without_its_image_tower(tmp_path: Path) -> None:
    weights = tmp_path / "pytorch_model.bin"
    for spoil, found in (
        (lambda: None, "file not found"),
        (lambda: torch.save({"text.cls_emb": torch.ones(2)}, weights), "no weights of visual"),
        (lambda: weights.write_bytes(LFS_POINTER), "not readable"),
    ):
        spoil()
        with pytest.raises(UserError, match=found) as caught:
            load_image_encoder("conch", str(weights))
        assert str(weights) in str(caught.value)
        assert "A file without the image tower is enough" not in str(caught.value)
        assert "Put it into conch/ or name it with --vlm_path" in str(caught.value)


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["clip", "conch", "open_clip"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> ImageEncoder:
    if request.param == "clip":
        save_tiny_clip(tmp_path / "clip", width=32)
        return load_image_encoder("any", str(tmp_path / "clip"))
    if request.param == "conch":
        return load_image_encoder("any", str(save_small(tmp_path)))
    return load_image_encoder("any", str(save_open_clip(tmp_path / "model")))


def test_an_encoder_is_frozen_and_takes_bytes(encoder: ImageEncoder) -> None:
    assert not encoder.training and not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    images = draw_images()
    before = images.clone()
    features = encode(encoder, images)
    assert torch.equal(images, before)
    for row, image in zip(features, images, strict=True):  # a patch's features do not depend on the batch
        np.testing.assert_allclose(encode(encoder, image[None])[0], row, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encode(encoder, images).dtype == torch.float32
    with pytest.raises(TypeError, match=r"torch\.float32, expected torch\.uint8"):
        encoder(images.float() / 255)
    if torch.cuda.is_available():
        on_device = encode(encoder.to("cuda"), images.to("cuda"))
        assert on_device.is_cuda
        assert_alike(on_device.cpu(), features)


# ---- which pair names which model ------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Folders and files by whose names alone a loader is chosen."""
    for name in ("clip/config.json", "both/config.json", "both/open_clip_config.json", "open/open_clip_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "conch").mkdir()
    for name in ("conch/pytorch_model.bin", "conch/open_clip_config.json", "w.pt", "w.pth", "w.safetensors"):
        (tmp_path / name).write_text("")
    return tmp_path


class Loaded(torch.nn.Module):
    def __init__(self, what: str):
        super().__init__()
        self.what = what


PAIRS = [
    ("plip", None, "clip vinid/plip"),
    ("quiltnet", None, "clip wisdomik/QuiltNet-B-32"),
    ("plip", "clip", "clip clip"),
    ("plip", "someone/else", "clip someone/else"),
    ("any", "both", "clip both"),
    ("any", "w.safetensors", "clip w.safetensors"),
    ("conch", None, "conch CONCH_WEIGHTS"),
    ("conch", "w.pt", "conch w.pt"),
    ("conch", "nowhere", "conch nowhere"),
    ("conch", "conch", "conch conch/pytorch_model.bin"),
    ("conch", "clip", "clip clip"),
    ("any", "w.pth", "conch w.pth"),
    ("any", "conch/pytorch_model.bin", "conch conch/pytorch_model.bin"),
]


@pytest.mark.parametrize(("extractor", "place", "expected"), PAIRS)
def test_a_pair_names_the_same_model_for_images_and_texts(
    places: Path, monkeypatch: pytest.MonkeyPatch, extractor: str, place: str | None, expected: str
) -> None:
    def shown(source: object) -> str:
        return str(source).replace(f"{places}/", "").replace(str(models.text_towers.CONCH_WEIGHTS), "CONCH_WEIGHTS")

    for module, clip, conch in (
        (models.image_encoders, "load_clip_encoder", "load_conch_encoder"),
        (models.text_towers, "load_clip_text_tower", "load_conch"),
    ):
        monkeypatch.setattr(module, clip, lambda *given: Loaded(f"clip {shown(given[-1])}"))
        monkeypatch.setattr(module, conch, lambda *given: Loaded(f"conch {shown(given[-1])}"))
    is_place = place is not None and ((places / place).exists() or place == "nowhere")
    vlm_path = str(places / str(place)) if is_place else place
    assert load_image_encoder(extractor, vlm_path).what == expected
    assert load_text_tower(extractor, vlm_path).what == expected


@pytest.mark.parametrize(
    ("extractor", "place", "expected"),
    [
        ("any", "open", "_open_clip_folder"),
        ("any", "conch", "_open_clip_folder"),
        ("conch", "hf-hub:some/clip", "_open_clip_hub"),
        ("open_clip:ViT-B-32", "w.pt", "_open_clip_architecture"),
    ],
)
def test_a_pair_that_names_an_open_clip_model(
    places: Path, monkeypatch: pytest.MonkeyPatch, extractor: str, place: str, expected: str
) -> None:
    for name in ("_open_clip_folder", "_open_clip_hub", "_open_clip_architecture"):
        monkeypatch.setattr(models.image_encoders, name, lambda *_, name=name: Loaded(name))
    vlm_path = place if place.startswith("hf-hub:") else str(places / place)
    assert load_image_encoder(extractor, vlm_path).what == expected


def test_an_extractor_of_unknown_model() -> None:
    with pytest.raises(UserError, match="--feature_extractor mine: its vision-language model is not known"):
        load_image_encoder("mine")
