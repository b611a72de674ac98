"""FOCUS against its official code, against a second implementation in loops, and on bags that need care."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.baselines.focus import FOCUS, distinct, most_relevant, not_redundant
from models.build import build_model
from models.losses import build_bag_loss
from models.prompts import PromptLearner
from tests.support.baseline_case import bag_of
from tests.support.random_towers import random_tower
from tests.support.text_case import TextCase
from utils.config import Config

NAMES = {
    "feature_encoder.0": "embed.0",
    "feature_encoder.1": "embed.1",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "out",
    "classifier": "classify",
}


STAGE = re.compile(r"stage\.window(\d+)\.not_redundant")


class FixedTexts(nn.Module):
    """Text features in place of prompts."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features
        self.tower = nn.Identity()
        self.tower.output_dim = features.shape[1]

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.features[:0], self.features


def golden_model(case: TextCase) -> FOCUS:
    settings = case.settings
    model = FOCUS(
        FixedTexts(case.outputs["text_features"]), settings["feature_dim"], case.num_classes,
        build_bag_loss("ce", case.num_classes), num_heads=settings["heads"], window=settings["window_size"],
        similarity=settings["similarity_threshold"], max_patches=settings["max_tokens"],
    )  # fmt: skip
    return case.load(model)


def golden_case(folder: Path) -> TextCase:
    return TextCase(folder / "FOCUS", NAMES, unused=("prompt_learner.ctx",))


def test_golden(golden_baselines: Path) -> None:
    case = golden_case(golden_baselines)
    model, bags = golden_model(case), case.bags()
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.logits", output.logits)
        case.check(f"bag{i}.probabilities", output.logits.softmax(0))
        case.check(f"bag{i}.loss", output.loss)
        for name in ("embedded", "relevance", "selected", "compressed", "attended", "slide_features"):
            case.check(f"bag{i}.{name}", output.details[name])
        case.check(f"bag{i}.not_redundant", output.details["not_redundant"].nonzero().squeeze(1))
    case.check_gradients(model, model(bags[0]).loss, "fixed_text.")
    case.check_trace(model, bags, prefix="fixed_text.")


def test_golden_stages(golden_baselines: Path) -> None:
    case = golden_case(golden_baselines)
    settings, features = case.settings, case.inputs["stage.features"]
    windows = [int(found[1]) for name in case.outputs if (found := STAGE.fullmatch(name))]
    assert settings["stage_window"] in windows
    for window in windows:
        case.check(f"stage.window{window}.not_redundant", not_redundant(features, window).nonzero().squeeze(1))
    keep = not_redundant(features, settings["stage_window"])
    relevance = (features @ case.outputs["text_features"].t()).mean(1) * keep
    selected = most_relevant(relevance, settings["stage_max_tokens"])
    case.check("stage.selected", selected)
    patches = features[selected]
    case.check("stage.compressed", patches[distinct(patches, settings["similarity_threshold"])])


# ---- second implementations, window by window and head by head -------------------------------------------------------


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a.double() @ b.double()) / (a.double().norm() * b.double().norm()))


def keep_in_windows(patches: Tensor, window: int) -> list[bool]:
    keep: list[bool] = []
    for start in range(0, len(patches), window):
        part = patches[start : start + window]
        similarity = np.array([[cosine(a, b) for b in part] for a in part])
        kept = similarity.mean(1) <= similarity.mean() + similarity.std() + 1e-7
        if not kept.any():
            kept[0] = True
        keep += kept.tolist()
    return keep


def bags_of_neighbours(num_patches: int, seed: int) -> Tensor:
    """Patches among which neighbours resemble each other, more or less."""
    torch.manual_seed(seed)
    steps = torch.randn(num_patches, 6) * torch.rand(num_patches, 1)
    return steps.cumsum(0) + 0.3 * torch.randn(num_patches, 6)


@pytest.mark.parametrize("window", [1, 2, 5, 8, 32])
@pytest.mark.parametrize("num_patches", [1, 2, 7, 8, 33, 70])
def test_redundancy_window_by_window(num_patches: int, window: int) -> None:
    patches = bags_of_neighbours(num_patches, num_patches + window)
    patches[::9] = patches[::9].mean(0)  # resemble many others
    assert not_redundant(patches, window).tolist() == keep_in_windows(patches, window)


def patches_with_redundant_ones() -> Tensor:
    """(44, 200): numbers 3 and 40 are what all have in common."""
    torch.manual_seed(0)
    common = torch.randn(200)
    patches = common + torch.randn(44, 200)
    patches[3] = patches[40] = common
    return patches


