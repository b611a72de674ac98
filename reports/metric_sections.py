"""The sections of a report with metrics beside those of its tables: by patient, of each class, and calibration."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from reports.finished_runs import FinishedRun
from reports.markdown import MarkdownReport
from reports.settings import Setting
from reports.tables import mean_and_std, table_of
from training.calibration import brier_score
from training.metrics import AUPRC, BALANCED_ACC, BRIER, CLASSIFICATION, ECE, LOG_LOSS, Measure
from training.more_metrics import more_metrics, patient_metrics, pooled_by_patient

NAMES = ["model", "task", "extractor", "shots", "folds"]
BY_PATIENT = (*CLASSIFICATION, BALANCED_ACC, AUPRC)
BY_SLIDE = (BALANCED_ACC, AUPRC, LOG_LOSS)
CALIBRATION = (ECE, BRIER)
PatientsOf = Callable[[FinishedRun], Mapping[str, str]]
"""The patient by slide_id."""


def add_by_patient(report: MarkdownReport, settings: Sequence[Setting], patients_of: PatientsOf) -> None:
    """The metrics of patients, whose probabilities are those of their slides pooled as the runs say."""
    values, numbers = [], []
    for setting in settings:
        folds, counts = [], []
        for run in setting.runs:
            patients, pooling = patients_of(run), str(run.options["patient_pooling"])
            for fold in run.folds.values():
                of_slides = [patients[slide_id] for slide_id in fold.slide_ids]
                folds.append(patient_metrics(fold.labels, fold.probabilities, of_slides, setting.class_names, pooling))
                counts.append(len(pooled_by_patient(fold.labels, fold.probabilities, of_slides)[0]))
        values.append(folds)
        numbers.append(f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}")
    report.add("## By patient")
    report.add(
        "Of the patients of the test slides: mean ± population standard deviation over folds, in %. A patient's "
        "probabilities are the mean, or with --patient_pooling max the largest, of those of the patient's slides."
    )
    _add_table(report, "by_patient", settings, values, BY_PATIENT, {"patients in a fold": numbers})


def add_more_metrics(report: MarkdownReport, settings: Sequence[Setting]) -> None:
    """Balanced accuracy, AUPRC and log loss of slides, and the recall of each class."""
    values = [_of_folds(setting) for setting in settings]
    recalls = []
    for setting, folds in zip(settings, values, strict=True):
        of_class = {name: np.array([fold[f"recall_{name}"] for fold in folds]) for name in setting.class_names}
        known = {name: found[~np.isnan(found)] for name, found in of_class.items()}
        recalls.append(", ".join(f"{name} {100 * found.mean():.1f}" for name, found in known.items() if len(found)))
    report.add("## Other metrics")
    report.add(
        "Of the test slides: mean ± population standard deviation over folds; balanced accuracy, AUPRC and the mean "
        "recall of each class in %."
    )
    _add_table(report, "other_metrics", settings, values, BY_SLIDE, {"recall": recalls})


def add_calibration(report: MarkdownReport, settings: Sequence[Setting]) -> None:
    """Expected calibration error and Brier score of slides."""
    values = [
        [
            {**found, BRIER.key: brier_score(fold.labels, fold.probabilities)}
            for found, fold in zip(_of_folds(setting), setting.folds.values(), strict=True)
        ]
        for setting in settings
    ]
    report.add("## Calibration")
    report.add("Of the test slides: mean ± population standard deviation over folds.")
    _add_table(report, "calibration", settings, values, CALIBRATION, {})


def _of_folds(setting: Setting) -> list[dict[str, float]]:
    return [more_metrics(fold.labels, fold.probabilities, setting.class_names) for fold in setting.folds.values()]


def _add_table(
    report: MarkdownReport,
    name: str,
    settings: Sequence[Setting],
    values: Sequence[Sequence[Mapping[str, float]]],
    measures: Sequence[Measure],
    texts: Mapping[str, Sequence[str]],
) -> None:
    """One row per setting. values: by setting and fold, the measures by their keys. texts: further columns."""
    rows, numbers = [], []
    for index, (setting, folds) in enumerate(zip(settings, values, strict=True)):
        place = [setting.label, setting.task, setting.feature_extractor, str(setting.shots)]
        place.append(f"{len(setting.folds)} of {setting.expected}")
        columns = [np.array([fold[measure.key] for fold in folds]) for measure in measures]
        more = [column[index] for column in texts.values()]
        rows.append([*place, *map(mean_and_std, columns, measures), *more])
        numbers.append([*place, *(value for column in columns for value in (column.mean(), column.std())), *more])
    titles = [measure.title for measure in measures]
    heads = [f"{measure.key}_{what}" for measure in measures for what in ("mean", "std")]
    table = table_of([*NAMES, *titles, *texts], rows, text_columns=3)
    report.add_table(name, table, pd.DataFrame(numbers, columns=[*NAMES, *heads, *texts]))
