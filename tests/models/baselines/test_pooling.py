"""Max and mean pooling against their official codes, and on bags that need care."""

from pathlib import Path

import pytest
import torch

from models.baselines.pooling import PatchPooling
from models.losses import build_bag_loss
from tests.support.baseline_case import BaselineCase, bag_of

NAMES = {"head.0": "patch.0", "head.3": "classify"}
CLAM_NAMES = {"fc.0": "patch.0", "classifier": "classify", "classifiers": "classify"}


def build(case: BaselineCase, pooling: str) -> PatchPooling:
    settings = case.settings
    loss = build_bag_loss("ce", case.num_classes)
    return PatchPooling(settings["feature_dim"], case.num_classes, loss, pooling, hidden=settings["hidden_dim"])


@pytest.mark.parametrize(("model_type", "pooling"), [("MaxPooling", "max"), ("MeanPooling", "mean")])
def test_golden(golden_baselines: Path, model_type: str, pooling: str) -> None:
    case = BaselineCase(golden_baselines / model_type, NAMES)
    model, bags = case.load(build(case, pooling)), case.bags()
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.logits", output.logits)
        case.check(f"bag{i}.loss", output.loss)
        case.check(f"bag{i}.patch_logits", output.details["patch_logits"])
    case.check_gradients(model, model(bags[0]).loss)
    case.check_trace(model, bags)


def test_golden_best_patch(golden_baselines: Path) -> None:
    case = BaselineCase(golden_baselines / "MaxPooling", CLAM_NAMES)
    model, bags = case.load(build(case, "best_patch"), "weights_clam_mil.npz"), case.bags()
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.clam_mil.logits", output.logits)
        case.check(f"bag{i}.clam_mil.loss", output.loss)
        case.check(f"bag{i}.clam_mil.patch_probabilities", output.details["patch_logits"].softmax(1))
        case.check(f"bag{i}.clam_mil.prediction", output.logits.argmax())
    case.check_gradients(model, model(bags[0]).loss, "clam_mil.")
    case.check_trace(model, bags, prefix="clam_mil.")


@pytest.mark.parametrize("pooling", ["max", "mean", "best_patch"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_patches_one_by_one(pooling: str, num_classes: int) -> None:
    """A bag's logits from those of its patches as bags of their own."""
    torch.manual_seed(0)
    model = PatchPooling(8, num_classes, build_bag_loss("ce", num_classes), pooling, hidden=6).eval()
    patches = torch.randn(30, 8)
    alone = [model(bag_of(patch.unsqueeze(0), -1)).logits.tolist() for patch in patches]
    logits = model(bag_of(patches, -1)).logits.tolist()
    if pooling == "max":
        assert logits == pytest.approx([max(row[k] for row in alone) for k in range(num_classes)])
    elif pooling == "mean":
        assert logits == pytest.approx([sum(row[k] for row in alone) / 30 for k in range(num_classes)])
    else:
        probabilities = [torch.tensor(row).softmax(0).tolist() for row in alone]
        chosen = max(range(30), key=lambda i: probabilities[i][1] if num_classes == 2 else max(probabilities[i]))
        assert logits == pytest.approx(alone[chosen])
