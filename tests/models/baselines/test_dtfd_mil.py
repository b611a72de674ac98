"""DTFD-MIL against its official code, a loop-wise twin, two optimisers, and on bags that need care."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.baselines.dtfd_mil import DTFDMIL
from models.losses import build_bag_loss
from tests.support.baseline_case import BaselineCase, bag_of
from utils.interface import Bag

NAMES = {
    "dim_reduction.fc1": "embed",
    "attention.attention_V.0": "tier1.attention.content.0",
    "attention.attention_U.0": "tier1.attention.gate.0",
    "attention.attention_weights": "tier1.attention.score",
    "classifier.fc": "tier1.classify",
    "att_classifier.attention.attention_V.0": "tier2.attention.content.0",
    "att_classifier.attention.attention_U.0": "tier2.attention.gate.0",
    "att_classifier.attention.attention_weights": "tier2.attention.score",
    "att_classifier.classifier.fc": "tier2.classify",
}


class GivenOrders(DTFDMIL):
    """DTFD-MIL whose groupings are given in advance, one a call."""

    given: Iterator[Tensor]

    def orders(self, bag: Bag) -> list[Tensor]:
        return [next(self.given)]


def test_golden(golden_baselines: Path) -> None:
    case = BaselineCase(golden_baselines / "DTFD_MIL", NAMES)
    settings, bags = case.settings, case.bags()
    assert settings["distill"] == "AFS"
    model = GivenOrders(
        settings["feature_dim"], case.num_classes, build_bag_loss("ce", case.num_classes), settings["num_groups"],
        embedding=settings["embed_dim"], hidden=settings["attention_dim"],
    )  # fmt: skip
    case.load(model)
    of_bags = [case.inputs[f"bag{i}.permutation"] for i in range(len(bags))]
    of_steps = [case.inputs[f"trace.step{step}.permutation"] for step in range(settings["trace_steps"])]
    model.given = iter(of_bags)
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.logits", output.logits)
        case.check(f"bag{i}.probabilities", output.logits.softmax(0))
        case.check(f"bag{i}.loss_tier1", output.losses["tier1"])
        case.check(f"bag{i}.loss_tier2", output.losses["tier2"])
        for name in ("group_logits", "group_features"):
            case.check(f"bag{i}.{name}", output.details[name])
        assert torch.equal(output.details["group"].squeeze(0), case.inputs[f"bag{i}.group"])
    model.given = iter(of_steps[:1])
    case.check_gradients(model, model(bags[0]).loss)
    model.given = iter(of_steps + of_bags)
    case.check_trace(model, bags, "trace.tier1_tier2", lambda output: [output.losses["tier1"], output.losses["tier2"]])


def build(num_classes: int = 3, kind: type[DTFDMIL] = DTFDMIL, **settings) -> DTFDMIL:
    torch.manual_seed(0)
    return kind(7, num_classes, build_bag_loss("ce", num_classes), embedding=10, hidden=6, **settings).eval()


def by_hand(model: DTFDMIL, rows: list[Tensor], tier: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, pooled row and weights of one tier, row by row."""
    weight = {name: value.double() for name, value in model.state_dict().items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return weight[f"tier{tier}.{name}.weight"] @ x + weight[f"tier{tier}.{name}.bias"]

    def score(x: Tensor) -> float:
        content, gate = linear("attention.content.0", x).tanh(), linear("attention.gate.0", x).sigmoid()
        return float(linear("attention.score", content * gate))

    powers = [math.exp(score(x)) for x in rows]
    weights = [power / sum(powers) for power in powers]
    pooled = sum(w * x for w, x in zip(weights, rows, strict=True))
    return linear("classify", pooled), pooled, torch.tensor(weights)


@pytest.mark.parametrize(("size", "num_groups"), [(11, 3), (3, 5), (1, 4), (8, 1)])
def test_group_by_group(size: int, num_groups: int) -> None:
    model = build(num_groups=num_groups, kind=GivenOrders)
    patches, order = torch.randn(size, 7), torch.randperm(size)
    model.given = iter([order])
    output = model(bag_of(patches, 2))
    embedded = [(model.embed.weight.double() @ x.double()).clamp_min(0).detach() for x in patches]
    groups: list[list[int]] = []
    rest = order.tolist()
    count = min(size, num_groups)
    for number in range(count):
        length = size // count + (number < size % count)
        groups.append(rest[:length])
        rest = rest[length:]
    tier1 = [by_hand(model, [embedded[i] for i in group], 1) for group in groups]
    logits, _, group_weights = by_hand(model, [pooled for _, pooled, _ in tier1], 2)
    torch.testing.assert_close(output.logits.double(), logits, atol=1e-5, rtol=0)
    attention = torch.zeros(size)
    for group, group_weight, (_, _, weights) in zip(groups, group_weights, tier1, strict=True):
        attention[group] = (group_weight * weights).float()
    torch.testing.assert_close(output.details["attention"].squeeze(0), attention)
    first = sum(-group_logits.log_softmax(0)[2].item() for group_logits, _, _ in tier1) / count
    second = -logits.log_softmax(0)[2].item()
    assert [output.losses["tier1"].item(), output.losses["tier2"].item()] == pytest.approx([first, second], abs=1e-5)
    assert output.loss.item() == pytest.approx(first + second, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 4))
