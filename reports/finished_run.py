"""The finished folds of a run of main.py, read from its folder and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.metrics import classification_metrics
from training.run_folder import FoldResult, RunFolder
from utils.config import Config
from utils.errors import Faults, UserError
from utils.files import read_json

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_auc", "val_acc")
TOLERANCE = 1e-6


@dataclass(frozen=True)
class FinishedFold:
    """history: history_<fold>.csv. predictions: predictions_<fold>.csv, validation and test slides."""

    result: FoldResult
    history: pd.DataFrame
    predictions: pd.DataFrame


@dataclass(frozen=True)
class FinishedRun:
    """A run with its folds that are finished, by number; missing: the numbers of the others."""

    name: str
    options: dict[str, Any]
    versions: dict[str, str]
    class_names: list[str]
    folds: dict[int, FinishedFold]
    missing: list[int]


def read_finished_run(path: Path) -> FinishedRun:
    """Raises UserError where the folder is no run, no fold is finished, or files are damaged: all faults at once."""
    run = RunFolder(path)
    if not run.config.is_file():
        raise UserError(
            f"{path}: no run found; expected a folder with a config.json, "
            "<results_dir>/<task>/<feature_extractor>/<shots>/<run>, as main.py writes it"
        )
    record = read_json(run.config)
    if not isinstance(record, dict) or not {"options", "class_names", "inputs"} <= set(record):
        raise UserError(f"{run.config}: not a config.json of main.py; expected its options, class_names and inputs")
    options = {**Config().to_dict(), **record["options"]}
    class_names, numbers = record["class_names"], range(options["k"])
    faults = Faults()
    results = {number: faults.maybe(run.finished, number) for number in numbers}
    if not any(results.values()) and not faults.found:
        expected = ", ".join(run.fold_result(number).name for number in numbers)
        faults.add(f"{path}: no fold is finished, found none of {expected}; finish the run with main.py --resume")
    folds = {}
    for number, result in results.items():
        if result:
            history = faults.maybe(_read_history, run, result)
            predictions = faults.maybe(read_predictions, run, result, class_names)
            if history is not None and predictions is not None:
                folds[number] = FinishedFold(result, history, predictions)
    faults.raise_any()
    missing = [number for number in numbers if number not in folds]
    return FinishedRun(path.resolve().name, options, record.get("versions", {}), class_names, folds, missing)


def read_predictions(run: RunFolder, result: FoldResult, class_names: Sequence[str]) -> pd.DataFrame:
    """predictions_<fold>.csv of a finished fold: split (val, test), slide_id, label, prediction, prob_<CLASS>...

    Raises UserError where the file is not there, or not what the fold's result was computed from."""
    file, mend = run.predictions(result.fold), _mend(run, result.fold)
    texts = ["split", "slide_id", "label", "prediction"]
    table = _read_csv(file, mend, dtype=dict.fromkeys(texts, str), keep_default_na=False)
    columns = [f"prob_{name}" for name in class_names]
    if list(table) != [*texts, *columns]:
        raise UserError(f"{file}: found the columns {', '.join(table)}; expected {', '.join(texts + columns)}; {mend}")
    for column, known in (("split", ["val", "test"]), ("label", class_names), ("prediction", class_names)):
        if unknown := sorted(set(table[column].astype(str)) - set(known)):
            raise UserError(f"{file}: found {column} {', '.join(unknown)}; expected {', '.join(known)}; {mend}")
    if set(table["split"]) != {"val", "test"} or table.duplicated(["split", "slide_id"]).any():
        raise UserError(f"{file}: found a part without slides, or slides that are there twice; {mend}")
    try:
        table[columns] = table[columns].astype(np.float64)
    except ValueError as error:
        raise UserError(f"{file}: found probabilities that are no numbers ({error}); {mend}") from error
    if not np.allclose(table[columns].sum(axis=1, skipna=False), 1, rtol=0, atol=TOLERANCE):
        raise UserError(f"{file}: found probabilities that do not add up to 1; {mend}")
    for split in ("val", "test"):
        metrics = classification_metrics(*arrays(table[table["split"] == split], class_names))
        for name, found in metrics._asdict().items():
            recorded = getattr(result, f"{split}_{name}")
            if not np.isclose(found, recorded, rtol=0, atol=TOLERANCE, equal_nan=True):
                raise UserError(
                    f"{file}: found {split}_{name} {found:.4f}; expected {recorded:.4f}, as in "
                    f"{run.fold_result(result.fold).name}; {mend}"
                )
    return table


def arrays(predictions: pd.DataFrame, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) as class indices, and probabilities (N, K), of a table of predictions."""
    labels = pd.Index(class_names).get_indexer(predictions["label"])
    return labels, predictions[[f"prob_{name}" for name in class_names]].to_numpy(np.float64)


def _read_history(run: RunFolder, result: FoldResult) -> pd.DataFrame:
    file, mend = run.training(result.fold).history, _mend(run, result.fold)
    table = _read_csv(file, mend)
    wrong = [name for name in HISTORY_COLUMNS if name not in table or table[name].dtype.kind not in "if"]
    if wrong:
        raise UserError(f"{file}: no column of numbers {', '.join(wrong)}; found {', '.join(table)}; {mend}")
    if len(table) != result.epochs:
        raise UserError(f"{file}: found {len(table)} epochs, expected {result.epochs}; {mend}")
    return table


def _read_csv(file: Path, mend: str, **how: Any) -> pd.DataFrame:
    if not file.is_file():
        raise UserError(f"{file}: file not found, though the fold is finished; {mend}")
    try:
        return pd.read_csv(file, **how)
    except ValueError as error:  # what pandas raises for a file that is no table, no text, or empty
        raise UserError(f"{file}: not a readable table ({error}); {mend}") from error


def _mend(run: RunFolder, fold: int) -> str:
    return f"remove {run.fold_result(fold).name} and train the fold again with --resume"
