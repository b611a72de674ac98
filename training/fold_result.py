"""The result of a fold as fold_<k>.json holds it: its numbers, the run that it is of, and the digests of its files."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from math import nan
from pathlib import Path
from typing import Any

from training.metrics import Metrics
from utils.errors import Fault, UserError
from utils.files import read_json
from utils.sealed import DIGESTS, damaged_fields
from utils.typed import mistakes
from utils.words import listed


@dataclass(frozen=True)
class FoldResult:
    """One fold: metrics of the epoch that was tested, and how long it was trained.

    Epochs count from 0. best_epoch: the one of the lowest validation error. epochs: how many. tested_epoch: with
    --early_stopping the best one, else the last; -1 in results of earlier versions, which tested the best one. Of
    models with a graph: Hit Ratio@2 of the test slides, and the shares of filtered pairs at both scales. more: further
    metrics of the test slides by their columns, test_log_loss say, and test_patient_auc of patients; empty in results
    of earlier versions.
    """

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
    tested_epoch: int = -1
    test_filtered_low: float = nan
    test_filtered_high: float = nan
    more: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, fold: int, test: Metrics, val: Metrics, hit_ratio: float, **more: Any) -> "FoldResult":
        """more: the epochs, the shares of filtered pairs and the further metrics, by field."""
        return cls(fold, test.auc, test.f1, test.acc, val.auc, val.f1, val.acc, hit_ratio, **more)

    def tested(self) -> int:
        """The epoch that was tested."""
        return self.best_epoch if self.tested_epoch < 0 else self.tested_epoch

    def summary(self) -> str:
        """What a user is told of the fold, in one line."""
        return (
            f"fold {self.fold}: test auc {self.test_auc:.4f} f1 {self.test_f1:.4f} acc {self.test_acc:.4f} "
            f"(epoch {self.tested() + 1} of {self.epochs})"
        )


@dataclass(frozen=True)
class FoldRecord:
    """The content of fold_<k>.json.

    run: what the fold was trained with, digests as ``RunReader.fingerprint`` gives them. files: digests of the fold's
    files by name. Both are None where the file carries no digests, as those of earlier versions.
    """

    result: FoldResult
    run: Mapping[str, str] | None = None
    files: Mapping[str, str] | None = None

    def content(self) -> dict[str, Any]:
        """What is written: null in place of NaN, which JSON does not know."""
        result = asdict(self.result)
        values = {name: None if value != value else value for name, value in result.items()}
        values["more"] = {name: None if value != value else value for name, value in result["more"].items()}
        return {**values, "run": self.run, "files": self.files}


NAMES = frozenset(item.name for item in fields(FoldResult))
NEEDED = frozenset(
    item.name for item in fields(FoldResult) if item.default is MISSING and item.default_factory is MISSING
)
"""The numbers that results of every version have."""
UNDEFINED = frozenset(item.name for item in fields(FoldResult) if item.type is float)
"""The numbers that a fold may lack."""


def read_fold_record(file: Path, fold: int) -> FoldRecord:
    """fold_<fold>.json. Raises UserError where it is damaged, or the result of another fold."""
    content = read_json(file)
    mend = "remove it to train the fold again"
    links = {"run", "files"} if isinstance(content, dict) and DIGESTS in content else set()
    if damaged := damaged_fields(content) if isinstance(content, dict) else []:
        found = f"damaged or edited: the digest does not fit {listed(damaged, 10, quote=False)}"
        raise UserError(Fault("run.unreadable_result", str(file), found, mend=mend))
    is_whole = isinstance(content, dict) and NEEDED | links <= set(content) - {DIGESTS} <= NAMES | links
    wrong = mistakes(FoldRecord, _nested(content)) if is_whole else []
    if wrong or not is_whole:
        found = ": ".join(["not the result of a fold", *wrong[:1]])
        raise UserError(Fault("run.unreadable_result", str(file), found, mend=mend))
    if content["fold"] != fold:
        raise UserError(Fault("run.foreign", str(file), f"the result of fold {content['fold']}", mend=mend))
    nested = _nested(content)
    return FoldRecord(FoldResult(**nested["result"]), nested["run"], nested["files"])


def _nested(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ``FoldRecord``, of what ``FoldRecord.content`` gave."""
    result: dict[str, Any] = {
        name: nan if value is None and name in UNDEFINED else value for name, value in content.items() if name in NAMES
    }
    if isinstance(result.get("more"), dict):
        result["more"] = {name: nan if value is None else value for name, value in result["more"].items()}
    return {"result": result, "run": content.get("run"), "files": content.get("files")}
