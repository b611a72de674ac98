"""Predictions of slides as files: the table and, of labelled slides, metrics and plots."""

from pathlib import Path

from reports.plots import confusion_figure, reliability_figure, roc_figure, save_png
from training.metrics import classification_metrics
from training.prediction import RunPredictions
from utils.files import write_json, write_text
from utils.spreadsheets import csv_text

BESIDE = ("metrics.json", "roc.png", "confusion.png", "calibration.png")  # written of labelled slides


def output_files(output: Path) -> list[Path]:
    """The table ``output``, and the files beside it that may be written with it."""
    return [output, *(output.with_name(f"{output.stem}_{name}") for name in BESIDE)]


def write_predictions(output: Path, predictions: RunPredictions) -> str:
    """Write the table to ``output`` and, where some labels are known, metrics and plots to files named after it.

    Those of an earlier call are removed. Returns what a user is told of the labelled slides, "" where there are none.
    """
    for file in output_files(output)[1:]:
        file.unlink(missing_ok=True)
    write_text(output, csv_text(predictions.table(), index=False))
    labels, probabilities = predictions.labelled()
    if not len(labels):
        return ""
    metrics = classification_metrics(labels, probabilities)
    known = {name: value if value == value else None for name, value in metrics._asdict().items()}
    write_json(output.with_name(f"{output.stem}_metrics.json"), {"slides": len(labels), **known})
    figures = {
        "roc": roc_figure(labels, probabilities, predictions.class_names),
        "confusion": confusion_figure(labels, probabilities.argmax(1), predictions.class_names),
        "calibration": reliability_figure(labels, probabilities),
    }
    for name, figure in figures.items():
        save_png(figure, output.with_name(f"{output.stem}_{name}.png"))
    right = (probabilities.argmax(1) == labels).sum()
    return (
        f"{right} of {len(labels)} labelled slides are predicted as labelled\n"
        f"auc {metrics.auc:.4f}  f1 {metrics.f1:.4f}  acc {metrics.acc:.4f}\n"
    )
