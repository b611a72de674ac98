"""Features of one model with texts of another are refused, whatever the families; what cannot be compared is noted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from datasets.features_model import FeaturesModel
from models.vlms import TextSide, load_text_side
from models.vlms.identity import image_identity
from models.vlms.registry import Source
from tests.support.faults import check_fault, expect_faults
from tests.support.golden_vlms import register_tiny_vit
from tests.support.published_other_vlms import VIT
from tests.support.vlm_examples import EXAMPLES, save_clip
from training.same_model import check_same_model, check_trained_with
from utils.config import Config
from utils.errors import Fault
from utils.model_identity import ModelIdentity


@dataclass(frozen=True)
class Model:
    path: Path
    tower: TextSide
    identity: ModelIdentity


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """One of each family, and another of the first family."""
    with pytest.MonkeyPatch.context() as patch:
        register_tiny_vit(VIT, patch)
        return made_models(tmp_path_factory)


def made_models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    makes: list[Callable[[Path], Path]] = [lambda folder, one=one: one.save(folder, 0) for one in EXAMPLES]
    makes.append(lambda folder: EXAMPLES[0].save(folder, 1))
    found = []
    for make in makes:
        path = make(tmp_path_factory.mktemp("model") / "model")
        tower, identity = load_text_side("any", str(path)), image_identity(Source("any", str(path)))
        found.append(Model(path, tower, identity))
    return found


def config_of(model: Model | None = None, **more: str) -> Config:
    given = {"feature_extractor": "any", "vlm_path": str(model.path)} if model else {}
    return Config(task="task", data_root_dir="data", **{**given, **more})


def warnings(config: Config, tower: TextSide | None, found: FeaturesModel) -> list[Fault]:
    told: list[Fault] = []
    check_same_model(config, tower, found, told.append)
    return told


def of(identity: ModelIdentity | None) -> FeaturesModel:
    return FeaturesModel(identity, [], 3)


def test_every_pair_of_models_is_refused_and_both_are_named(models: list[Model]) -> None:
    assert len({model.identity.sha256 for model in models}) == len(models) == len(EXAMPLES) + 1
    for texts in models:
        assert warnings(config_of(texts), texts.tower, of(texts.identity)) == []
        for images in models:
            if images is not texts:
                with expect_faults("features.other_model") as faults:
                    warnings(config_of(texts), texts.tower, of(images.identity))
                assert str(images.identity) in faults[0].found and str(texts.identity) in faults[0].expected
                assert str(texts.path) in faults[0].expected


def test_features_that_are_not_projected_are_of_another_model(models: list[Model]) -> None:
    with expect_faults("features.other_model"):
        warnings(config_of(models[0]), models[0].tower, of(replace(models[0].identity, projected=False)))


def test_features_of_another_model_than_in_training(models: list[Model]) -> None:
    first, second = models[0], models[1]
    check_trained_with(config_of(first), first.identity, first.identity)
    check_trained_with(config_of(first), first.identity, None)
    with expect_faults("features.other_model") as faults:
        check_trained_with(config_of(first), first.identity, second.identity)
    assert str(first.identity) in faults[0].found and str(second.identity) in faults[0].expected


@pytest.fixture
def without_images(tmp_path: Path, models: list[Model]) -> Model:
    """The first model without the weights of its image side: enough for its texts."""
    path = save_clip(tmp_path / "texts", 0)
    weights = path / "model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if "vision" not in name}, weights)
    return replace(models[0], path=path, tower=load_text_side("any", str(path)))


def test_a_model_without_image_side_is_known_by_its_family(without_images: Model, models: list[Model]) -> None:
    (warning,) = warnings(config_of(without_images), without_images.tower, of(models[0].identity))
    check_fault(warning, "features.not_compared", "", str(models[0].identity), str(without_images.path))
    other = next(model for model in models if model.identity.family != models[0].identity.family)
    with expect_faults("features.other_model") as faults:
        warnings(config_of(without_images), without_images.tower, of(other.identity))
    assert str(other.identity) in faults[0].found and without_images.tower.origin.family in faults[0].expected


NAMED = ModelIdentity("KEEP", "keep", "0" * 64, True, True)


@pytest.mark.parametrize(
    ("name", "told", "is_refused"),
    [
        ("keep", NAMED, False),
        ("plip", NAMED, True),
        ("plip", replace(NAMED, name=""), False),
        ("another", NAMED, False),
        ("hf-clip-vitb", replace(NAMED, name="clip-vitb"), False),
    ],
)
def test_without_texts_names_are_compared(name: str, told: ModelIdentity, is_refused: bool) -> None:
    config = config_of(feature_extractor=name, model_type="ABMIL")
    if not is_refused:
        assert warnings(config, None, of(told)) == []
        return
    with expect_faults("features.other_model") as faults:
        warnings(config, None, of(told))
    assert str(told) in faults[0].found and name in faults[0].expected


def test_files_that_do_not_say_are_noted_once(models: list[Model]) -> None:
    tower = models[0].tower
    (warning,) = warnings(config_of(models[0]), tower, FeaturesModel(None, ["a", "b"], 2))
    check_fault(warning, "features.no_model", "", "2 of 2 slides", "--assume-model")
    (warning,) = warnings(config_of(models[0]), tower, FeaturesModel(models[0].identity, ["b"], 2))
    check_fault(warning, "features.no_model", "", "1 of 2 slides", "'b'")
    assert warnings(config_of(models[0], assume_model="any"), tower, FeaturesModel(None, ["a", "b"], 2)) == []


@pytest.mark.parametrize(
    ("assumed", "extractor", "told"),
    [("conch", "plip", None), ("conch", "any", None), ("keep", "keep", replace(NAMED, name="musk"))],
)
def test_an_assumption_that_contradicts(assumed: str, extractor: str, told: ModelIdentity | None) -> None:
    with expect_faults("features.assumed") as faults:
        warnings(config_of(feature_extractor=extractor, assume_model=assumed), None, of(told))
    assert assumed in str(faults[0])


def test_an_alias_is_the_same_model() -> None:
    config = config_of(feature_extractor="quiltnet-b32", assume_model="quiltnet")
    assert warnings(config, None, FeaturesModel(None, ["a"], 1)) == []
