"""The training loop, with a model whose loss, gradient and validation accuracy are known."""

import math
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from tests.support.scripted_training import NUM_VAL, Scripted, files_fixture, make_bags, model_slide, train  # noqa: F401
from training.loop import FoldFiles, build_optimizer, train_epoch
from utils.config import Config
from utils.errors import UserError

# -------------------------------------------------------------------------------------------------- optimiser


def one_step(**options: Any) -> Tensor:
    """The weight after a gradient of (3, 0)."""
    model = Scripted()
    optimizer = build_optimizer(model, Config(**options))
    for _ in range(2):
        model.weight.grad = torch.tensor([3.0, 0.0])
        optimizer.step()
    assert model.frozen.item() == 5.0
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(model.weight)]
    return model.weight.detach()


def test_adam_is_the_default() -> None:
    optimizer = build_optimizer(Scripted(), Config(lr=0.1, reg=0.01))
    assert type(optimizer) is Adam
    assert optimizer.defaults["lr"] == 0.1
    assert optimizer.defaults["weight_decay"] == 0.01
    # two steps of length lr each against the gradient's sign, whatever its size; the decay pulls the other weight
    torch.testing.assert_close(one_step(lr=0.1, reg=0.01), torch.tensor([0.8, 1.8]), atol=1e-3, rtol=0)
    torch.testing.assert_close(one_step(lr=0.1, reg=0.0), torch.tensor([0.8, 2.0]), atol=1e-3, rtol=0)


def test_sgd_with_momentum_and_decay() -> None:
    assert type(build_optimizer(Scripted(), Config(opt="sgd"))) is SGD
    # w1 = w - lr (g + reg w); velocity 0.9
    expected = []
    for weight, gradient in ((1.0, 3.0), (2.0, 0.0)):
        velocity = 0.0
        for _ in range(2):
            velocity = 0.9 * velocity + gradient + 0.01 * weight
            weight -= 0.1 * velocity
        expected.append(weight)
    torch.testing.assert_close(one_step(opt="sgd", lr=0.1, reg=0.01), torch.tensor(expected))


# ------------------------------------------------------------------------------------------------- one epoch


def test_an_epochs_means() -> None:
    """One step a slide: each loss is taken at the weight that the step before left."""
    model, twin = Scripted(), Scripted()
    config = Config(opt="sgd", lr=1e-3)
    torch.manual_seed(0)
    means = train_epoch(model, make_bags(5), build_optimizer(model, config), config)
    torch.manual_seed(0)
    optimizer = SGD([twin.weight], lr=1e-3, momentum=0.9, weight_decay=1e-5)
    twin.train()
    rows = []
    for bag in make_bags(5):
        output = twin(bag)
        assert output.loss is not None
        rows.append((output.loss.item(), output.losses["bag"].item(), output.losses["htcl"].item()))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    expected = [sum(column) / 5 for column in zip(*rows, strict=True)]
    assert list(means) == ["loss", "bag_loss", "htcl_loss", "acc"]
    assert list(means.values()) == pytest.approx([*expected, 2 / 5], rel=1e-6)  # class 1 is always predicted
    torch.testing.assert_close(model.weight, twin.weight)


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(files: FoldFiles, factor: float) -> None:
    """Epoch 2, second step: the weights are not touched by it, and what the first epoch left stays."""
    model = Scripted(fail_at=(8, factor))
    with pytest.raises(UserError) as caught:
        train(model, files)
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("loss.not_finite", "fold 0 epoch 2/4")
    assert f"{model_slide(8)} is " in fault.found and "--lr" in fault.mend
    assert torch.isfinite(model.weight).all()
    assert len(pd.read_csv(files.history)) == 1
    best = torch.load(files.state, weights_only=True)["progress"]["best_weights"]
    assert torch.equal(best["weight"], model.weights[0])
    assert not files.checkpoint.exists()  # it is that of a finished training


# ---------------------------------------------------------------------------------------------- early stopping


@pytest.mark.parametrize(
    ("accuracies", "best_epoch", "epochs"),
    [
        ([2] * 30, 0, 11),  # a tie is no improvement
        ([1, 3] + [3] * 28, 1, 12),
        ([1, 2] + [0] * 9 + [3] + [1] * 18, 11, 22),  # better in the tenth epoch of waiting
        ([1, 2] + [0] * 10 + [3] + [1] * 17, 1, 12),  # better one epoch too late
        ([0] * 30, 0, 11),
        ([0] * 25 + [1, 2, 3, 4, 4], 0, 11),
    ],
)
def test_early_stopping(files: FoldFiles, accuracies: list[int], best_epoch: int, epochs: int) -> None:
    model = Scripted(accuracies)
    progress = train(model, files, max_epochs=30, early_stopping=True)
    assert (progress.best_epoch, progress.epochs) == (best_epoch, epochs)
    assert progress.best_error == 1 - accuracies[best_epoch] / NUM_VAL
    assert torch.equal(model.weight, model.weights[best_epoch])
    assert not torch.equal(model.weight, model.weights[epochs - 1])
    saved = torch.load(files.checkpoint, weights_only=True)
    assert set(saved) == {"weight"}
    assert torch.equal(saved["weight"], model.weights[best_epoch])


def test_without_early_stopping_all_epochs_run_and_the_last_one_stays(files: FoldFiles) -> None:
    accuracies = [2, 3, 1] + [0] * 17
    model = Scripted(accuracies)
    progress = train(model, files, max_epochs=20)
    assert (progress.best_epoch, progress.epochs) == (1, 20)
    assert torch.equal(model.weight, model.weights[19])
    assert torch.equal(torch.load(files.checkpoint, weights_only=True)["weight"], model.weights[19])
    assert pd.read_csv(files.history)["val_acc"].tolist() == [number / NUM_VAL for number in accuracies]


def test_testing_runs_two_epochs(files: FoldFiles) -> None:
    assert train(Scripted(), files, max_epochs=9, testing=True).epochs == 2
    assert train(Scripted(), files, max_epochs=1, testing=True).epochs == 1


# ----------------------------------------------------------------------------------------------------- history


def test_history(files: FoldFiles) -> None:
    model = Scripted([1, 2, 4, 3])
    progress = train(model, files)
    history = pd.read_csv(files.history)
    assert list(history) == [
        *("epoch", "train_loss", "train_bag_loss", "train_htcl_loss", "train_acc"),
        *("val_loss", "val_auc", "val_f1", "val_acc", "val_hit_ratio"),
    ]
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["val_acc"].tolist() == [0.25, 0.5, 1.0, 0.75]
    assert history["val_loss"].tolist() == pytest.approx([weight.sum().item() for weight in model.weights])
    expected = history["train_bag_loss"] + 0.5 * history["train_htcl_loss"]
    assert history["train_loss"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert (history["train_acc"] == 0.5).all()  # class 1 is always predicted
    assert history["val_hit_ratio"].isna().all()  # a model without a graph
    assert [row["train_loss"] for row in progress.history] == history["train_loss"].tolist()


def test_every_epoch_trains_every_slide_in_the_samplers_order(files: FoldFiles) -> None:
    model = Scripted()
    train(model, files)
    assert model.order == [model_slide(step) for step in range(1, 25)]
