"""Bag losses against torch, numpy, naive loops and the official code's values."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import build_bag_loss, focal_loss, smooth_top1_svm

HARD_LEAD = math.log(1000)


def random_rows(seed: int, num_classes: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(7, num_classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(num_classes, (7,), generator=generator)


@pytest.fixture
def without_topk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the smooth-topk package is not installed."""
    monkeypatch.setitem(sys.modules, "topk", None)
    monkeypatch.setitem(sys.modules, "topk.svm", None)


def test_ce_is_torchs() -> None:
    logits, labels = random_rows(0, 4)
    expected = -torch.log_softmax(logits, 1)[range(7), labels].mean()
    torch.testing.assert_close(build_bag_loss("ce", 4)(logits, labels), expected)
    torch.testing.assert_close(build_bag_loss("ce", 4)(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_focal_by_its_formula(num_classes: int) -> None:
    logits, labels = random_rows(1, num_classes)
    terms = []
    for scores, label in zip(logits.numpy(), labels.numpy(), strict=True):
        probability = np.exp(scores[label]) / np.exp(scores).sum()
        terms.append(-((1 - probability) ** 2) * np.log(probability))
    assert build_bag_loss("focal", num_classes)(logits, labels).item() == pytest.approx(np.mean(terms), rel=1e-12)


def test_focal_by_hand() -> None:
    """Equal scores of two classes: 0.5^2 * log 2."""
    loss = focal_loss(torch.zeros(1, 2), torch.tensor([1]))
    assert loss.item() == pytest.approx(0.25 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("name", ["ce", "focal", "svm"])
def test_extreme_scores_stay_finite(name: str, without_topk: None) -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    loss = build_bag_loss(name, 2)(logits, torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()
    assert 190 < loss.item() < 205  # the second row is wrong by 400, the first is right: the mean of 400 and 0


def naive_svm(logits: Tensor, labels: Tensor) -> float:
    """log sum_j exp(s_j + [j != t]) - s_t, or max_j(s_j + [j != t]) - s_t where the best leads by log(1000)."""
    terms = []
    for scores, label in zip(logits.tolist(), labels.tolist(), strict=True):
        with_margin = [score + (j != label) for j, score in enumerate(scores)]
        best, second = sorted(scores, reverse=True)[:2]
        if best - second >= HARD_LEAD:
            terms.append(max(with_margin) - scores[label])
        else:
            terms.append(math.log(sum(math.exp(score) for score in with_margin)) - scores[label])
    return sum(terms) / len(terms)


@pytest.mark.parametrize("spread", [0.5, 5.0])  # with 5 about a third of the rows of two classes are hard
@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_svm_equals_a_naive_loop(seed: int, num_classes: int, spread: float) -> None:
    logits, labels = random_rows(seed, num_classes, spread)
    assert smooth_top1_svm(logits, labels).item() == pytest.approx(naive_svm(logits, labels), rel=1e-9)


def test_svm_turns_hard_at_a_lead_of_log_1000() -> None:
    label = torch.tensor([0])
    lead = torch.tensor(HARD_LEAD, dtype=torch.float32)
    below = torch.nextafter(lead, torch.tensor(0.0))
    assert smooth_top1_svm(torch.stack([lead, lead * 0]).unsqueeze(0), label).item() == 0.0
    smooth = smooth_top1_svm(torch.stack([below, lead * 0]).unsqueeze(0), label).item()
    assert smooth == pytest.approx(math.log1p(math.e / 1000), rel=1e-3)


def test_svm_switches_on_the_scores_without_margin_and_whoever_leads() -> None:
    # the wrong class leads by 6.5: with its margin by 7.5, but the switch looks at the scores
    logits = torch.tensor([[0.0, 6.5]], dtype=torch.float64)
    assert smooth_top1_svm(logits, torch.tensor([0])).item() == pytest.approx(math.log(1 + math.exp(7.5)), rel=1e-9)
    # the wrong class leads by 8: hard
    assert smooth_top1_svm(torch.tensor([[0.0, 8.0]]), torch.tensor([0])).item() == 9.0


@pytest.mark.parametrize("kind", ["instance", "bag"])
def test_svm_equals_the_official_code(golden: Path, kind: str) -> None:
    folder = golden / "baselines" / "CLAM_SB"
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    scores = torch.from_numpy(inputs[f"svm_probe.{kind}_scores"])
    targets = torch.from_numpy(inputs[f"svm_probe.{kind}_targets"])
    leads = (scores[:, 0] - scores[:, 1]).abs()
    assert (leads >= HARD_LEAD).any() and (leads < HARD_LEAD).any()  # the case shows both sides of the switch
    rows = [smooth_top1_svm(scores[i : i + 1], targets[i : i + 1]).item() for i in range(len(scores))]
    np.testing.assert_allclose(rows, outputs[f"svm_probe.{kind}_rows"], rtol=1e-5, atol=1e-6)
    loss = smooth_top1_svm(scores, targets).item()
    assert loss == pytest.approx(float(outputs[f"svm_probe.{kind}_loss"]), rel=1e-6)


@pytest.mark.parametrize("loss", [focal_loss, smooth_top1_svm])
def test_gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Rows of both branches of the SVM, right and wrong, away from its switch."""
    logits = torch.tensor(
        [[0.3, -0.2, 0.9], [2.0, 0.1, -1.0], [9.5, 0.5, 0.2], [-1.0, 9.0, 0.0]], dtype=torch.float64, requires_grad=True
    )
    labels = torch.tensor([1, 0, 0, 2])
    assert torch.autograd.gradcheck(lambda scores: loss(scores, labels), (logits,))


def test_svm_is_ours_without_the_package(without_topk: None) -> None:
    logits, labels = random_rows(3, 3)
    assert build_bag_loss("svm", 3)(logits, labels).item() == pytest.approx(naive_svm(logits, labels), rel=1e-9)


def test_svm_is_the_packages_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class SmoothTop1SVM:
        def __init__(self, **settings: Any):
            made.append(settings)

        def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
            return torch.tensor(42.0)

    package, module = ModuleType("topk"), ModuleType("topk.svm")
    module.SmoothTop1SVM = SmoothTop1SVM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "topk", package)
    monkeypatch.setitem(sys.modules, "topk.svm", module)
    loss = build_bag_loss("svm", 3)
    assert made == [{"n_classes": 3, "alpha": 1.0, "tau": 1.0}]
    assert loss(*random_rows(0, 3)).item() == 42.0


def test_the_packages_loss_moves_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package keeps its class indices in a buffer and in functions made from it, which it makes anew in .cuda()
    alone; a model is moved with .to(device)."""

    class SmoothTop1SVM(torch.nn.Module):
        labels: Tensor

        def __init__(self, n_classes: int, alpha: float, tau: float):
            super().__init__()
            self.register_buffer("labels", torch.arange(n_classes))
            self.get_losses()

        def get_losses(self) -> None:
            labels = self.labels
            self.delta = lambda targets: targets.unsqueeze(1) != labels

        def cuda(self, device: Any = None) -> "SmoothTop1SVM":
            super().cuda(device)
            self.get_losses()
            return self

        def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
            return (logits + self.delta(targets)).logsumexp(1).mean()

    module = ModuleType("topk.svm")
    module.SmoothTop1SVM = SmoothTop1SVM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "topk", ModuleType("topk"))
    monkeypatch.setitem(sys.modules, "topk.svm", module)
    model = torch.nn.Module()
    model.bag_loss = build_bag_loss("svm", 3)
    model.to("meta")  # a device that every machine has
    logits, labels = random_rows(0, 3)
    assert model.bag_loss(logits.to("meta"), labels.to("meta")).device.type == "meta"


def test_other_losses_do_not_touch_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"topk.{name} was asked for")

    monkeypatch.setitem(sys.modules, "topk", Refuses("topk"))
    monkeypatch.setitem(sys.modules, "topk.svm", Refuses("topk.svm"))
    logits, labels = random_rows(0, 3)
    assert build_bag_loss("ce", 3)(logits, labels) != build_bag_loss("focal", 3)(logits, labels)
