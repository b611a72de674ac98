"""Which model a name and a path mean, for images and texts alike."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import models.vlms.conch
from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side, load_text_side
from models.vlms.catalogue import PUBLISHED, find_published, why_refused
from models.vlms.registry import FAMILIES, Source, family_of, find_model
from tests.support.published_vlms import save_conch, save_open_clip
from utils.errors import Fault, UserError

LOADS = [load_image_side, load_text_side]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models in every form in which a path may name them. Read only."""
    root = tmp_path_factory.mktemp("places")
    save_tiny_clip(root / "clip", width=16)
    save_open_clip(root / "open")
    save_conch(root / "conch")
    shutil.copytree(root / "clip", root / "both")
    for file in (root / "open").iterdir():
        shutil.copy(file, root / "both")
    for form in ("open", "conch"):
        (weights,) = (root / form).glob("*pytorch_model.bin")
        (root / f"{form}_alone").mkdir()
        shutil.copy(weights, root / f"{form}_alone" / "w.pt")
    shutil.copy(root / "conch" / "open_clip_config.json", root / "conch_alone")
    tensors = {name: torch.ones(2) for name in ("visual.proj", "logit_scale")}
    wrapped = {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}
    torch.save(wrapped, root / "trained.pt")
    compiled = {"net": {f"_orig_mod.{name}": value for name, value in tensors.items()}}
    torch.save(compiled, root / "compiled.pt")
    shutil.copy(root / "clip" / "model.safetensors", root / "clip.safetensors")
    return root


@pytest.mark.parametrize(
    ("extractor", "place", "family", "weights"),
    [
        ("any", "clip", "Hugging Face CLIP", "clip/model.safetensors"),
        ("plip", "clip", "Hugging Face CLIP", "clip/model.safetensors"),
        ("any", "both", "Hugging Face CLIP", "both/model.safetensors"),
        ("quiltnet-b16", "both", "open_clip", "both/open_clip_pytorch_model.bin"),
        ("any", "both/open_clip_pytorch_model.bin", "open_clip", "both/open_clip_pytorch_model.bin"),
        ("any", "open", "open_clip", "open/open_clip_pytorch_model.bin"),
        ("any", "open_alone", "open_clip", "open_alone/w.pt"),
        ("any", "open_alone/w.pt", "open_clip", "open_alone/w.pt"),
        ("pathgen-clip-l", "open_alone/w.pt", "open_clip", "open_alone/w.pt"),
        ("any", "trained.pt", "open_clip", "trained.pt"),
        ("any", "compiled.pt", "open_clip", "compiled.pt"),
        ("open_clip:ViT-B-32", "open_alone/w.pt", "open_clip", "open_alone/w.pt"),
        ("any", "conch", "CONCH", "conch/pytorch_model.bin"),
        ("conch", "conch/pytorch_model.bin", "CONCH", "conch/pytorch_model.bin"),
        ("any", "conch_alone/w.pt", "CONCH", "conch_alone/w.pt"),
        ("any", "clip.safetensors", "Hugging Face CLIP", "clip.safetensors"),
    ],
)
def test_the_weights_decide_the_family(places: Path, extractor: str, place: str, family: str, weights: str) -> None:
    files = find_model(Source(extractor, str(places / place)))
    assert family_of(files).name == family
    assert files.weights == (places / weights,)


def fault_of(extractor: str, place: object) -> Fault:
    faults = []
    for load in LOADS:
        with pytest.raises(UserError) as caught:
            load(extractor, None if place is None else str(place))
        faults += caught.value.faults
    assert len(faults) == 2 and faults[0] == faults[1]
    return faults[0]


@pytest.mark.parametrize(
    ("extractor", "place", "found", "expected"),
    [
        ("conch", "clip", "Hugging Face CLIP", "CONCH"),
        ("plip", "conch", "CONCH", "Hugging Face CLIP"),
        ("keep", "open", "open_clip", "KEEP"),
        ("medsiglip", "clip", "Hugging Face CLIP", "SigLIP"),
        ("biomedclip", "open", "open_clip", "open_clip with BERT"),
    ],
)
def test_a_model_of_another_family_than_its_name_says(
    places: Path, extractor: str, place: str, found: str, expected: str
) -> None:
    fault = fault_of(extractor, places / place)
    assert (fault.code, fault.where) == ("vlm.other_family", str(places / place))
    assert found in fault.found and fault.expected == f"{expected}, as {extractor} is"


