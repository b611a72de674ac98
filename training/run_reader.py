"""What main.py leaves in the folder of a run: where each file lies, and each file read and checked.

Nothing else reads these files: what a damaged or foreign file is, is decided here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.loop import FoldFiles
from training.metrics import HISTORY_COLUMNS, Metrics, classification_metrics
from utils.config import Config
from utils.errors import Fault, UserError
from utils.files import read_json

TOLERANCE = 1e-6
RECORD_TYPES = {"options": dict, "class_names": list, "descriptions": dict, "inputs": dict}
PREDICTION_TEXTS = ["split", "slide_id", "label", "prediction"]


@dataclass(frozen=True)
class RunRecord:
    """The content of config.json.

    options: every option of main.py by name; one that an older record lacks has its default. class_names: in the order
    of the labels. feature_dim: width of the features, None where it was not recorded. descriptions: {class: {term:
    explanation}}. inputs: digests by the name of the input. versions: by the name of the program.
    num_threads: those of PyTorch's operations in training, None where that was not recorded.
    """

    options: dict[str, Any]
    class_names: list[str]
    feature_dim: int | None
    descriptions: Mapping[str, Mapping[str, str]]
    inputs: dict[str, str]
    versions: dict[str, str]
    num_threads: int | None = None


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

    def summary(self) -> str:
        """What a user is told of the fold, in one line."""
        return (
            f"fold {self.fold}: test auc {self.test_auc:.4f} f1 {self.test_f1:.4f} acc {self.test_acc:.4f} "
            f"(best epoch {self.best_epoch + 1} of {self.epochs})"
        )


class RunReader:
    """The folder of a run, RESULTS/<task>/<fe>/<shots>/<run>/, with the names of the released code."""

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
        """Written last: a fold is finished when this file is there."""
        return self.path / f"fold_{fold}.json"

    def training(self, fold: int) -> FoldFiles:
        return FoldFiles(
            checkpoint=self.path / f"s_{fold}_checkpoint.pt",
            history=self.path / f"history_{fold}.csv",
            state=self.path / f"resume_{fold}.pt",
            tensorboard=self.path / "tensorboard" / f"fold_{fold}",
        )

    def holds_run(self) -> bool:
        """Whether the folder has a config.json, and one of main.py. Raises UserError where the file is not JSON."""
        return self.config.is_file() and _is_record(read_json(self.config))

    def record(self) -> RunRecord:
        """config.json. Raises UserError where the file is missing, damaged, or another program's."""
        if not self.config.is_file():
            raise UserError(
                Fault(
                    "run.missing", str(self.path), "no run found",
                    expected="a folder with a config.json, <results_dir>/<task>/<feature_extractor>/<shots>/<run>, as "
                    "main.py writes it",
                )
            )  # fmt: skip
        content = read_json(self.config)
        if not _is_record(content):
            raise UserError(
                Fault(
                    "run.foreign", str(self.config), "not a config.json of main.py",
                    expected=f"its {', '.join(RECORD_TYPES)}", mend="name another folder, or move the file away",
                )
            )  # fmt: skip
        wrong = [name for name, kind in RECORD_TYPES.items() if not isinstance(content[name], kind)]
        options = {**asdict(Config()), **content["options"]} if "options" not in wrong else {}
        wrong += [] if isinstance(content.get("num_threads"), int | None) else ["num_threads"]
        if wrong or not isinstance(options["k"], int) or not content["class_names"]:
            raise UserError(
                Fault(
                    "run.unreadable", str(self.config), f"damaged: {', '.join(wrong or ['k or class_names'])}",
                    expected="the file as main.py wrote it", mend="train the run again in another --results_dir",
                )
            )  # fmt: skip
        return RunRecord(
            options=options,
            class_names=content["class_names"],
            feature_dim=content.get("feature_dim"),
            descriptions=content["descriptions"],
            inputs=content["inputs"],
            versions=content.get("versions", {}),
            num_threads=content.get("num_threads"),
        )

    def finished(self, fold: int) -> FoldResult | None:
        """fold_<fold>.json; None where the fold is not finished. Raises UserError where the file is damaged."""
        file = self.fold_result(fold)
        if not file.exists():
            return None
        content = read_json(file)
        names = {item.name for item in fields(FoldResult)}
        is_whole = isinstance(content, dict) and set(content) == names and content["fold"] == fold
        if not is_whole or not all(isinstance(value, int | float) for value in content.values()):
            raise UserError(
                Fault(
                    "run.unreadable_result",
                    str(file),
                    "not the result of a fold",
                    mend="remove it to train the fold again",
                )
            )
        return FoldResult(**content)

    def read_predictions(self, result: FoldResult, class_names: Sequence[str]) -> pd.DataFrame:
        """predictions_<fold>.csv of a finished fold: split (val, test), slide_id, label, prediction, prob_<CLASS>...

        result: what ``finished`` gave for the fold. Raises UserError where the file is not there, or not what the
        result was computed from.
        """
        damage = _Damage(self.predictions(result.fold), self._mend(result.fold))
        table = _read_csv(damage, dtype=dict.fromkeys(PREDICTION_TEXTS, str), keep_default_na=False)
        _check_slides(table, class_names, damage)
        _check_probabilities(table, class_names, damage)
        for split in ("val", "test"):
            metrics = classification_metrics(*arrays(table[table["split"] == split], class_names))
            for name, found in metrics._asdict().items():
                recorded = getattr(result, f"{split}_{name}")
                if not np.isclose(found, recorded, rtol=0, atol=TOLERANCE, equal_nan=True):
                    source = f"{recorded:.4f}, as in {self.fold_result(result.fold).name}"
                    raise damage.error("predictions.other_result", f"found {split}_{name} {found:.4f}", source)
        return table

    def read_history(self, result: FoldResult) -> pd.DataFrame:
        """history_<fold>.csv of a finished fold, one row per epoch. Raises UserError where the file is not there, lacks
        a column that is drawn, or has another number of epochs than the result."""
        damage = _Damage(self.training(result.fold).history, self._mend(result.fold))
        table = _read_csv(damage)
        wanted = ("epoch", *HISTORY_COLUMNS)
        wrong = [name for name in wanted if name not in table or table[name].dtype.kind not in "if"]
        if wrong:
            found = f"no column of numbers {', '.join(wrong)}; found {', '.join(table)}"
            raise damage.error("history.columns", found)
        if len(table) != result.epochs:
            raise damage.error("history.length", f"found {len(table)} epochs", str(result.epochs))
        return table

    def _mend(self, fold: int) -> str:
        return f"remove {self.fold_result(fold).name} and train the fold again with --resume"


