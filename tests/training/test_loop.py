"""The training loop, with a model whose loss, gradient and validation accuracy are known."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from training.loop import EpochSampler, FoldFiles, Progress, build_optimizer, fit, train_epoch
from utils.config import Config
from utils.errors import UserError
from utils.interface import Bag, ModelOutput, SlideModel

NUM_VAL = 4


def make_bags(number: int) -> list[Bag]:
    """Slides of alternating class whose features are their number."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    return [
        Bag(f"slide-{i}", torch.full((1, 3), float(i)), torch.ones(1, 2, 3), mask, label=i % 2) for i in range(number)
    ]


class Scripted(SlideModel):
    """Its weight follows the slides and a random number; its validation accuracy follows a script, an epoch at a time.

    accuracies: after each epoch, how many of the NUM_VAL validation slides it gets right.
    """

    def __init__(self, accuracies: list[int] | None = None, fail_at: tuple[int, Any] | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        self.frozen = torch.nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.accuracies = accuracies
        self.fail_at = fail_at  # (training step, the loss there or the exception to raise)
        self.epoch = -1
        self.steps = 0
        self.seen = 0  # validation slides in this epoch
        self.order: list[str] = []
        self.weights: list[Tensor] = []  # at the end of each epoch

    def train(self, mode: bool = True) -> "Scripted":
        super().train(mode)
        if mode:
            self.epoch += 1
        else:
            self.seen = 0
            self.weights.append(self.weight.detach().clone())
        return self

    def forward(self, bag: Bag) -> ModelOutput:
        if not self.training:
            return self._validate(bag)
        self.steps += 1
        self.order.append(bag.slide_id)
        noise = torch.rand(())
        bag_loss = (self.weight * (bag.low_features.mean() - 1 + noise)).square().sum()
        text_loss = self.weight.sum() ** 2
        loss = bag_loss + 0.5 * text_loss
        if self.fail_at and self.steps == self.fail_at[0]:
            if isinstance(self.fail_at[1], BaseException):
                raise self.fail_at[1]
            loss = loss * self.fail_at[1]
        logits = torch.tensor([0.0, 1.0]) if bag.label == 1 else torch.tensor([0.0, 0.5])
        return ModelOutput(logits, loss, {"bag": bag_loss, "htcl": text_loss})

    def _validate(self, bag: Bag) -> ModelOutput:
        self.seen += 1
        number = self.accuracies[self.epoch] if self.accuracies else NUM_VAL
        answer = bag.label if self.seen <= number else 1 - bag.label
        logits = torch.nn.functional.one_hot(torch.tensor(answer), 2).float() + 0.01 * self.seen
        return ModelOutput(logits, self.weight.detach().sum())


@pytest.fixture
def files(tmp_path: Path) -> FoldFiles:
    return FoldFiles(
        tmp_path / "s_0_checkpoint.pt", tmp_path / "history_0.csv", tmp_path / "resume_0.pt", tmp_path / "tensorboard"
    )


class Shuffled:
    """Training slides in the sampler's order, as a DataLoader gives them."""

    def __init__(self, bags: list[Bag], sampler: EpochSampler):
        self.bags, self.sampler = bags, sampler

    def __iter__(self) -> Any:
        return (self.bags[index] for index in self.sampler)


def train(model: SlideModel, files: FoldFiles, **options: Any) -> Progress:
    config = Config(**{"lr": 1e-2, "max_epochs": 4, **options})
    bags = make_bags(6)
    sampler = EpochSampler([bag.label for bag in bags], config.seed)
    return fit(model, Shuffled(bags, sampler), make_bags(NUM_VAL), sampler, config, files, "fold 0", {"fold": "0"})


# ---------------------------------------------------------------------------------------------------- sampler


def epoch_of(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.epoch = epoch
    return list(sampler)


def test_every_epoch_is_another_permutation() -> None:
    sampler = EpochSampler([0, 1] * 8, seed=1)
    epochs = [epoch_of(sampler, epoch) for epoch in range(20)]
    assert len(sampler) == 16
    assert all(sorted(order) == list(range(16)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 20


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    labels = [0, 1] * 8
    torch.manual_seed(0)
    first = epoch_of(EpochSampler(labels, seed=1), 7)
    torch.manual_seed(99)
    assert epoch_of(EpochSampler(labels, seed=1), 7) == first
    drawn = {tuple(epoch_of(EpochSampler(labels, seed), epoch)) for seed in range(5) for epoch in range(5)}
    assert len(drawn) == 25


def test_sampling_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    list(EpochSampler([0, 1] * 8, seed=1))
    list(EpochSampler([0, 1] * 8, seed=1, weighted=True))
    assert torch.rand(()) == expected


def test_weighted_sampling_draws_classes_equally_often() -> None:
    labels = [0] * 40 + [1] * 8 + [2] * 2
    sampler = EpochSampler(labels, seed=1, weighted=True)
    epochs = [epoch_of(sampler, epoch) for epoch in range(100)]
    assert all(len(order) == len(labels) for order in epochs)
    counts = Counter(labels[index] for order in epochs for index in order)
    for label in range(3):  # 5000 draws: a standard deviation of 0.007
        assert counts[label] / 5000 == pytest.approx(1 / 3, abs=0.03)
    slides = Counter(index for order in epochs for index in order)
    assert set(slides) == set(range(50))  # every slide has its turn
    assert slides[48] / 5000 == pytest.approx(1 / 6, abs=0.03)  # the two slides of class 2 equally often
    assert len({tuple(order) for order in epochs}) == 100


def test_plain_sampling_keeps_the_classes_as_they_are() -> None:
    labels = [0] * 40 + [1] * 10
    assert Counter(labels[index] for index in EpochSampler(labels, seed=1)) == {0: 40, 1: 10}


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


def model_slide(step: int) -> str:
    """The slide of a training step (from 1)."""
    sampler = EpochSampler([i % 2 for i in range(6)], Config().seed)
    epoch, place = divmod(step - 1, 6)
    return f"slide-{epoch_of(sampler, epoch)[place]}"


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


def test_without_early_stopping_all_epochs_run_and_the_best_is_restored(files: FoldFiles) -> None:
    accuracies = [2, 3, 1] + [0] * 17
    model = Scripted(accuracies)
    progress = train(model, files, max_epochs=20)
    assert (progress.best_epoch, progress.epochs) == (1, 20)
    assert torch.equal(model.weight, model.weights[1])
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


# ------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("opt", ["adam", "sgd"])
@pytest.mark.parametrize("step", [3, 10, 13, 24])  # in the first epoch, within one, at the first slide of one, the last
def test_resume_ends_as_if_never_stopped(tmp_path: Path, step: int, opt: str) -> None:
    def fold_files(name: str) -> FoldFiles:
        folder = tmp_path / name
        return FoldFiles(folder / "c.pt", folder / "history.csv", folder / "state.pt", folder / "tensorboard")

    accuracies = [1, 3, 2, 3]
    whole = Scripted(accuracies)
    expected = train(whole, fold_files("whole"), opt=opt)
    with pytest.raises(KeyboardInterrupt):
        train(Scripted(accuracies, fail_at=(step, KeyboardInterrupt())), fold_files("stopped"), opt=opt)
    again = Scripted(accuracies)
    again.epoch += (step - 1) // 6  # its script goes on where the epochs do
    torch.manual_seed(12345)
    progress = train(again, fold_files("stopped"), opt=opt, resume=True)
    assert (progress.best_epoch, progress.epochs) == (expected.best_epoch, expected.epochs) == (1, 4)
    assert again.steps == 24 - 6 * ((step - 1) // 6)  # finished epochs are not trained again
    for ours, theirs in zip(again.weights, whole.weights[(step - 1) // 6 :], strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(again.weight, whole.weight)
    assert fold_files("stopped").history.read_bytes() == fold_files("whole").history.read_bytes()


def test_resume_of_all_epochs_trains_nothing(files: FoldFiles) -> None:
    whole = Scripted([1, 3, 2, 3])
    train(whole, files)
    history = files.history.read_bytes()
    again = Scripted([])
    progress = train(again, files, resume=True)
    assert again.steps == 0
    assert (progress.best_epoch, progress.epochs) == (1, 4)
    assert torch.equal(again.weight, whole.weights[1])
    assert files.history.read_bytes() == history


def test_resume_counts_the_epochs_waited_before(files: FoldFiles) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Scripted([2] * 30, fail_at=(6 * 6 + 1, KeyboardInterrupt())), files, max_epochs=30, early_stopping=True)
    again = Scripted([2] * 30)
    progress = train(again, files, max_epochs=30, early_stopping=True, resume=True)
    assert (progress.best_epoch, progress.epochs, again.steps) == (0, 11, 5 * 6)


def test_without_resume_it_starts_over(files: FoldFiles) -> None:
    train(Scripted([3, 3, 3, 3]), files)
    again = Scripted([1, 2, 1, 1])
    progress = train(again, files)
    assert (progress.best_epoch, progress.epochs, again.steps) == (1, 4, 24)


def test_the_state_loads_with_weights_only(files: FoldFiles) -> None:
    train(Scripted(), files)
    assert torch.load(files.state, weights_only=True)["progress"]["epochs"] == 4
    assert sorted(path.name for path in files.state.parent.iterdir()) == [
        "history_0.csv", "resume_0.pt", "s_0_checkpoint.pt",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- tensorboard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check_scalars(files: FoldFiles) -> None:
    history = pd.read_csv(files.history)
    found = scalars(files.tensorboard)
    assert set(found) == set(history)
    for name in ("train_loss", "train_htcl_loss", "val_acc", "val_loss"):
        assert [step for step, _ in found[name]] == history["epoch"].tolist()
        assert [value for _, value in found[name]] == pytest.approx(history[name].tolist(), rel=1e-6)


def test_log_data_writes_the_history_to_tensorboard(files: FoldFiles) -> None:
    train(Scripted([1, 2, 4, 3]), files, log_data=True)
    check_scalars(files)


def test_no_tensorboard_by_default(files: FoldFiles) -> None:
    train(Scripted(), files)
    assert not files.tensorboard.exists()


def test_tensorboard_of_a_resumed_run_has_every_epoch_once(files: FoldFiles) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Scripted([1, 2, 4, 3], fail_at=(15, KeyboardInterrupt())), files, log_data=True)
    again = Scripted([1, 2, 4, 3])
    again.epoch += 2
    train(again, files, log_data=True, resume=True)
    check_scalars(files)


def test_tensorboard_of_a_run_started_over_shows_the_new_run(files: FoldFiles) -> None:
    train(Scripted([1, 2, 4, 3]), files, log_data=True, lr=0.1)
    train(Scripted([3, 1, 2, 2]), files, log_data=True, max_epochs=3)
    check_scalars(files)
