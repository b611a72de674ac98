"""Evaluation of a model on slides, with models whose answers are known."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from training.evaluation import Predictions, evaluate
from utils.interface import Bag, Embeddings, ModelOutput, SlideModel

CPU = torch.device("cpu")


def bag(slide_id: str, label: int, has_child: bool = True) -> Bag:
    return Bag(slide_id, torch.zeros(1, 3), torch.zeros(1, 1, 3), torch.tensor([[has_child]]), label)


def nodes(is_hit: bool) -> Embeddings:
    """One parent like text 0 of three; its child like text 0 (a hit) or text 2 (none)."""
    axes = torch.eye(3)
    parent = axes[:1] + 0.1 * axes[1]
    child = axes[0 if is_hit else 2].view(1, 1, 3)
    return Embeddings(parent, child, axes, axes, torch.tensor([0]), torch.tensor([[True]]))


class Scripted(SlideModel):
    """Gives slide number n the n-th logits, loss and nodes, and notes how it was called."""

    def __init__(
        self,
        logits: Sequence[Sequence[float]],
        losses: Sequence[float | None],
        hits: Sequence[bool] | None = None,
    ):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.logits, self.losses, self.hits = logits, losses, hits
        self.filtered = [[0.5, 0.25], [0.0, 0.75], [1.0, 0.5], [0.5, 0.5]]
        self.calls: list[dict[str, bool]] = []

    def forward(self, bag: Bag) -> ModelOutput:
        number = len(self.calls)
        autocast = torch.is_autocast_enabled("cpu")
        self.calls.append({"training": self.training, "grad": torch.is_grad_enabled(), "autocast": autocast})
        loss = self.losses[number]
        return ModelOutput(
            torch.tensor(self.logits[number]) * self.weight,
            None if loss is None else torch.tensor(loss),
            embeddings=None if self.hits is None else nodes(self.hits[number]),
            filtered=None if self.hits is None else torch.tensor(self.filtered[number]),
        )


LOGITS = [[2.0, 0.0, -1.0], [0.0, 0.5, 0.25], [-3.0, 1.0, 4.0], [0.0, 0.0, 0.0]]


def test_probabilities_are_the_softmax_in_double() -> None:
    model = Scripted(LOGITS, [0.5, 1.0, 0.25, 2.25])
    bags = [bag("a", 0), bag("b", 2), bag("c", 2), bag("d", 1)]
    predictions = evaluate(model, bags, CPU)
    expected = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in LOGITS]
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-12)
    assert predictions.probabilities.dtype == np.float64
    assert predictions.slide_ids == ["a", "b", "c", "d"]
    assert predictions.labels.tolist() == [0, 2, 2, 1]
    assert predictions.loss == 1.0
    assert predictions.metrics().acc == 0.5  # a and c


def test_evaluation_neither_trains_nor_keeps_gradients() -> None:
    model = Scripted(LOGITS, [1.0] * 4).train()
    evaluate(model, [bag(name, 0) for name in "abcd"], CPU)
    assert model.calls == [{"training": False, "grad": False, "autocast": False}] * 4


def test_bf16_is_autocast() -> None:
    model = Scripted(LOGITS, [1.0] * 4)
    evaluate(model, [bag(name, 0) for name in "abcd"], CPU, "bf16")
    assert all(call["autocast"] for call in model.calls)
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_logits_become_double_probabilities() -> None:
    class Half(Scripted):
        def forward(self, bag: Bag) -> ModelOutput:
            return ModelOutput(super().forward(bag).logits.bfloat16())

    predictions = evaluate(Half(LOGITS, [None] * 4), [bag(name, 0) for name in "abcd"], CPU, "bf16")
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, rtol=1e-12)


def test_loss_is_the_mean_of_the_slides_that_have_one() -> None:
    model = Scripted(LOGITS, [1.0, None, 4.0, None])
    predictions = evaluate(model, [bag("a", 0), bag("b", -1), bag("c", 2), bag("d", -1)], CPU)
    assert predictions.loss == 2.5
    assert predictions.labels.tolist() == [0, -1, 2, -1]


def test_no_labels_no_loss() -> None:
    predictions = evaluate(Scripted(LOGITS, [None] * 4), [bag(name, -1) for name in "abcd"], CPU)
    assert math.isnan(predictions.loss)
    assert math.isnan(predictions.hit_ratio)  # a model without a graph


def test_hits_are_pooled_over_all_low_patches_and_filtered_shares_averaged_over_slides() -> None:
    """The second slide has no child: no hit, and its patch counts."""
    bags = [bag(name, 0, has_child=name != "b") for name in "abcd"]
    found = evaluate(Scripted(LOGITS, [1.0] * 4, [True, True, False, True]), bags, CPU)
    assert (found.hit_ratio, found.filtered_low, found.filtered_high) == (0.5, 0.5, 0.5)


def test_a_slide_of_many_patches_weighs_more_in_the_hit_ratio() -> None:
    class Two(Scripted):
        def forward(self, bag: Bag) -> ModelOutput:
            output = super().forward(bag)
            assert output.embeddings is not None
            many = output.embeddings.low_image.repeat(len(bag.low_features), 1)
            return replace(output, embeddings=output.embeddings._replace(low_image=many))

    large = replace(bag("a", 0), low_features=torch.zeros(5, 3), child_mask=torch.ones(5, 1, dtype=torch.bool))
    assert evaluate(Two(LOGITS, [1.0] * 2, [True, True]), [large, bag("b", 0)], CPU).hit_ratio == 2 / 6


def test_a_slide_without_children_takes_no_share_away_from_the_others_and_its_patches_count() -> None:
    """It has no pair at the high scale, so that its share there is not defined."""
    model = Scripted(LOGITS, [1.0] * 2, [True, True])
    model.filtered = [[0.5, 0.25], [0.0, math.nan]]
    found = evaluate(model, [bag("a", 0), bag("b", 0, has_child=False)], CPU)
    assert (found.filtered_low, found.filtered_high, found.hit_ratio) == (0.25, 0.25, 0.5)


def test_one_scale_alone_has_no_hit_ratio() -> None:
    model = Scripted(LOGITS, [1.0], [True])
    model.filtered = [[math.nan, 0.5]]
    found = evaluate(model, [bag("a", 0)], CPU)
    assert math.isnan(found.hit_ratio) and math.isnan(found.filtered_low) and found.filtered_high == 0.5


def test_table() -> None:
    predictions = Predictions(
        ["a", "b", "c"],
        np.array([1, -1, 0]),
        np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]]),
        loss=0.0,
        hit_ratio=0.0,
    )
    expected = pd.DataFrame(
        {
            "slide_id": ["a", "b", "c"],
            "label": ["PRCC", "", "CCRCC"],
            "prediction": ["PRCC", "CRCC", "CCRCC"],
            "prob_CCRCC": [0.2, 0.1, 0.4],
            "prob_PRCC": [0.5, 0.2, 0.4],
            "prob_CRCC": [0.3, 0.7, 0.2],
        }
    )
    pd.testing.assert_frame_equal(predictions.table(["CCRCC", "PRCC", "CRCC"]), expected, check_dtype=False)