def test_a_patch_that_resembles_its_whole_window_is_redundant() -> None:
    """In a whole window of 32 and in the last one of 12."""
    patches = patches_with_redundant_ones()
    keep = not_redundant(patches, 32)
    assert (~keep).nonzero().flatten().tolist() == [3, 40]
    assert keep.tolist() == keep_in_windows(patches, 32)


@torch.no_grad()
def test_redundant_patches_have_no_relevance() -> None:
    patches = patches_with_redundant_ones()
    text = torch.randn(2, 200)
    model = FOCUS(FixedTexts(text), 200, 2, build_bag_loss("ce", 2), window=32, max_patches=20)
    model.embed = nn.Identity()
    output = model(bag_of(patches, 0))
    expected = (patches @ text.t()).mean(1)
    expected[[3, 40]] = 0
    assert torch.allclose(output.details["relevance"], expected, atol=1e-4)
    best = sorted(range(44), key=lambda i: -float(expected[i]))[:20]
    assert output.details["selected"].tolist() == sorted(best)


def test_a_window_of_redundant_patches_keeps_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rounding can make all patches of a window redundant: here the bound is put below every mean."""
    monkeypatch.setattr(Tensor, "sqrt", lambda values: values - 9.0)
    assert not_redundant(torch.randn(7, 4), 3).tolist() == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("num_patches", [1, 2, 8, 9, 40])
def test_compression_chunk_by_chunk(num_patches: int) -> None:
    patches = bags_of_neighbours(num_patches, num_patches)
    expected = [i % 8 == 0 or cosine(patches[i], patches[i - 1]) < 0.8 for i in range(num_patches)]
    assert distinct(patches, 0.8).tolist() == expected


def test_the_most_relevant_in_slide_order() -> None:
    relevance = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1])
    assert most_relevant(relevance, 3).tolist() == [0, 3, 4]
    assert most_relevant(relevance, 9).tolist() == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_head_by_head() -> None:
    """Three classes: steps 2 to 4 from the embedded patches, in loops; chunks of 8, whatever the window."""
    torch.manual_seed(0)
    text = torch.randn(3, 12)
    model = FOCUS(FixedTexts(text), 5, 3, build_bag_loss("ce", 3), num_heads=4, window=4, max_patches=17).eval()
    output = model(bag_of(torch.randn(29, 5), 1))
    patches = output.details["embedded"]
    keep = keep_in_windows(patches, 4)
    relevance = [float((patches[i] @ text.t()).mean()) * keep[i] for i in range(29)]
    chosen = sorted(sorted(range(29), key=lambda i: -relevance[i])[:17])
    left = [i for n, i in enumerate(chosen) if n % 8 == 0 or cosine(patches[i], patches[chosen[n - 1]]) < 0.8]
    assert output.details["kept"].tolist() == left
    query, key, value = (layer(x) for layer, x in ((model.query, text), (model.key, patches), (model.value, patches)))
    attended = torch.zeros(3, 12)
    attention = torch.zeros(3, 29)
    for k in range(3):
        for head in range(4):
            part = slice(3 * head, 3 * head + 3)
            scores = [float(query[k, part] @ key[i, part]) / math.sqrt(3) for i in left]
            total = sum(map(math.exp, scores))
            for i, score in zip(left, scores, strict=True):
                attended[k, part] += math.exp(score) / total * value[i, part]
                attention[k, i] += math.exp(score) / total / 4
    assert torch.allclose(output.details["attention"], attention, atol=1e-5)
    expected = model.classify(model.out(attended).mean(0))
    assert torch.allclose(output.logits, expected, atol=1e-5)


def test_the_patches_take_the_texts_width() -> None:
    model = FOCUS(FixedTexts(torch.randn(2, 24)), 10, 2, build_bag_loss("ce", 2))
    output = model(bag_of(torch.randn(3, 10), 0))
    assert output.details["embedded"].shape == (3, 24)


def test_texts_are_read_through_the_tower() -> None:
    """The high prompts, by the project's encoding; the low ones have no part in it."""
    tower, config = random_tower("clip"), Config(model_type="FOCUS", num_context_tokens=4)
    high, bag = ["dark round nests", "pale cells"], bag_of(torch.randn(9, 16), 0)
    outputs = []
    for low in (["one", "two"], ["three", "four"]):
        torch.manual_seed(0)
        outputs.append(build_model(config, tower, low, high, 2).eval()(bag))
    torch.manual_seed(0)
    expected = PromptLearner(tower, high, [], 2, 4)()[0]
    for output in outputs:
        assert torch.allclose(output.details["text_features"], expected, atol=1e-6)
        assert torch.equal(output.logits, outputs[0].logits)
