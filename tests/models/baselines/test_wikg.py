"""WiKG against its official code, a loop-wise twin in numpy, and on bags that need care."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baselines import wikg
from models.baselines.wikg import WiKG, nearest
from models.losses import build_bag_loss
from tests.support.baseline_case import BaselineCase, bag_of

NAMES = {
    "_fc1.0": "embed.0",
    "W_head": "head",
    "W_tail": "tail",
    "linear1": "sum_message.0",
    "linear2": "product_message.0",
    "readout.gate_nn.0": "attention.0",
    "readout.gate_nn.2": "attention.2",
    "norm": "norm",
    "fc": "classify",
}
UNUSED = ("gate_U", "gate_V", "gate_W")  # of the official code, which never calls them


def golden_model(case: BaselineCase, score: str, readout: str) -> WiKG:
    settings = case.settings
    loss = build_bag_loss("ce", case.num_classes)
    model = WiKG(
        settings["feature_dim"], case.num_classes, loss, settings["topk"], score, readout, hidden=settings["hidden_dim"]
    )
    case.load(model)
    return model


@pytest.mark.parametrize(("score", "prefix"), [("sums", ""), ("dot", "published.")])
def test_golden(golden_baselines: Path, score: str, prefix: str) -> None:
    case = BaselineCase(golden_baselines / "WiKG", NAMES, UNUSED)
    model, bags = golden_model(case, score, case.settings["readout"]), case.bags()
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.{prefix}logits", output.logits)
        case.check(f"bag{i}.{prefix}loss", output.loss)
        case.check(f"bag{i}.neighbours", output.details["neighbours"])
    case.check_gradients(model, model(bags[0]).loss, prefix)
    case.check_trace(model, bags, prefix=prefix)


@pytest.mark.parametrize(("score", "prefix"), [("sums", ""), ("dot", "published.")])
def test_golden_mean_readout(golden_baselines: Path, score: str, prefix: str) -> None:
    case = BaselineCase(golden_baselines / "WiKG", NAMES, (*UNUSED, "readout"))
    model = golden_model(case, score, "mean")
    for i, bag in enumerate(case.bags()):
        case.check(f"bag{i}.{prefix}logits_mean_readout", model(bag).logits)


def build(num_classes: int = 3, **settings) -> WiKG:
    torch.manual_seed(0)
    return WiKG(7, num_classes, build_bag_loss("ce", num_classes), hidden=10, **settings).eval()


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def softmax(x: list[float]) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def by_hand(model: WiKG, patches: np.ndarray, number: int, released: bool) -> tuple[np.ndarray, list[list[int]]]:
    """Logits and neighbours, node by node and neighbour by neighbour."""
    weight = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return weight[f"{name}.weight"] @ x + weight[f"{name}.bias"]

    first = [leaky(linear("embed.0", x)) for x in patches]
    middle = sum(first) / len(first)
    heads = [linear("head", (u + middle) / 2) for u in first]
    tails = [linear("tail", (u + middle) / 2) for u in first]
    nodes, chosen = [], []
    for h in heads:
        scores = [float(h @ t) / len(h) ** 0.5 for t in tails]
        best = sorted(range(len(tails)), key=lambda j: -scores[j])[:number]
        shares = softmax([scores[j] for j in best])
        edge_scores = []
        for j, share in zip(best, shares, strict=True):
            gate = np.tanh(h + share * tails[j] + (1 - share) * h)
            edge_scores.append(tails[j].sum() * gate.sum() if released else tails[j] @ gate)
        message = sum(w * tails[j] for j, w in zip(best, softmax(edge_scores), strict=True))
        nodes.append(leaky(linear("sum_message.0", h + message)) + leaky(linear("product_message.0", h * message)))
        chosen.append(best)
    if model.attention is None:
        slide = sum(nodes) / len(nodes)
    else:
        shares = softmax([linear("attention.2", leaky(linear("attention.0", v)))[0] for v in nodes])
        slide = sum(share * v for share, v in zip(shares, nodes, strict=True))
    normed = (slide - slide.mean()) / np.sqrt(slide.var() + 1e-5)
    return linear("classify", normed * weight["norm.weight"] + weight["norm.bias"]), chosen


@pytest.mark.parametrize("readout", ["attention", "mean"])
@pytest.mark.parametrize("score", ["dot", "sums"])
@pytest.mark.parametrize(("size", "number"), [(13, 5), (4, 5), (1, 3), (6, 1)])
def test_node_by_node(score: str, readout: str, size: int, number: int) -> None:
    model = build(num_neighbours=number, score=score, readout=readout)
    patches = torch.randn(size, 7)
    output = model(bag_of(patches, 2))
    logits, neighbours = by_hand(model, patches.double().numpy(), number, score == "sums")
    assert output.details["neighbours"].tolist() == neighbours
    assert output.logits.tolist() == pytest.approx(logits.tolist(), abs=1e-5)
    assert output.loss.item() == pytest.approx(-np.log(softmax(list(logits))[2]), abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 60), st.integers(0, 99))
def test_neighbours_do_not_depend_on_the_blocks(size: int, number: int, at_once: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    head, tail = torch.randn(2, size, 5, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wikg, "SCORES_AT_ONCE", at_once)
        found = nearest(head, tail, number)
    assert torch.equal(found, (head @ tail.t()).argsort(1, descending=True)[:, : min(number, size)])


@pytest.mark.parametrize("readout", ["attention", "mean"])
@pytest.mark.parametrize("score", ["dot", "sums"])
def test_the_order_of_patches_does_not_matter(score: str, readout: str) -> None:
    model = build(score=score, readout=readout)
    patches, order = torch.randn(30, 7), torch.randperm(30)
    expected, found = model(bag_of(patches, 0)), model(bag_of(patches[order], 0))
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
    if readout == "attention":
        torch.testing.assert_close(found.details["attention"], expected.details["attention"][:, order])


@pytest.mark.parametrize("score", ["dot", "sums"])
@pytest.mark.parametrize("size", [1, 2, 30])
def test_every_parameter_gets_a_finite_gradient(size: int, score: str) -> None:
    """The scores' too: the choice of neighbours passes none, their scores do."""
    model = build(score=score).train()
    model(bag_of(10 * torch.randn(size, 7), 1)).loss.backward()  # so that each LeakyReLU sees both signs
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    if size > 2:
        zero = {name for name, parameter in model.named_parameters() if parameter.grad.norm() < 1e-8}
        assert zero == {"attention.2.bias"}  # shifts all scores alike


@pytest.mark.parametrize("score", ["dot", "sums"])
def test_gradients_are_those_of_finite_differences(score: str) -> None:
    """They pass through the scores of the neighbours, not only through the neighbours."""
    model = build(score=score).double()
    patches = (10 * torch.randn(9, 7, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda patches: model(bag_of(patches, 1)).logits, patches)


def test_dropout_acts_in_training_alone() -> None:
    model, bag = build(dropout=0.5), bag_of(torch.randn(9, 7), -1)
    assert torch.equal(model(bag).logits, model(bag).logits)
    model.train()
    assert not torch.equal(model(bag).logits, model(bag).logits)
    assert model(bag).loss is None
