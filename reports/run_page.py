"""The results of a run as one HTML file that needs nothing beside it: no server, no network."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from reports.finished_run import FinishedRun, arrays
from reports.plots import confusion_figure, data_uri, history_figure, reliability_figure, roc_figure
from reports.templating import page_template
from training.run_folder import METRICS
from utils.config import Config

METRIC_TITLES = {
    "test_auc": "test AUC", "test_f1": "test F1", "test_acc": "test accuracy",
    "val_auc": "validation AUC", "val_f1": "validation F1", "val_acc": "validation accuracy",
}  # fmt: skip


def render_results(run: FinishedRun, explanations: Mapping[str, str]) -> str:
    """The page of a run. explanations: slide_id -> address of its explanation page, for those that have one."""
    summary = pd.DataFrame([asdict(fold.result) for fold in run.folds.values()])
    metrics = summary[list(METRICS)]
    histories = {number: fold.history for number, fold in run.folds.items()}
    best_epochs = {number: fold.result.best_epoch for number, fold in run.folds.items()}
    rows = pd.concat(fold.predictions.assign(fold=number) for number, fold in run.folds.items())
    tests = rows[rows["split"] == "test"]
    by_fold = tests.groupby("fold") if len(run.folds) > 1 else []
    return page_template("results.html").render(
        decimals=decimals,
        run=run,
        metric_titles=METRIC_TITLES,
        results=summary.to_dict("records"),
        mean=metrics.mean().to_dict(),
        std=metrics.std(ddof=0).to_dict(),
        undefined=[METRIC_TITLES[name] for name in METRICS if metrics[name].isna().any()],
        history=data_uri(history_figure(histories, best_epochs)),
        pooled=figures(tests, run.class_names),
        num_test_slides=tests["slide_id"].nunique(),
        figures={f"Fold {number}": figures(table, run.class_names) for number, table in by_fold},
        rows=rows.sort_values(["fold", "split"], kind="stable").to_dict("records"),
        explanations=explanations,
        defaults=Config().to_dict(),
    )


def decimals(value: float, count: int) -> str:
    return "–" if pd.isna(value) else f"{value:.{count}f}"


def explanation_addresses(run: FinishedRun, folder: Path, page: Path) -> dict[str, str]:
    """Addresses, relative to the page, of <folder>/<slide_id>.html for the slides that have one."""
    slide_ids = {slide_id for fold in run.folds.values() for slide_id in fold.predictions["slide_id"]}
    way = Path(os.path.relpath(folder.resolve(), page.parent.resolve()))
    files = {slide_id: f"{slide_id}.html" for slide_id in slide_ids}
    return {slide_id: quote((way / file).as_posix()) for slide_id, file in files.items() if (folder / file).is_file()}


def figures(predictions: pd.DataFrame, class_names: list[str]) -> dict[str, str]:
    """Of test slides: title -> source of the image."""
    labels, probabilities = arrays(predictions, class_names)
    predicted = pd.Index(class_names).get_indexer(predictions["prediction"])
    return {
        "ROC curves": data_uri(roc_figure(labels, probabilities, class_names)),
        "Confusion matrix": data_uri(confusion_figure(labels, predicted, class_names)),
        "Calibration": data_uri(reliability_figure(labels, probabilities)),
    }
