"""What a run of main.py wrote, and what it said."""

from pathlib import Path

import pandas as pd

METRICS = ["test_auc", "test_f1", "test_acc", "val_auc", "val_f1", "val_acc"]
CLASSES = ["SIMULATED_A", "SIMULATED_B"]


def files_below(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """What the files below a folder hold, by their paths from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def numbers(folder: Path) -> dict[str, bytes]:
    """Everything of a run that the seed determines."""
    names = ("results.csv", "summary.csv", "predictions_", "history_", "splits_", "fold_")
    return {name: data for name, data in files_below(folder).items() if name.startswith(names)}


def train_loss(folder: Path) -> float:
    return float(pd.read_csv(folder / "history_0.csv")["train_loss"].iloc[0])


def notes(out: str) -> list[str]:
    """The lines on options without effect."""
    return [line for line in out.splitlines() if "no effect" in line]
