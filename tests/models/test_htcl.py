"""The text contrastive losses against loops over anchors and texts, and by hand."""

import math

import numpy as np
import pytest
import torch

from models.htcl import HTCL, class_wise, instance_wise, released, share_parent

CLASSES, LOW, SUBTEXTS, WIDTH = 3, 4, 2, 5  # low texts of a class, high texts of a low text


def random_texts(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of many lengths: (12, 5) and (24, 5)."""
    generator = np.random.default_rng(seed)
    numbers = CLASSES * LOW, CLASSES * LOW * SUBTEXTS
    low, high = (generator.normal(size=(number, WIDTH)) * generator.uniform(0.1, 9, (number, 1)) for number in numbers)
    return torch.from_numpy(low), torch.from_numpy(high)


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / math.sqrt((first @ first) * (second @ second)))


def looped(anchors: np.ndarray, low: np.ndarray, positives: list[set[int]]) -> float:
    """The paper's loss: each anchor pulls its positives and pushes the other low texts."""
    terms = []
    for anchor, own in zip(anchors, positives, strict=True):
        pulls = [log_sigmoid(cosine(anchor, text)) for place, text in enumerate(low) if place in own]
        pushes = [log_sigmoid(-cosine(anchor, text)) for place, text in enumerate(low) if place not in own]
        terms.append(-np.mean(pulls) - np.mean(pushes))
    return float(np.mean(terms))


def parents(high: np.ndarray) -> np.ndarray:
    return np.array([high[start : start + SUBTEXTS].mean(0) for start in range(0, len(high), SUBTEXTS)])


@pytest.mark.parametrize("seed", range(3))
def test_the_losses_are_those_of_loops(seed: int) -> None:
    low, high = random_texts(seed)
    by_class = [{LOW * (place // (LOW * SUBTEXTS)) + own for own in range(LOW)} for place in range(len(high))]
    own = [{place // SUBTEXTS} for place in range(len(high))]
    themselves = [{place} for place in range(len(low))]
    x, y = low.numpy(), high.numpy()
    assert class_wise(low, high, CLASSES).item() == pytest.approx(looped(y, x, by_class), rel=1e-12)
    assert instance_wise(low, high, CLASSES).item() == pytest.approx(looped(y, x, own), rel=1e-12)
    assert share_parent(low, high, CLASSES).item() == pytest.approx(looped(parents(y), x, themselves), rel=1e-12)
    pulls = [log_sigmoid(cosine(anchor, text)) for anchor, text in zip(parents(y), x, strict=True)]
    assert released(low, high, CLASSES).item() == pytest.approx(-np.mean(pulls), rel=1e-12)


def test_by_hand() -> None:
    """Two classes of one low text each, at a right angle; the high texts are their low texts, longer: cosines 1 and
    0, of which the sigmoids are e / (1 + e) and a half."""
    low = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = math.log1p(math.exp(-1)) + math.log(2)
    for loss in (class_wise, instance_wise, share_parent):
        assert loss(low, 3 * low, 2).item() == pytest.approx(expected, rel=1e-12)
    assert released(low, 3 * low, 2).item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-12)


def test_the_options_name_their_losses() -> None:
    named = {"class_wise": class_wise, "instance_wise": instance_wise, "share_parent": share_parent, "none": None}
    assert named == HTCL