@pytest.mark.parametrize("config", [None, {"model_type": "resnet"}])
def test_weights_of_no_known_model(tmp_path: Path, config: dict[str, str] | None) -> None:
    save_file({"stem.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    fault = fault_of("any", tmp_path)
    assert fault.code == ("vlm.other_type" if config else "vlm.unknown_weights")
    assert ("'resnet'" if config else "stem.weight") in fault.found


@pytest.mark.parametrize("name", ["TITAN", "conch_v15", "conch_v1_5", "prism", "madeleine", "Lumen"])
@pytest.mark.parametrize("as_hub_id", [False, True])
def test_models_that_cannot_be_used_say_why(name: str, as_hub_id: bool) -> None:
    fault = fault_of("any", f"SomeLab/{name}") if as_hub_id else fault_of(name, None)
    assert fault.code == "vlm.refused"
    assert str(why_refused(name)) in fault.found


def test_an_extractor_of_unknown_model() -> None:
    fault = fault_of("mine", None)
    assert (fault.code, fault.where) == ("vlm.unknown", "--feature_extractor mine")
    assert "--list-models" in fault.mend


def test_names_are_found_however_they_are_written() -> None:
    called = [name for model in PUBLISHED for name in (model.name, *model.aliases)]
    assert len(called) == len({name.lower().replace("_", "-") for name in called})
    assert len({model.hub for model in PUBLISHED}) == len(PUBLISHED)
    for model in PUBLISHED:
        for name in (model.name, model.name.upper().replace("-", "_"), model.hub, *model.aliases):
            assert find_published(name) is model
        assert model.family in {family.name for family in FAMILIES}
    for other, name in {"conch_v1": "conch", "quiltnet-b32": "quiltnet", "RN50": "clip-rn50"}.items():
        assert find_published(other) is find_published(name) is not None
    assert find_published("mine") is None


# ---- the hub ---------------------------------------------------------------------------------------------------------


def put_into_cache(folder: Path, hub_id: str, cache: Path) -> Path:
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


@pytest.fixture(params=["offline", "no_network"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty; the hub itself is not to be had."""
    import huggingface_hub
    import huggingface_hub.constants as hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect.\nCheck your internet.")

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", request.param == "offline")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    return tmp_path / "hub"


def test_a_cached_model_of_the_hub_is_its_folder(places: Path, cache: Path) -> None:
    put_into_cache(places / "clip", "vinid/plip", cache)
    for extractor, path in (("plip", None), ("any", "vinid/plip"), ("any", "hf-hub:vinid/plip")):
        for load in LOADS:
            side, expected = load(extractor, path), load("any", str(places / "clip"))
            assert side.fingerprint() == expected.fingerprint()
            assert (side.origin.family, side.origin.name) == ("Hugging Face CLIP", "plip")
            assert (side.origin.revision, side.origin.told) == (COMMIT, "vinid/plip")
            assert expected.origin.revision == expected.origin.name == ""


def test_a_cached_model_in_two_forms(places: Path, cache: Path) -> None:
    put_into_cache(places / "both", "some/model", cache)
    for path, family in (("some/model", "Hugging Face CLIP"), ("hf-hub:some/model", "open_clip")):
        assert load_image_side("any", path).origin.family == family


def test_a_model_that_is_not_in_the_cache(cache: Path) -> None:
    fault = fault_of("plip", None)
    assert (fault.code, fault.where) == ("vlm.not_downloaded", "vinid/plip")
    assert "hf download vinid/plip --local-dir FOLDER" in fault.mend


@pytest.mark.parametrize(("missing", "code"), [("model.safetensors", "vlm.missing"), ("config.json", "vlm.missing")])
def test_a_cached_model_that_is_incomplete_is_named_as_a_folder_is(
    places: Path, cache: Path, missing: str, code: str
) -> None:
    (put_into_cache(places / "clip", "vinid/plip", cache) / missing).unlink()
    assert fault_of("plip", None).code == code


def test_a_cached_model_of_another_family(places: Path, cache: Path) -> None:
    put_into_cache(places / "conch", "vinid/plip", cache)
    fault = fault_of("plip", None)
    assert (fault.code, fault.where) == ("vlm.other_family", "vinid/plip")


def test_a_cached_clip_without_its_text_side(places: Path, cache: Path) -> None:
    file = put_into_cache(places / "clip", "vinid/plip", cache) / "model.safetensors"
    state = {name: value for name, value in load_file(file).items() if not name.startswith("text_")}
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="weights are missing") as caught:
        load_text_side("plip")
    assert [(fault.code, fault.where) for fault in caught.value.faults] == [("vlm.incomplete", "vinid/plip")]


def test_conch_is_looked_for_in_its_folder(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.vlms.conch, "WEIGHTS", places / "conch" / "pytorch_model.bin")
    for name in ("conch", "conch_v1"):
        assert find_model(Source(name)).weights == (places / "conch" / "pytorch_model.bin",)
