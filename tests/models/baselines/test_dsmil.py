"""DSMIL against its official code, a loop-wise twin in numpy, and on bags that need care."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baselines.dsmil import DSMIL, KIND
from models.kind import Inputs
from tests.support.baseline_behaviour import check_any_order, gradient_norms
from tests.support.baseline_case import TRACE_TOLERANCE, BaselineCase, bag_of
from utils.config import Config
from utils.interface import Bag

NAMES = {"i_classifier.fc.0": "classify_patches", "b_classifier.q": "query", "b_classifier.fcc": "classify"}


def two_scale_bag(low: torch.Tensor, high: torch.Tensor, child_mask: torch.Tensor, label: int) -> Bag:
    return Bag("two_scale", low, high, child_mask, label)


def test_golden(golden_baselines: Path) -> None:
    case = BaselineCase(golden_baselines / "DSMIL", NAMES)
    sizes = case.settings
    two_scale = [
        two_scale_bag(*(case.inputs[f"two_scale{i}.{name}"] for name in ("low", "high", "child_mask")), label)
        for i, label in enumerate(case.labels)
    ]
    bags = {"": case.bags(), "two_scale.": two_scale}
    for prefix, file in (("", "weights.npz"), ("two_scale.", "weights_two_scale.npz")):
        model = DSMIL(sizes["feature_dim"], case.num_classes, bool(prefix), sizes["query_dim"])
        case.load(model, file)
        for i, bag in enumerate(bags[prefix]):
            output = model(bag)
            details = {"logits": output.details["bag_logits"], **output.details}
            details["attention"] = details["attention"].t()
            for name in ("logits", "attention", "instance_logits", "max_logits", "critical_index", "bag_embedding"):
                case.check(f"bag{i}.{prefix}{name}", details[name])
            sigmoid = case.outputs[f"bag{i}.{prefix}probabilities_sigmoid"]
            case.check(f"bag{i}.{prefix}probabilities_sigmoid", output.logits.exp())
            torch.testing.assert_close(output.logits.softmax(0), sigmoid / sigmoid.sum())
            case.check(f"bag{i}.{prefix}loss", output.loss)
            for name in ("bag", "max"):
                case.check(f"bag{i}.{prefix}{name}_loss", output.losses[name])
            if prefix:
                case.check(f"bag{i}.{prefix}instance_features", model.patches(bag))
        case.check_gradients(model, model(bags[prefix][0]).loss, prefix)
        steps = case.steps(model, bags[prefix])
        trace = [torch.stack([step.loss, step.losses["bag"], step.losses["max"]]) for step in steps]
        case.check(f"{prefix}trace.total_bag_max", torch.stack(trace), TRACE_TOLERANCE)
        for i, bag in enumerate(bags[prefix]):
            after = model(bag).details["bag_logits"]
            case.check(f"{prefix}trace.after.bag{i}.logits", after, TRACE_TOLERANCE)
    assert case.unchecked() == set()


def build(num_classes: int = 3, two_scale: bool = False, dim: int = 7) -> DSMIL:
    torch.manual_seed(0)
    return DSMIL(dim, num_classes, two_scale, query=5).eval()


def by_hand(model: DSMIL, patches: list[np.ndarray], label: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Bag logits, attention (K, N) and the loss, patch by patch."""
    weight = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return weight[f"{name}.weight"] @ x + weight[f"{name}.bias"]

    def cross_entropies(scores: list[float]) -> list[float]:
        return [np.log1p(np.exp(-s if k == label else s)) for k, s in enumerate(scores)]

    scores = [linear("classify_patches", x) for x in patches]
    queries = [np.tanh(linear("query.2", np.maximum(linear("query.0", x), 0))) for x in patches]
    attention, embeddings, best_scores = [], [], []
    for k in range(len(scores[0])):
        best = max(range(len(patches)), key=lambda i: scores[i][k])
        products = np.array([query @ queries[best] for query in queries]) / len(queries[0]) ** 0.5
        attention.append(np.exp(products) / np.exp(products).sum())
        embeddings.append(sum(a * x for a, x in zip(attention[-1], patches, strict=True)))
        best_scores.append(scores[best][k])
    logits = [
        sum(float(weight["classify.weight"][k][j] @ embeddings[j]) for j in range(len(embeddings))) + bias
        for k, bias in enumerate(weight["classify.bias"])
    ]
    loss = (np.mean(cross_entropies(logits)) + np.mean(cross_entropies(best_scores))) / 2
    return np.array(logits), np.array(attention), loss


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 13])
def test_patch_by_patch(size: int, num_classes: int) -> None:
    model, patches = build(num_classes), torch.randn(size, 7)
    for label in range(num_classes):
        output = model(bag_of(patches, label))
        logits, attention, loss = by_hand(model, list(patches.double().numpy()), label)
        assert output.details["bag_logits"].tolist() == pytest.approx(logits.tolist(), abs=1e-5)
        np.testing.assert_allclose(output.details["attention"], attention, atol=1e-5)
        assert output.loss.item() == pytest.approx(loss, abs=1e-5)
        probabilities = 1 / (1 + np.exp(-logits))
        expected = (probabilities / probabilities.sum()).tolist()
        assert output.logits.softmax(0).tolist() == pytest.approx(expected, abs=1e-5)


