"""Runs made up for a page, and pages read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from training.fold_result import FoldResult
from training.run_folder import RunFolder
from training.run_record import RunRecord
from utils.config import Config

ODD_CLASSES = ["A", '<b>&"']

ODD_SLIDE = "<i>&\"'%41 #0?x"


def scores(table: pd.DataFrame, class_names: list[str]) -> dict[str, float]:
    second = table[f"prob_{class_names[1]}"]
    return {
        "auc": float(roc_auc_score(table["label"] == class_names[1], second)),
        "f1": float(f1_score(table["label"], table["prediction"], average="macro")),
        "acc": float(accuracy_score(table["label"], table["prediction"])),
    }


def predictions(class_names: list[str], fold: int, slides: int = 12) -> pd.DataFrame:
    """Of two classes; about a third are wrong."""
    generator = np.random.default_rng(fold)
    label = np.arange(2 * slides) % 2
    second = np.clip(generator.normal(0.3 + 0.4 * label, 0.4), 0.01, 0.99)
    return pd.DataFrame(
        {
            "split": ["val"] * slides + ["test"] * slides,
            "slide_id": [ODD_SLIDE, *(f"S-{n}" for n in range(1, 2 * slides))],
            "label": np.array(class_names)[label],
            "prediction": np.array(class_names)[(second > 0.5).astype(int)],
            f"prob_{class_names[0]}": 1 - second,
            f"prob_{class_names[1]}": second,
        }
    )


def write_made_up_run(path: Path, class_names: list[str], folds: int, finished: list[int], **options: Any) -> RunFolder:
    """What main.py leaves of a run, made up."""
    run = RunFolder(path)
    path.mkdir(parents=True)
    settings = Config(task="made up", k=folds, **options).to_dict()
    run.open(RunRecord(settings, class_names, None, {}, {}, {"torch": "9.9"}))
    for fold in finished:
        table = predictions(class_names, fold)
        table.to_csv(run.predictions(fold), index=False)
        epochs = fold + 4
        curve = np.linspace(0.5, 1, epochs)
        columns = dict.fromkeys(("train_loss", "val_loss", "val_auc", "val_acc"), curve)
        pd.DataFrame({"epoch": range(epochs), **columns}).to_csv(run.training(fold).history, index=False)
        test, val = (scores(table[table["split"] == split], class_names) for split in ("test", "val"))
        metrics = {f"test_{name}": value for name, value in test.items()}
        metrics |= {f"val_{name}": value for name, value in val.items()}
        run.finish(FoldResult(fold, **metrics, test_hit_ratio=float("nan"), best_epoch=fold + 1, epochs=epochs))
    return run


def read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def cells(page: BeautifulSoup, table: str, part: str = "tbody") -> list[list[str]]:
    found = page.select(f"#{table} {part} tr")
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in found]
