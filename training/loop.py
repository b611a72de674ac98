"""The training loop: epochs, early stopping, checkpoints, and going on where it was stopped.

It knows of a model only what utils/interface.py says, and ``checkpoint`` / ``load_checkpoint``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Sampler
from tqdm import tqdm

from training.evaluation import Predictions, autocast, evaluate
from training.resume import Progress, restore, save_state, set_weights, trained_weights
from training.tensorboard_log import forget_epochs, log_epoch
from utils.config import Config
from utils.errors import Fault, UserError
from utils.files import write_tensors, write_text
from utils.interface import Bag, SlideModel
from utils.reproducibility import seed_everything
from utils.spreadsheets import csv_text

PATIENCE = 10
SGD_MOMENTUM = 0.9


@dataclass(frozen=True)
class FoldFiles:
    """What training leaves on disk. state: everything needed to go on; gone when the fold is finished."""

    checkpoint: Path
    history: Path
    state: Path
    tensorboard: Path

    def require_folder(self) -> None:
        """Raises UserError where the run's folder has vanished, which a file written there would make anew."""
        if not self.checkpoint.parent.is_dir():
            found = "the run's folder has been moved away or removed during training"
            raise UserError(Fault("run.vanished", str(self.checkpoint.parent), found, mend="train the run again"))


class EpochSampler(Sampler[int]):
    """The training order of an epoch, from the seed and the epoch alone, so that any epoch can be repeated.

    weighted: draw with replacement, all classes equally often.
    """

    def __init__(self, labels: Sequence[int], seed: int, weighted: bool = False):
        self.labels = torch.tensor(labels)
        self.seed = seed
        self.weighted = weighted
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Any:
        mixed = np.random.SeedSequence([self.seed % 2**32, self.epoch, 1]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(mixed))
        if self.weighted:
            weights = 1.0 / torch.bincount(self.labels).double()[self.labels]
            yield from torch.multinomial(weights, len(weights), replacement=True, generator=generator).tolist()
        else:
            yield from torch.randperm(len(self.labels), generator=generator).tolist()


def build_optimizer(model: SlideModel, config: Config) -> torch.optim.Optimizer:
    """Adam or SGD over what is trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.opt == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=SGD_MOMENTUM, weight_decay=config.reg)
    return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.reg)


def train_epoch(
    model: SlideModel, bags: Iterable[Bag], optimizer: torch.optim.Optimizer, config: Config, title: str = ""
) -> dict[str, float]:
    """One slide a step. Returns the means of the loss, its named terms and the accuracy.

    Raises UserError when a loss is not finite.
    """
    model.train()
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    bar = tqdm(bags, desc=title, leave=False, disable=None, unit="slide")
    for count, bag in enumerate(bar, start=1):
        with autocast(device, config.precision):
            output = model(bag.to(device))
        loss = output.loss
        if not torch.isfinite(loss):
            found = f"the loss on slide {bag.slide_id} is {loss.item()}; finished folds are kept"
            mend = "try a lower --lr, or --precision fp32, in another --results_dir"
            raise UserError(Fault("loss.not_finite", title, found, "a finite loss", mend))
        optimizer.zero_grad()
        loss.backward()
        model.clip_gradients()
        optimizer.step()
        values = {"loss": loss, **{f"{name}_loss": value for name, value in output.losses.items()}}
        values["acc"] = (output.logits.argmax() == bag.label).float()
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        bar.set_postfix(loss=f"{sums['loss'] / count:.4f}", acc=f"{sums['acc'] / count:.3f}")
    return {name: total / count for name, total in sums.items()}


def fit(
    model: SlideModel,
    train_bags: Iterable[Bag],
    val_bags: Iterable[Bag],
    sampler: EpochSampler,
    config: Config,
    files: FoldFiles,
    title: str,
    origin: Mapping[str, str],
) -> Progress:
    """Train until the epochs are used up or the error (``error_of``) has not fallen for ``PATIENCE`` epochs; a tie is
    no improvement. With ``config.early_stopping`` the weights of the epoch of the least error stay in the model and, at
    the end, in ``files.checkpoint``; without it those of the last epoch, as in the released code.

    origin: what tells the run and the fold, by name. With ``config.resume`` it goes on behind the last finished epoch
    and ends as if it had never been stopped. Raises UserError where the state to go on from is damaged or of another
    origin, and where a loss is not finite.
    """
    device = next(model.parameters()).device
    optimizer = build_optimizer(model, config)
    progress, notes = restore(model, optimizer, origin, files.state) if config.resume else (Progress(), [])
    for note in notes:
        tqdm.write(note)
    max_epochs = min(config.max_epochs, 2) if config.testing else config.max_epochs
    if config.log_data:
        forget_epochs(files.tensorboard, progress.epochs)
    while progress.epochs < max_epochs and not (config.early_stopping and progress.waited() >= PATIENCE):
        epoch = progress.epochs
        seed_everything(config.seed, epoch + 1)
        sampler.epoch = epoch
        train = train_epoch(model, train_bags, optimizer, config, f"{title} epoch {epoch + 1}/{max_epochs}")
        validation = evaluate(model, val_bags, device, config.precision)
        row = _history_row(epoch, train, validation)
        progress.history.append(row)
        progress.epochs += 1
        error = error_of(row, config.checkpoint_metric)
        if error < progress.best_error or not progress.best_weights:  # the first, where no error is defined
            progress.best_error, progress.best_epoch = error, epoch
            progress.best_weights = trained_weights(model)
        files.require_folder()
        write_text(files.history, csv_text(pd.DataFrame(progress.history), index=False))
        save_state(model, optimizer, progress, origin, files.state)
        if config.log_data:
            log_epoch(files.tensorboard, epoch, row)
        mark = " *" if progress.best_epoch == epoch else ""
        tqdm.write(
            f"{title} epoch {epoch + 1:>3}/{max_epochs}  train loss {row['train_loss']:.4f} acc {row['train_acc']:.3f}"
            f"  val loss {row['val_loss']:.4f} acc {row['val_acc']:.3f} auc {row['val_auc']:.3f}{mark}"
        )
    files.require_folder()
    if config.early_stopping:
        set_weights(model, progress.best_weights)
    write_tensors(files.checkpoint, model.checkpoint())
    return progress


def error_of(row: Mapping[str, float], metric: str) -> float:
    """What the best epoch has the least of: the validation loss, or what an AUC or accuracy lacks of 1; infinite where
    the metric is not defined."""
    value = row[metric] if metric == "val_loss" else 1 - row[metric]
    return value if value == value else float("inf")


def _history_row(epoch: int, train: dict[str, float], validation: Predictions) -> dict[str, float]:
    metrics = validation.metrics()._asdict()
    return {
        "epoch": epoch,
        **{f"train_{name}": value for name, value in train.items()},
        "val_loss": validation.loss,
        **{f"val_{name}": value for name, value in metrics.items()},
        "val_hit_ratio": validation.hit_ratio,
    }