def test_two_scales_join_a_child_with_its_parent() -> None:
    """Parents without children give no row, padded children neither; the second parent has none."""
    model = build(two_scale=True)
    low, high = torch.randn(4, 7), torch.randn(4, 3, 7)
    child_mask = torch.tensor([[True, True, False], [False] * 3, [False, True, True], [True] * 3])
    rows = [
        np.concatenate([high[parent, child].numpy(), low[parent].numpy()]).astype(float)
        for parent in range(4) for child in range(3) if child_mask[parent, child]
    ]  # fmt: skip
    high[~child_mask] = float("nan")  # never read
    output = model(two_scale_bag(low, high, child_mask, 2))
    logits, attention, loss = by_hand(model, rows, 2)
    assert output.details["bag_logits"].tolist() == pytest.approx(logits.tolist(), abs=1e-5)
    np.testing.assert_allclose(output.details["attention"], attention, atol=1e-5)
    assert output.loss.item() == pytest.approx(loss, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 99))
def test_the_order_of_patches_does_not_matter(size: int, num_classes: int, seed: int) -> None:
    model = build(num_classes)
    generator = torch.Generator().manual_seed(seed)
    patches, order = torch.randn(size, 7, generator=generator), torch.randperm(size, generator=generator)
    check_any_order(model, patches, order)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_every_parameter_gets_a_finite_gradient(size: int) -> None:
    norms = gradient_norms(build(), bag_of(3 * torch.randn(size, 7), 1))
    if size == 30:
        assert {name for name, norm in norms.items() if norm < 1e-6} == set()


def test_scores_far_off_give_finite_probabilities() -> None:
    model = build()
    with torch.no_grad():
        model.classify.bias.copy_(torch.tensor([-500.0, -502.0, -600.0]))
        model.classify.weight.zero_()
    probabilities = model(bag_of(torch.randn(3, 7), -1)).logits.softmax(0)
    assert probabilities.tolist() == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 0], abs=1e-6)


def test_without_a_label_there_is_no_loss() -> None:
    output = build()(bag_of(torch.randn(1, 7), -1))
    assert output.loss is None and output.losses == {}
    assert output.details["attention"].tolist() == [[1.0]] * 3


@pytest.mark.parametrize(("two_scale", "form", "width"), [(False, "patches", 20), (True, "hierarchy", 40)])
def test_options(two_scale: bool, form: str, width: int) -> None:
    config = Config(two_scale=two_scale)
    assert KIND.form(config) == form
    shapes = {name: tuple(value.shape) for name, value in KIND.build(config, Inputs(3, 20)).named_parameters()}
    assert shapes["query.0.weight"] == (128, width) and shapes["query.2.weight"] == (128, 128)
    assert shapes["classify.weight"] == (3, 3, width)


def test_weights_begin_orthogonal() -> None:
    for name, value in build(3, dim=9).named_parameters():
        rows = value.detach().flatten(1) if name.endswith("weight") else None
        if rows is None:
            assert value.abs().max() == 0, name
        else:
            gram = rows @ rows.t() if len(rows) <= rows.shape[1] else rows.t() @ rows
            torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
