"""The slide as the authors show it, against their notebook's formula on a released checkpoint, and by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explanation.contributions import Explanation, ScaleExplanation
from explanation.explain_model import explain
from explanation.explained_slide import ExplainedSlide, FoldOutcome, Scale
from explanation.figures import contributions_figure
from explanation.published_view import published_view
from tests.support.golden_case import GoldenCase


def explained_by(
    explanation: Explanation, masks: tuple[np.ndarray, np.ndarray], label: int, names: list[str]
) -> ExplainedSlide:
    """A slide whose patches lie at their number."""
    scales = []
    for part, mask, magnification in ((explanation.low, masks[0], 5), (explanation.high, masks[1], 20)):
        coords = np.stack([np.arange(mask.size)] * 2, axis=1).reshape(*mask.shape, 2)
        texts = [f"text {number}" for number in range(len(part.text_logits))]
        scales.append(Scale(magnification, coords, 1, mask, texts, texts, part))
    outcome = FoldOutcome("fold 0", "test", explanation.probabilities, float("nan"))
    return ExplainedSlide("slide", names, label, [outcome], explanation, *scales)


@pytest.mark.parametrize("name", ["visible_2class", "visible_conch"])
def test_contributions_are_those_of_the_released_notebook(
    golden: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It scales each row of final images times texts by its least and greatest value onto [-1, 1], and takes the row
    with the greatest mean over the true class's columns."""
    case = GoldenCase(golden / name, monkeypatch)
    model, num_classes = case.model(), len(case.class_names)
    for bag in case.bags():
        with torch.no_grad():
            nodes = model(bag).embeddings
            found = explain(model, bag)
        masks = np.ones(len(bag.low_features), dtype=bool), bag.child_mask.numpy()
        views = published_view(explained_by(found, masks, bag.label, case.class_names), 3)
        assert nodes is not None
        real = bag.child_mask[nodes.retained]
        for view, images, texts in (
            (views[0], nodes.low_image, nodes.low_text),
            (views[1], nodes.high_image[real], nodes.high_text),
        ):
            similarity = (images @ texts.T).double().numpy()
            least, greatest = similarity.min(1, keepdims=True), similarity.max(1, keepdims=True)
            scaled = 2 * (similarity - least) / (greatest - least) - 1
            columns = np.arange(len(texts)) // (len(texts) // num_classes) == bag.label
            best = scaled[scaled[:, columns].mean(1).argmax()]
            np.testing.assert_allclose(view.contributions, best, rtol=0, atol=5e-7)
            (axes, *_) = contributions_figure(explained_by(found, masks, bag.label, case.class_names), [view]).axes
            assert [bar.get_width() for bar in axes.patches] == pytest.approx(best.tolist(), abs=5e-7)


def by_hand(similarity: list[list[float]], label: int = 0) -> ExplainedSlide:
    """A slide of one scale with two classes of one text each; the other scale has no patch in the graph."""
    values = np.array(similarity)
    part = ScaleExplanation(values, values, values * 0, values * 0, np.zeros(2))
    none = ScaleExplanation(*[np.full((1, 1, 2), np.nan)] * 4, np.zeros(2))
    explanation = Explanation(part, none, np.array([0.0, 1.0]), float("nan"), np.zeros((0, 1, 1)), np.zeros((0, 1, 1)))
    return explained_by(explanation, (np.ones(len(values), dtype=bool), np.ones((1, 1), dtype=bool)), label, ["A", "B"])


SIMILARITY = [[0.9, 0.8], [np.nan, np.nan], [0.5, -0.5], [0.4, 0.3], [-0.5, 0.5]]


def test_the_anchor_is_the_most_similar_patch_and_the_others_stand_by_their_distributions() -> None:
    (view,) = published_view(by_hand(SIMILARITY), 4)
    assert view.anchor == 0  # 0.9 of class A, though patch 2 is told from B more clearly
    assert view.patch == 0  # scaled, patches 0, 2 and 3 are equal: the first
    np.testing.assert_allclose(view.distribution, np.exp([0.9, 0.8]) / np.exp([0.9, 0.8]).sum())
    assert [index for index, _ in view.positives] == [3, 2]  # of three others half, rounded up
    assert [index for index, _ in view.negatives] == [4]
    assert view.positives[0][1] == pytest.approx(0, abs=1e-8)  # the same difference, the same distribution


def test_without_a_label_the_predicted_class_counts() -> None:
    (view,) = published_view(by_hand(SIMILARITY, label=-1), 4)
    assert view.anchor == 0 and view.patch == 4
    assert published_view(replace(by_hand([[np.nan, np.nan]])), 4) == []


def test_a_single_patch_has_no_others() -> None:
    (view,) = published_view(by_hand([[0.1, 0.2]]), 4)
    assert (view.patch, view.anchor, view.positives, view.negatives) == (0, 0, [], [])
