"""ABMIL against MIL-Lab's code, and against torchmil."""

from pathlib import Path

import pytest
import torch

from benchmarks.mil_data import TorchmilABMIL
from models.baselines.abmil import ABMIL
from models.losses import build_bag_loss
from tests.support.baseline_case import BaselineCase, bag_of

NAMES = {
    "patch_embed.0": "embed.0",
    "global_attn.attention_a.0": "attention.content.0",
    "global_attn.attention_b.0": "attention.gate.0",
    "global_attn.attention_c": "attention.score",
    "classifier": "classify",
}


def test_golden(golden_baselines: Path) -> None:
    case = BaselineCase(golden_baselines / "ABMIL", NAMES)
    settings = case.settings
    loss = build_bag_loss("ce", case.num_classes)
    model = ABMIL(
        settings["feature_dim"], case.num_classes, loss, embedding=settings["embed_dim"],
        hidden=settings["attention_dim"],
    )  # fmt: skip
    bags = case.bags()
    case.load(model)
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.logits", output.logits)
        case.check(f"bag{i}.loss", output.loss)
        for name in ("attention", "attention_raw"):
            case.check(f"bag{i}.{name}", output.details[name].squeeze(0))
        case.check(f"bag{i}.slide_features", output.details["slide_features"])
    case.check_gradients(model, model(bags[0]).loss)
    case.check_trace(model, bags)


@pytest.mark.parametrize("size", [1, 2, 17])
def test_torchmil(size: int) -> None:
    """The gated ABMIL of torchmil, whose one logit is the difference of our two."""
    torch.manual_seed(0)
    embedding, hidden, dim = 12, 9, 7
    ours = ABMIL(dim, 2, build_bag_loss("ce", 2), embedding=embedding, hidden=hidden).eval()
    theirs = TorchmilABMIL(dim, embedding, hidden)
    names = {
        "feat_ext.0": ours.embed[0],
        "pool.fc1.module": ours.attention.content[0],
        "pool.fc_gated.module": ours.attention.gate[0],
        "pool.fc2": ours.attention.score,
    }
    with torch.no_grad():
        for name, layer in names.items():
            for parameter, value in theirs.model.get_submodule(name).named_parameters():
                layer.get_parameter(parameter).copy_(value)
        for parameter, value in theirs.model.classifier.module.named_parameters():
            ours.classify.get_parameter(parameter).copy_(torch.cat([-value, value]) / 2)
    for label in (0, 1, -1):
        bag = bag_of(torch.randn(size, dim), label)
        found, expected = ours(bag), theirs(bag)
        torch.testing.assert_close(found.logits.softmax(0), expected.logits.softmax(0))
        for name in ("attention", "attention_raw"):
            torch.testing.assert_close(found.details[name], expected.details[name])
        if label < 0:
            assert found.loss is expected.loss is None
            continue
        torch.testing.assert_close(found.loss, expected.loss)
        theirs_own = torch.nn.BCEWithLogitsLoss()(theirs.model(bag.patches[None]), torch.tensor([float(label)]))
        torch.testing.assert_close(found.loss, theirs_own)
        ours.zero_grad()
        theirs.zero_grad()
        found.loss.backward()
        expected.loss.backward()
        for name, layer in names.items():
            for parameter, value in theirs.model.get_submodule(name).named_parameters():
                torch.testing.assert_close(layer.get_parameter(parameter).grad, value.grad)
