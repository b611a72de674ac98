"""What ViLa-MIL, FOCUS and MSCPT have in common: small bags, gradients, checkpoints, both kinds of towers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.build import KINDS, build_model
from tests.support.baseline_case import bag_of
from tests.support.random_towers import random_tower
from utils.config import Config
from utils.effects import options_without_effect
from utils.interface import Bag, SlideModel
from utils.model_types import MODEL_TYPES

WIDTH = 16
TEXTS = {"ViLa_MIL": (1, 1), "FOCUS": (1, 1), "MSCPT": (2, 3)}  # low and high texts a class
# no gradient in exact arithmetic: they move all inputs of a softmax alike
WITHOUT_GRADIENT = {
    "ViLa_MIL": {"attention.score.bias", "read_slide.maps.out_proj.bias"},
    "FOCUS": {"key.bias"},
    "MSCPT": set(),
}


def texts_of(model_type: str, num_classes: int) -> tuple[list[str], list[str]]:
    numbers = dict(zip(("low", "high"), TEXTS[model_type], strict=True))
    low, high = (
        [f"a slide of class{k} at {scale} resolution shows trait{n}" for k in range(num_classes) for n in range(number)]
        for scale, number in numbers.items()
    )
    return low, high


def build(model_type: str, num_classes: int = 3, tower: str = "clip", **options: object) -> SlideModel:
    config = Config(model_type=model_type, num_context_tokens=4, **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return build_model(config, random_tower(tower), *texts_of(model_type, num_classes), num_classes)


def random_bag(num_low: int, num_high: int, label: int = 1, seed: int = 0) -> Bag:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.randn(num_low, WIDTH, generator=generator), torch.randn(num_high, WIDTH, generator=generator)
    return bag_of(high, label, low)


MODELS = [build(name) for name in TEXTS]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 12), st.integers(1, 40), st.sampled_from([0.0, 1.0, 1e3]))
def test_bags_of_any_size(model: SlideModel, num_low: int, num_high: int, scale: float) -> None:
    """One patch, fewer than a window, a top or a choice has; patches that are all alike."""
    bag = random_bag(num_low, num_high)
    bag = replace(bag, low_features=scale * bag.low_features, patch_features=scale * bag.patches)
    output = model.eval()(bag)
    assert output.logits.shape == (3,)
    assert output.logits.isfinite().all()
    model.zero_grad()
    output.loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("tower", ["clip", "conch"])
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("model_type", TEXTS)
def test_every_trained_parameter_gets_a_gradient(model_type: str, num_classes: int, tower: str) -> None:
    model = build(model_type, num_classes, tower)
    model(random_bag(9, 50)).loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert ".tower." in name
            assert parameter.grad is None
        elif name not in WITHOUT_GRADIENT[model_type]:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 1e-7, name


def test_the_released_tower_of_vila_mil_gets_gradients() -> None:
    config = Config(model_type="ViLa_MIL", variant="released", num_context_tokens=4)
    model = build_model(config, random_tower("clip"), *texts_of("ViLa_MIL", 2), 2)
    model(random_bag(9, 50)).loss.backward()
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".tower." in name for name in names)
    zero = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert zero <= WITHOUT_GRADIENT["ViLa_MIL"]


@pytest.mark.parametrize("model_type", TEXTS)
def test_a_slide_without_label_has_no_loss(model_type: str) -> None:
    model = build(model_type).eval()
    with_label, without = model(random_bag(5, 20)), model(random_bag(5, 20, label=-1))
    assert without.loss is None
    assert not without.losses
    assert torch.equal(with_label.logits, without.logits)
    assert not any(value.requires_grad for value in with_label.details.values())


@pytest.mark.parametrize("model_type", TEXTS)
def test_a_checkpoint_holds_what_is_trained(model_type: str) -> None:
    model, other = build(model_type).eval(), build(model_type).eval()
    bag = random_bag(5, 20)
    with torch.no_grad():
        other(bag)  # what is kept of this state must not outlive it
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    model(bag).loss.backward()
    optimizer.step()
    saved = model.checkpoint()
    assert not any(".tower." in name for name in saved)
    with torch.no_grad():
        expected = model(bag).logits
        assert not torch.allclose(other(bag).logits, expected)
        other.load_checkpoint(saved)
        assert torch.equal(other(bag).logits, expected)


@pytest.mark.parametrize("model_type", ["ViLa_MIL", "MSCPT"])
def test_low_patches_matter(model_type: str) -> None:
    model, bag = build(model_type).eval(), random_bag(5, 20)
    other = replace(bag, low_features=bag.low_features.roll(1, dims=1))
    assert not torch.allclose(model(bag).logits, model(other).logits)


def test_the_order_of_patches_does_not_matter_to_vila_mil() -> None:
    model, bag = build("ViLa_MIL").eval(), random_bag(7, 20)
    generator = torch.Generator().manual_seed(5)
    low, high = torch.randperm(7, generator=generator), torch.randperm(20, generator=generator)
    shuffled = replace(bag, low_features=bag.low_features[low], patch_features=bag.patches[high])
    found, expected = model(shuffled), model(bag)
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    assert torch.allclose(found.details["attention"], expected.details["attention"][:, high], atol=1e-6)


@pytest.mark.parametrize("model_type", ["ViLa_MIL", "FOCUS"])
def test_attention_sums_to_one(model_type: str) -> None:
    attention = build(model_type)(random_bag(5, 30)).details["attention"]
    assert attention.shape[1] == 30
    assert attention.sum(1).tolist() == pytest.approx([1.0] * len(attention), abs=1e-5)


@pytest.mark.parametrize("model_type", TEXTS)
def test_bf16(model_type: str) -> None:
    model, bag = build(model_type).eval(), random_bag(9, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(bag)
    output.loss.backward()
    assert torch.allclose(output.logits.float().softmax(0), model(bag).logits.softmax(0), atol=0.1)


@pytest.mark.parametrize(("model_type", "dropped"), [("FOCUS", 0.25), ("MSCPT", 0.5)])
def test_dropout_is_off_unless_asked_for(model_type: str, dropped: float) -> None:
    bag = random_bag(9, 50)
    plain = build(model_type).train()
    assert torch.equal(plain(bag).logits, plain(bag).logits)
    model = build(model_type, drop_out=True).train()
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout) and layer.p} == {dropped}
    assert not torch.equal(model(bag).logits, model(bag).logits)


@pytest.mark.parametrize("model_type", TEXTS)
def test_the_user_is_told_of_prompts_that_are_cut(model_type: str) -> None:
    low, high = texts_of(model_type, 2)
    config = Config(model_type=model_type, num_context_tokens=4)
    assert build_model(config, random_tower("clip"), low, high, 2).notes() == []
    cut = build_model(config, random_tower("clip"), low, [high[0] + " word" * 80, *high[1:]], 2).notes()
    assert len(cut) == 1
    assert cut[0].startswith("1 of ")
    assert "77 tokens" in cut[0]


def test_options_and_forms() -> None:
    without = {name: options_without_effect(Config(model_type=name)) for name in TEXTS}
    assert "drop_out" in without["ViLa_MIL"]  # it has none
    assert "variant" in without["FOCUS"]
    assert {"num_context_tokens", "prototype_number"} <= without["MSCPT"]
    assert not {"num_context_tokens", "prototype_number", "bag_loss", "variant", "LLM"} & without["ViLa_MIL"]
    forms = {name: (KINDS[name].form(Config()), MODEL_TYPES[name].texts) for name in TEXTS}
    assert forms == {"ViLa_MIL": ("both", "ViLa_MIL"), "FOCUS": ("patches", "ViLa_MIL"), "MSCPT": ("both", "MSCPT")}
    assert build("ViLa_MIL", prototype_number=5).prototypes.shape == (5, WIDTH)
