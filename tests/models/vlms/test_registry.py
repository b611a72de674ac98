"""Which family a feature extractor and a path name, for images and texts alike."""

from pathlib import Path

import pytest
import torch

from models.vlms import clip, conch, load_image_side, load_text_side, open_clip
from models.vlms.registry import FAMILIES, family_of
from models.vlms.sides import Source
from utils.errors import UserError


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
    ("conch", None, "conch the project's"),
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
        return str(source).replace(f"{places}/", "").replace(str(conch.WEIGHTS), "the project's")

    for module, name in ((clip, "clip"), (conch, "conch")):
        for load in ("load_text", "load_image"):
            monkeypatch.setattr(module, load, lambda source, name=name: Loaded(f"{name} {shown(source)}"))
    is_place = place is not None and ((places / place).exists() or place == "nowhere")
    vlm_path = str(places / str(place)) if is_place else place
    assert load_image_side(extractor, vlm_path).what == expected
    assert load_text_side(extractor, vlm_path).what == expected


@pytest.mark.parametrize(
    ("extractor", "place", "expected"),
    [
        ("any", "open", "_from_folder"),
        ("any", "conch", "_from_folder"),
        ("conch", "hf-hub:some/clip", "_from_hub"),
        ("open_clip:ViT-B-32", "w.pt", "_from_architecture"),
    ],
)
def test_a_pair_that_names_an_open_clip_model(
    places: Path, monkeypatch: pytest.MonkeyPatch, extractor: str, place: str, expected: str
) -> None:
    for name in ("_from_folder", "_from_hub", "_from_architecture"):
        monkeypatch.setattr(open_clip, name, lambda *_, name=name: Loaded(name))
    vlm_path = place if place.startswith("hf-hub:") else str(places / place)
    assert load_image_side(extractor, vlm_path).what == expected
    assert family_of(Source(extractor, vlm_path)) is open_clip.FAMILY


@pytest.mark.parametrize("load", [load_image_side, load_text_side])
def test_an_extractor_of_unknown_model(load: object) -> None:
    assert callable(load)
    with pytest.raises(UserError) as caught:
        load("mine")
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("vlm.unknown", "--feature_extractor mine")
    assert all(family.reads in fault.mend for family in FAMILIES)