def arrays(predictions: pd.DataFrame, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) as class indices, and probabilities (N, K), of a table of predictions."""
    labels = pd.Index(class_names).get_indexer(predictions["label"])
    return labels, predictions[_probability_columns(class_names)].to_numpy(np.float64)


def _probability_columns(class_names: Sequence[str]) -> list[str]:
    return [f"prob_{name}" for name in class_names]


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and set(RECORD_TYPES) <= set(content)


@dataclass(frozen=True)
class _Damage:
    """A file that may be damaged, and what mends it."""

    file: Path
    mend: str

    def error(self, code: str, found: str, expected: str = "") -> UserError:
        return UserError(Fault(code, str(self.file), found, expected, self.mend))


def _read_csv(damage: _Damage, **how: Any) -> pd.DataFrame:
    if not damage.file.is_file():
        raise damage.error("run.missing_file", "file not found, though the fold is finished")
    try:
        return pd.read_csv(damage.file, **how)
    except ValueError as error:  # what pandas raises for a file that is no table, no text, or empty
        raise damage.error("run.unreadable_table", f"not a readable table ({error})") from error


def _check_slides(table: pd.DataFrame, class_names: Sequence[str], damage: _Damage) -> None:
    """The columns, the names of splits and classes, and each slide once in its split."""
    wanted = [*PREDICTION_TEXTS, *_probability_columns(class_names)]
    if list(table) != wanted:
        raise damage.error("predictions.columns", f"found the columns {', '.join(table)}", ", ".join(wanted))
    for column, known in (("split", ["val", "test"]), ("label", class_names), ("prediction", class_names)):
        if unknown := sorted(set(table[column].astype(str)) - set(known)):
            raise damage.error("predictions.unknown", f"found {column} {', '.join(unknown)}", ", ".join(known))
    if set(table["split"]) != {"val", "test"} or table.duplicated(["split", "slide_id"]).any():
        raise damage.error("predictions.slides", "found a part without slides, or slides that are there twice")


def _check_probabilities(table: pd.DataFrame, class_names: Sequence[str], damage: _Damage) -> None:
    """Make the probabilities of the table numbers, and check that those of each slide add up to 1."""
    columns = _probability_columns(class_names)
    try:
        table[columns] = table[columns].astype(np.float64)
    except ValueError as error:
        found = f"found probabilities that are no numbers ({error})"
        raise damage.error("predictions.no_numbers", found) from error
    shares = table[columns].to_numpy()
    if not np.allclose(shares.sum(axis=1), 1, rtol=0, atol=TOLERANCE) or (shares < 0).any():
        raise damage.error("predictions.sum", "found probabilities that do not add up to 1")