def test_groups_divide_the_bag_evenly(size: int, num_groups: int, groupings: int) -> None:
    model = build(num_groups=num_groups, num_mean_inference=groupings)
    output = model(bag_of(torch.randn(size, 7), 0))
    assert output.details["group"].shape == (groupings, size)
    assert torch.isfinite(output.logits).all()
    assert output.details["attention"].sum().item() == pytest.approx(1, abs=1e-5)
    for group in output.details["group"]:
        sizes = group.bincount()
        assert len(sizes) == min(num_groups, size) and sizes.max() - sizes.min() <= 1


def test_two_optimisers_do_the_same() -> None:
    """The authors' training: one optimiser a tier, each with its own loss, and the norms clipped part by part."""
    model, twin = build(num_groups=3).train(), build(num_groups=3).train()
    bags = [bag_of(30 * torch.randn(9, 7), label) for label in (0, 1, 2)]  # such features make gradients worth clipping
    one = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
    parts: list[nn.Module] = [twin.embed, twin.tier1.attention, twin.tier1.classify, twin.tier2]
    two = [
        torch.optim.Adam([p for part in group for p in part.parameters()], lr=0.01, weight_decay=1e-4)
        for group in (parts[:3], parts[3:])
    ]
    clipped = set()
    for step, bag in enumerate(bags * 2):
        torch.manual_seed(step)
        one.zero_grad()
        model(bag).loss.backward()
        model.clip_gradients()
        one.step()

        torch.manual_seed(step)
        output = twin(bag)
        gradients = {}
        for name, group in (("tier1", parts[:3]), ("tier2", parts[3:])):
            parameters = [p for part in group for p in part.parameters()]
            found = torch.autograd.grad(output.losses[name], parameters, retain_graph=True)
            gradients |= dict(zip(parameters, found, strict=True))
        for number, part in enumerate(parts):
            norm = math.sqrt(sum(float(gradients[p].pow(2).sum()) for p in part.parameters()))
            if norm > 5:
                clipped.add(number)
            for p in part.parameters():
                p.grad = gradients[p] * min(1, 5 / norm)
        for optimizer in two:
            optimizer.step()
    assert clipped == {0, 2, 3} or clipped == {0, 1, 2, 3}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), atol=1e-4, rtol=1e-4, msg=name)


def test_tier_2_teaches_tier_1_nothing() -> None:
    model = build().train()
    model(bag_of(torch.randn(9, 7), 1)).losses["tier2"].backward()
    taught = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert taught == {"tier2"}


@pytest.mark.parametrize("size", [1, 2, 30])
def test_every_parameter_gets_a_finite_gradient(size: int) -> None:
    model = build().train()
    model(bag_of(torch.randn(size, 7), 1)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    if size > 2:
        zero = {name for name, parameter in model.named_parameters() if parameter.grad.norm() < 1e-8}
        assert zero == {"tier1.attention.score.bias", "tier2.attention.score.bias"}  # shift all scores alike


def named(slide_id: str, patches: Tensor) -> Bag:
    bag = bag_of(patches, 0)
    return Bag(slide_id, bag.low_features, bag.high_features, bag.child_mask, patch_features=patches)


def test_groups_in_evaluation_come_from_the_slide_and_the_seed() -> None:
    """Neither from the global generator, nor from what was evaluated before."""
    patches = torch.randn(30, 7)
    model = build(seed=3)
    found = model(named("a", patches)).details["group"]
    model(named("b", patches))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(model(named("a", patches)).details["group"], found)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(build(seed=3)(named("a", patches)).details["group"], found)
    assert not torch.equal(model(named("b", patches)).details["group"], found)
    assert not torch.equal(build(seed=4)(named("a", patches)).details["group"], found)


def test_groups_in_training_come_from_the_global_generator() -> None:
    model, bag = build(num_mean_inference=3).train(), named("a", torch.randn(30, 7))
    torch.manual_seed(5)
    first, second = model(bag).details["group"], model(bag).details["group"]
    assert first.shape == (1, 30) and not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(model(bag).details["group"], first)


def test_the_order_of_patches_does_not_matter_given_the_groups() -> None:
    model = build(kind=GivenOrders)
    patches, order, shuffle = torch.randn(30, 7), torch.randperm(30), torch.randperm(30)
    model.given = iter([order, shuffle.argsort()[order]])
    expected, found = model(bag_of(patches, 0)), model(bag_of(patches[shuffle], 0))
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.details["attention"], expected.details["attention"][:, shuffle])


def test_predictions_of_several_groupings_are_averaged() -> None:
    patches = 30 * torch.randn(30, 7)  # so that groupings disagree
    model = build(num_mean_inference=4)
    with torch.no_grad():
        output = model(bag_of(patches, 1))
    alone = build(kind=GivenOrders)
    alone.given = iter(model.orders(bag_of(patches, 1)))
    with torch.no_grad():
        single = [alone(bag_of(patches, 1)) for _ in range(4)]
    mean = torch.stack([found.logits.softmax(0) for found in single]).mean(0)
    torch.testing.assert_close(output.logits.softmax(0), mean)
    assert not torch.equal(single[0].logits, single[1].logits)
    assert output.losses["tier2"].item() == pytest.approx(-mean[1].log().item(), abs=1e-6)
    tier1 = sum(found.losses["tier1"].item() for found in single) / 4
    assert output.losses["tier1"].item() == pytest.approx(tier1, abs=1e-6)
    attention = torch.stack([found.details["attention"] for found in single]).mean(0)
    torch.testing.assert_close(output.details["attention"], attention)
    assert output.details["group_logits"].shape == (16, 3)
