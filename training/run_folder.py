"""A run's folder: its settings, and the results of its folds."""

import fcntl
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from training.loop import FoldFiles
from training.metrics import Metrics
from utils.config import Config
from utils.effects import CIRCUMSTANCES
from utils.errors import UserError
from utils.files import read_json, write_json, write_text

METRICS = ("test_auc", "test_f1", "test_acc", "val_auc", "val_f1", "val_acc")


@dataclass(frozen=True)
class FoldResult:
    """One fold: metrics of the best epoch (counted from 0), and the mean Hit Ratio@2 over the test slides."""

    fold: int
    test_auc: float
    test_f1: float
    test_acc: float
    val_auc: float
    val_f1: float
    val_acc: float
    test_hit_ratio: float
    best_epoch: int
    epochs: int

    @classmethod
    def of(cls, fold: int, test: Metrics, val: Metrics, hit_ratio: float, best_epoch: int, epochs: int) -> "FoldResult":
        return cls(fold, test.auc, test.f1, test.acc, val.auc, val.f1, val.acc, hit_ratio, best_epoch, epochs)


class RunFolder:
    """RESULTS/<task>/<fe>/<shots>/<run>/ with the names of the released code."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    def split(self, fold: int) -> Path:
        return self.path / f"splits_{fold}.csv"

    def predictions(self, fold: int) -> Path:
        return self.path / f"predictions_{fold}.csv"

    def fold_result(self, fold: int) -> Path:
        """Written last: a fold is finished when it is there."""
        return self.path / f"fold_{fold}.json"

    def training(self, fold: int) -> FoldFiles:
        return FoldFiles(
            checkpoint=self.path / f"s_{fold}_checkpoint.pt",
            history=self.path / f"history_{fold}.csv",
            state=self.path / f"resume_{fold}.pt",
            tensorboard=self.path / "tensorboard" / f"fold_{fold}",
        )

    @contextmanager
    def lock(self, name: str, wait: bool = False) -> Iterator[None]:
        """Keep other processes from the same part of the run: wait for them, or raise UserError. File systems that
        have no locks are passed over."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / f".lock_{name}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise UserError(f"{self.path}: another process is at work on {name} of this run") from error
            except OSError:
                pass
            yield

    def open(self, record: dict[str, Any], without_effect: Collection[str] = ()) -> None:
        """Write config.json, or check that the run there is the same one.

        record: {"options", "class_names", "inputs", ...}. without_effect: options that the run's model does not read,
        so that they may differ. Raises UserError when the folder holds another run.
        """
        if self.config.exists():
            there = read_json(self.config)
            differences = _differences(there, record, without_effect)
            if differences:
                raise UserError(
                    f"{self.path}: holds a run with other settings ({'; '.join(differences)}); name another "
                    "--results_dir, or move that folder away. Nothing was changed"
                )
            if set(record["inputs"]) <= set(there["inputs"]):
                return
            record = {**there, "inputs": {**there["inputs"], **record["inputs"]}}
        write_json(self.config, record)

    def clear(self, fold: int) -> None:
        """Forget what there is of a fold, to start it over."""
        files = self.training(fold)
        for file in (self.fold_result(fold), files.state, files.checkpoint, files.history, self.predictions(fold)):
            file.unlink(missing_ok=True)

    def finished(self, fold: int) -> FoldResult | None:
        file = self.fold_result(fold)
        if not file.exists():
            return None
        try:
            return FoldResult(**read_json(file))
        except TypeError as error:
            raise UserError(f"{file}: not the result of a fold; remove it to train the fold again") from error

    def finish(self, result: FoldResult) -> None:
        write_json(self.fold_result(result.fold), asdict(result))
        self.training(result.fold).state.unlink(missing_ok=True)

    def summarise(self, folds: Sequence[int], num_folds: int) -> pd.DataFrame:
        """Write the tables of the folds just run, and those of all folds when all are there.

        Returns the table of means and standard deviations: of all folds, or of these where some are missing.
        """
        everything = [result for fold in range(num_folds) if (result := self.finished(fold))]
        if len(folds) < num_folds:
            these = [result for result in everything if result.fold in folds]
            table = self._write_tables(these, f"_partial_{folds[0]}_{folds[-1] + 1}")
        if len(everything) == num_folds:
            table = self._write_tables(everything, "")
        return table

    def _write_tables(self, results: Sequence[FoldResult], suffix: str) -> pd.DataFrame:
        summary = pd.DataFrame([asdict(result) for result in results])
        table = pd.DataFrame({"mean": summary[list(METRICS)].mean(), "std": summary[list(METRICS)].std(ddof=0)}).T
        write_text(self.path / f"summary{suffix}.csv", summary.to_csv(index=False))
        write_text(self.path / f"results{suffix}.csv", table.to_csv(index_label="metric"))
        return table


def _differences(there: dict[str, Any], record: dict[str, Any], without_effect: Collection[str]) -> list[str]:
    if not isinstance(there, dict) or not {"options", "inputs"} <= set(there):
        return ["its config.json is not one of main.py"]
    options, new_options = {**asdict(Config()), **there["options"]}, record["options"]  # an older run lacks some
    names = sorted((set(options) | set(new_options)) - CIRCUMSTANCES.union(without_effect))
    differences = [
        f"{name} {options.get(name)!r}, now {new_options.get(name)!r}"
        for name in names
        if options.get(name) != new_options.get(name)
    ]
    inputs, new_inputs = there["inputs"], record["inputs"]
    changed = sorted(name for name in set(inputs) & set(new_inputs) if inputs[name] != new_inputs[name])
    return differences + [f"{name} has changed since" for name in changed]
