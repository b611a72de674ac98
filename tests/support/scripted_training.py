"""A training whose loss, gradient and validation accuracy are known."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.loop import EpochSampler, FoldFiles, Progress, fit
from utils.config import Config
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


@pytest.fixture(name="files")
def files_fixture(tmp_path: Path) -> FoldFiles:
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


def epoch_of(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.epoch = epoch
    return list(sampler)


def model_slide(step: int) -> str:
    """The slide of a training step (from 1)."""
    sampler = EpochSampler([i % 2 for i in range(6)], Config().seed)
    epoch, place = divmod(step - 1, 6)
    return f"slide-{epoch_of(sampler, epoch)[place]}"
