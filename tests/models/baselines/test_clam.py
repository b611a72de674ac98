"""CLAM against its official code, a loop-wise twin in numpy, and on bags that need care."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baselines.clam import CLAM, MULTI_BRANCH, SINGLE_BRANCH
from models.kind import Inputs
from models.losses import build_bag_loss
from tests.support.baseline_behaviour import check_any_order, gradient_norms
from tests.support.baseline_case import BaselineCase, bag_of
from utils.config import Config
from utils.effects import options_without_effect
from utils.interface import ModelOutput

NAMES = {
    "attention_net.0": "embed.0",
    "attention_net.3.attention_a.0": "attention.content.0",
    "attention_net.3.attention_b.0": "attention.gate.0",
    "attention_net.3.attention_c": "attention.score",
    "instance_classifiers": "classify_instances",
}
CLASSIFIERS = {"CLAM_SB": "classify.0", "CLAM_MB": "classify"}
BRANCHES = pytest.mark.parametrize("branch_per_class", [False, True], ids=["SB", "MB"])


def columns(output: ModelOutput) -> list[torch.Tensor]:
    return [output.loss, output.losses["bag"], output.losses["instance"]]


@pytest.mark.parametrize("model_type", ["CLAM_SB", "CLAM_MB"])
def test_golden(golden_baselines: Path, model_type: str) -> None:
    case = BaselineCase(golden_baselines / model_type, NAMES | {"classifiers": CLASSIFIERS[model_type]})
    sizes, bags = case.settings, case.bags()
    for setting in ("ce_plain", "ce_subtyping", "svm_plain", "svm_subtyping"):
        instance_loss, mode = setting.split("_")
        model = CLAM(
            sizes["feature_dim"], case.num_classes, build_bag_loss("ce", case.num_classes),
            build_bag_loss(instance_loss, 2), model_type == "CLAM_MB", sizes["k_sample"], sizes["bag_weight"],
            mode == "subtyping", embedding=sizes["embed_dim"], hidden=sizes["attention_dim"],
        )  # fmt: skip
        case.load(model)
        for i, bag in enumerate(bags):
            output = model(bag)
            case.check(f"bag{i}.logits", output.logits)
            case.check(f"bag{i}.probabilities", output.logits.softmax(0))
            case.check(f"bag{i}.prediction", output.logits.argmax())
            for name in ("attention", "attention_raw", "slide_features"):
                case.check(f"bag{i}.{name}", output.details[name])
            for name in ("instance_targets", "instance_predictions"):
                case.check(f"bag{i}.{setting}.{name}", output.details[name])
            case.check(f"bag{i}.{setting}.instance_loss", output.losses["instance"])
            case.check(f"bag{i}.{setting}.total_loss", output.loss)
            for name in ("ce", "svm"):
                loss = build_bag_loss(name, case.num_classes)(output.logits[None], torch.tensor([bag.label]))
                case.check(f"bag{i}.bag_loss.{name}", loss)
        case.check_gradients(model, model(bags[0]).loss, f"{setting}.")
        case.check_trace(model, bags, "trace.total_bag_instance", columns, f"{setting}.")
    for name, num_classes in (("instance", 2), ("bag", case.num_classes)):
        svm = build_bag_loss("svm", num_classes)
        scores, targets = (case.inputs[f"svm_probe.{name}_{what}"] for what in ("scores", "targets"))
        rows = [svm(row[None], target[None]) for row, target in zip(scores, targets, strict=True)]
        case.check(f"svm_probe.{name}_rows", torch.stack(rows))
        case.check(f"svm_probe.{name}_loss", svm(scores, targets))
    assert case.unchecked() == set()


def build(branch_per_class: bool, num_classes: int = 3, instance_loss: str = "svm", **options) -> CLAM:
    torch.manual_seed(0)
    losses = build_bag_loss("ce", num_classes), build_bag_loss(instance_loss, 2)
    return CLAM(7, num_classes, *losses, branch_per_class, embedding=10, hidden=6, **options).eval()


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum()


def by_hand(model: CLAM, patches: np.ndarray, label: int, k_sample: int, subtyping: bool) -> tuple[np.ndarray, float]:
    """Logits and the instance loss (cross-entropy), patch by patch."""
    weight = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return weight[f"{name}.weight"] @ x + weight[f"{name}.bias"]

    embedded = [np.maximum(linear("embed.0", x), 0) for x in patches]
    contents = [np.tanh(linear("attention.content.0", h)) for h in embedded]
    gates = [1 / (1 + np.exp(-linear("attention.gate.0", h))) for h in embedded]
    raw = [linear("attention.score", content * gate) for content, gate in zip(contents, gates, strict=True)]
    logits = []
    for branch in range(len(raw[0])):
        attention = softmax(np.array([scores[branch] for scores in raw]))
        logits.extend(linear(f"classify.{branch}", sum(a * h for a, h in zip(attention, embedded, strict=True))))
    terms = []
    for index in range(len(logits)):
        branch = index if len(raw[0]) > 1 else 0
        ranked = sorted(range(len(patches)), key=lambda i: -raw[i][branch])
        chosen = [(i, int(index == label)) for i in ranked[:k_sample]]
        chosen += [(i, 0) for i in ranked[-k_sample:]] if index == label else []
        rows = [-np.log(softmax(linear(f"classify_instances.{index}", embedded[i]))[target]) for i, target in chosen]
        if index == label or subtyping:
            terms.append(sum(rows) / len(rows))
    return np.array(logits), sum(terms) / len(terms)


@BRANCHES
@pytest.mark.parametrize("subtyping", [True, False])
@pytest.mark.parametrize(("size", "k_sample"), [(13, 3), (5, 4), (3, 8), (1, 8)])
def test_patch_by_patch(branch_per_class: bool, subtyping: bool, size: int, k_sample: int) -> None:
    """With 5 patches the highest and lowest overlap, with 3 and 1 they are all there are."""
    model = build(branch_per_class, instance_loss="ce", k_sample=k_sample, subtyping=subtyping, bag_weight=0.25)
    patches = torch.randn(size, 7)
    for label in range(3):
        output = model(bag_of(patches, label))
        logits, instance = by_hand(model, patches.double().numpy(), label, k_sample, subtyping)
        assert output.logits.tolist() == pytest.approx(logits.tolist(), abs=1e-5)
        assert output.losses["instance"].item() == pytest.approx(instance, abs=1e-5)
        bag_loss = -np.log(softmax(logits)[label])
        assert output.losses["bag"].item() == pytest.approx(bag_loss, abs=1e-5)
        assert output.loss.item() == pytest.approx(0.25 * bag_loss + 0.75 * instance, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.booleans(), st.integers(1, 40), st.integers(2, 4), st.integers(0, 99))
def test_the_order_of_patches_does_not_matter(branch_per_class: bool, size: int, num_classes: int, seed: int) -> None:
    model = build(branch_per_class, num_classes)
    generator = torch.Generator().manual_seed(seed)
    patches, order = torch.randn(size, 7, generator=generator), torch.randperm(size, generator=generator)
    check_any_order(model, patches, order)


def test_weights_that_round_to_zero_are_still_ranked() -> None:
    """Scores far apart leave most patches a weight of 0: the lowest is nevertheless that of the lowest score."""
    model = build(False, 2, "ce", k_sample=1, subtyping=False)
    with torch.no_grad():
        model.attention.score.weight *= 1e4
    patches = torch.randn(30, 7)
    output = model(bag_of(patches, 0))
    raw = output.details["attention_raw"][0]
    assert (output.details["attention"] == 0).sum() > 20
    chosen = model.embed(patches[[int(raw.argmax()), int(raw.argmin())]])
    expected = torch.nn.functional.cross_entropy(model.classify_instances[0](chosen), torch.tensor([1, 0]))
    torch.testing.assert_close(output.losses["instance"], expected)


@BRANCHES
@pytest.mark.parametrize("size", [1, 2, 30])
def test_every_parameter_gets_a_finite_gradient(branch_per_class: bool, size: int) -> None:
    norms = gradient_norms(build(branch_per_class), bag_of(3 * torch.randn(size, 7), 1))
    if size == 30:
        zero = {name for name, norm in norms.items() if norm < 1e-6}
        assert zero <= {"attention.score.bias"}  # it shifts all patches' scores alike


@BRANCHES
def test_without_a_label_there_is_no_loss(branch_per_class: bool) -> None:
    output = build(branch_per_class)(bag_of(torch.randn(1, 7), -1))
    assert output.loss is None and output.losses == {}
    assert output.details["attention"].unique().tolist() == [1.0]


def test_options() -> None:
    model = SINGLE_BRANCH.build(Config(), Inputs(3, 512))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["embed.0.weight"] == (512, 512) and shapes["attention.content.0.weight"] == (256, 512)
    assert shapes["classify.0.weight"] == (3, 512)
    assert (model.k_sample, model.bag_weight, model.subtyping) == (8, 0.7, True)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.0] * 3

    config = Config(drop_out=True, no_subtyping=True, k_sample=3, bag_weight=0.5, inst_loss="ce", bag_loss="svm")
    model = MULTI_BRANCH.build(config, Inputs(3, 20))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["embed.0.weight"] == (512, 20) and shapes["attention.score.weight"] == (3, 256)
    assert shapes["classify.2.weight"] == (1, 512)
    assert (model.k_sample, model.bag_weight, model.subtyping) == (3, 0.5, False)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.25] * 3
    logits, labels = torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([0])
    assert model.bag_loss(logits, labels) == build_bag_loss("svm", 3)(logits, labels)
    assert model.instance_loss(logits, labels) == build_bag_loss("ce", 2)(logits, labels)


@pytest.mark.parametrize(("bag_weight", "off"), [(1.0, {"k_sample", "inst_loss", "no_subtyping"}), (0.7, set())])
def test_without_the_instance_loss_its_options_have_no_effect(bag_weight: float, off: set[str]) -> None:
    without_effect = options_without_effect(Config(model_type="CLAM_MB", bag_weight=bag_weight))
    assert without_effect & {"k_sample", "inst_loss", "no_subtyping"} == off
