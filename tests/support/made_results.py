"""Runs made up for a report, and its numbers recomputed from the predictions by other means."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tests.support.run_folders import CLASSES

Folds = dict[int, dict[str, list[str]]]

METRICS = ("auc", "f1", "acc")


def folds_of(table: Path, number: int = 3, seed: int = 0) -> Folds:
    """Folds by patient: 12 patients train, 12 validate, 36 test."""
    rows = pd.read_csv(table)
    cases = rows["case_id"].unique()
    folds = {}
    for fold in range(number):
        order = np.random.default_rng([seed, fold]).permutation(cases)
        parts = {"train": order[:12], "val": order[12:24], "test": order[24:]}
        folds[fold] = {name: rows["slide_id"][rows["case_id"].isin(part)].tolist() for name, part in parts.items()}
    return folds


def predictions(results: Path, setting: str) -> dict[tuple[int, int], pd.DataFrame]:
    """Test predictions by seed and fold, read anew."""
    found = {}
    for file in (results / setting).rglob("predictions_*.csv"):
        table = pd.read_csv(file)
        found[int(file.parent.name.rpartition("_s")[2]), int(file.stem[-1])] = table[table["split"] == "test"]
    return dict(sorted(found.items()))


def metrics_of(table: pd.DataFrame) -> dict[str, float]:
    """scikit-learn's own multi-class functions."""
    scores = table[[f"prob_{name}" for name in CLASSES]]
    return {
        "auc": roc_auc_score(table["label"], scores, multi_class="ovr", labels=list(CLASSES)),
        "f1": f1_score(table["label"], table["prediction"], average="macro"),
        "acc": accuracy_score(table["label"], table["prediction"]),
    }


def rows_of(markdown: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    lines = markdown.split(f"{heading}\n", 1)[1].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return [rows[0], *rows[2:]]
