"""Predictions of slides as files: the table and, of labelled slides, metrics and plots."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from reports.plots import confusion_figure, reliability_figure, roc_figure, save_png
from training.metrics import (
    CLASSIFICATION,
    Metrics,
    classification_metrics,
    missing_classes,
    missing_classes_note,
    undefined_metrics,
)
from training.more_metrics import more_metrics, patient_metrics, pooled_by_patient
from training.prediction import RunPredictions
from utils.files import write_json, write_text
from utils.spreadsheets import csv_text

PATIENTS = "patients.csv"
BESIDE = (PATIENTS, "metrics.json", "roc.png", "confusion.png", "calibration.png")
"""All but the first are written of labelled slides."""


def output_files(output: Path) -> list[Path]:
    """The table ``output``, and the files beside it that may be written with it."""
    return [output, *(output.with_name(f"{output.stem}_{name}") for name in BESIDE)]


def write_predictions(output: Path, predictions: RunPredictions) -> str:
    """Write the table to ``output`` and that of patients beside it and, where some labels are known, metrics and plots
    to files named after it.

    Those of an earlier call are removed. Returns what a user is told of the labelled slides, "" where there are none.
    """
    for file in output_files(output)[1:]:
        file.unlink(missing_ok=True)
    write_text(output, csv_text(predictions.table(), index=False))
    of_patients = predictions.patient_table()
    write_text(output.with_name(f"{output.stem}_{PATIENTS}"), csv_text(of_patients, index=False))
    labels, probabilities = predictions.labelled()
    if not len(labels):
        return ""
    metrics = classification_metrics(labels, probabilities)
    write_json(output.with_name(f"{output.stem}_metrics.json"), metrics_record(predictions, metrics))
    figures = {
        "roc": roc_figure(labels, probabilities, predictions.class_names),
        "confusion": confusion_figure(labels, probabilities.argmax(1), predictions.class_names),
        "calibration": reliability_figure(labels, probabilities),
    }
    for name, figure in figures.items():
        save_png(figure, output.with_name(f"{output.stem}_{name}.png"))
    right = (probabilities.argmax(1) == labels).sum()
    values = "  ".join(f"{name} {_told(x)}" for name, x in metrics._asdict().items())
    note = missing_classes_note(labels, predictions.class_names)
    lines = [f"{right} of {len(labels)} labelled slides are predicted as labelled", values]
    if len(of_patients) < len(predictions.slide_ids):
        pooled = metrics_of_patients(predictions)
        shown = "  ".join(f"{measure.key} {_told(pooled[measure.key])}" for measure in CLASSIFICATION)
        lines.append(f"by patient ({pooled['patients']}): {shown}")
    return "".join(f"{line}\n" for line in [*lines, *([f"note: {note}"] if note else [])])


def _told(value: float | None) -> str:
    return "undefined" if value is None or isnan(value) else f"{value:.4f}"


def metrics_of_patients(predictions: RunPredictions) -> dict[str, Any]:
    """``patients``, the number of those with labelled slides, and each metric of them, None where it is not defined."""
    labels, probabilities = predictions.labelled()
    patients, names = predictions.labelled_patients(), predictions.class_names
    number = len(pooled_by_patient(labels, probabilities, patients)[0])
    values = patient_metrics(labels, probabilities, patients, names, predictions.pooling)
    return {"patients": number, **_without_nan(values)}


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if isnan(value) else value for name, value in values.items()}


def metrics_record(predictions: RunPredictions, metrics: Metrics) -> dict[str, Any]:
    """What <table>_metrics.json holds: ``slides`` and ``unlabelled``, their numbers; each metric, null where it is not
    defined; ``undefined``, why, by metric; ``classes_without_slides``, which take no part in AUC and F1;
    ``by_patient``, ``metrics_of_patients``."""
    labels, probabilities = predictions.labelled()
    reasons = undefined_metrics(labels, predictions.class_names)
    return {
        "slides": len(labels),
        "unlabelled": len(predictions.labels) - len(labels),
        **{
            measure.key: None if measure.key in reasons else getattr(metrics, measure.key) for measure in CLASSIFICATION
        },
        **_without_nan(more_metrics(labels, probabilities, predictions.class_names)),
        "undefined": reasons,
        "classes_without_slides": missing_classes(labels, predictions.class_names),
        "by_patient": metrics_of_patients(predictions),
    }
