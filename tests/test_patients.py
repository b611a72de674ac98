"""Metrics of patients, from training to reports, and the metric that the best epoch is chosen by."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import RunMain, SimulatedTask
from training.loop import error_of
from training.metrics import classification_metrics


@pytest.fixture(scope="module")
def table(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of slides, in which two slides of a part of each fold at a time are one patient's."""
    slides = pd.read_csv(simulated.root / "simulated.csv")
    parts = [pd.read_csv(file) for file in sorted(simulated.split_dir.glob("splits_*.csv"))]
    homes = {
        slide_id: [name for part in parts for name in ("train", "val", "test") if slide_id in set(part[name])]
        for slide_id in slides["slide_id"]
    }
    slides["home"] = [" ".join([*homes[row.slide_id], row.label]) for row in slides.itertuples()]
    slides["case_id"] = slides["home"] + (slides.groupby("home").cumcount() // 2).astype(str)
    file = tmp_path_factory.mktemp("patients") / "table.csv"
    slides.drop(columns="home").to_csv(file, index=False)
    assert slides["case_id"].value_counts().max() == 2
    return file


def by_hand(predictions: pd.DataFrame, pooling: str) -> tuple[list[int], list[list[float]]]:
    """Labels and probabilities of the test patients, in loops."""
    tested = predictions[predictions["split"] == "test"]
    columns = [name for name in tested if name.startswith("prob_")]
    labels, pooled = [], []
    for case_id in tested["case_id"].drop_duplicates():
        slides = tested[tested["case_id"] == case_id]
        labels.append(columns.index(f"prob_{slides['label'].iloc[0]}"))
        values = [getattr(slides[name], pooling)() for name in columns]
        pooled.append([value / sum(values) for value in values])
    return labels, pooled


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_run_tells_metrics_of_patients(
    simulated: SimulatedTask, table: Path, run_main: RunMain, tmp_path: Path, pooling: str
) -> None:
    more = ("--model_type", "MeanPooling", "--max_epochs", "2", "--dataset_csv", str(table))
    given = simulated.options(tmp_path, *more, "--patient_pooling", pooling)
    assert run_main(given)[0] == 0
    [run] = {file.parent for file in tmp_path.rglob("results.csv")}
    summary, results = pd.read_csv(run / "summary.csv"), pd.read_csv(run / "results.csv", index_col="metric")
    for fold in (0, 1):
        labels, pooled = by_hand(pd.read_csv(run / f"predictions_{fold}.csv"), pooling)
        assert 1 < len(labels) < (pd.read_csv(run / f"predictions_{fold}.csv")["split"] == "test").sum()
        expected = classification_metrics(np.array(labels), np.array(pooled))
        found = summary.loc[fold]
        assert tuple(found[["test_patient_auc", "test_patient_f1", "test_patient_acc"]]) == pytest.approx(expected)
    assert results.loc["mean", "test_patient_auc"] == pytest.approx(summary["test_patient_auc"].mean())
    old = ["test_auc", "test_f1", "test_acc", "val_auc", "val_f1", "val_acc", "test_hit_ratio"]
    assert list(results)[: len(old)] == old
    assert {"test_balanced_acc", "test_log_loss", "test_ece", "test_auprc", "test_recall_SIMULATED_A"} <= set(results)

    if pooling == "mean":
        checkpoint = ["--checkpoint", str(run / "s_0_checkpoint.pt"), "--output", str(tmp_path / "p.csv")]
        code, said, _ = run_main(checkpoint, "predict")
        assert code == 0 and "by patient (" in said
        slides, patients = pd.read_csv(tmp_path / "p.csv"), pd.read_csv(tmp_path / "p_patients.csv")
        assert patients["slides"].sum() == len(slides) and len(patients) == slides["case_id"].nunique()
        record = json.loads((tmp_path / "p_metrics.json").read_text())
        assert record["by_patient"]["patients"] == len(patients) and 0 <= record["by_patient"]["auc"] <= 1


def test_reports_tell_metrics_of_patients(
    simulated: SimulatedTask, table: Path, run_main: RunMain, tmp_path: Path
) -> None:
    """They read the patients of the table, so that results of earlier versions, which tests/support/run_folders.py
    makes, have the section too."""
    given = ("--model_type", "MeanPooling", "--max_epochs", "2", "--dataset_csv", str(table))
    assert run_main(simulated.options(tmp_path / "runs", *given))[0] == 0
    code, _, said = run_main([str(tmp_path / "runs"), "--output-dir", str(tmp_path / "report")], "report_results")
    assert code == 0, said
    found = pd.read_csv(tmp_path / "report" / "tables" / "by_patient.csv").iloc[0]
    [run] = {file.parent for file in (tmp_path / "runs").rglob("results.csv")}
    summary = pd.read_csv(run / "summary.csv")
    assert found["auc_mean"] == pytest.approx(summary["test_patient_auc"].mean())
    others = pd.read_csv(tmp_path / "report" / "tables" / "other_metrics.csv").iloc[0]
    assert others["log_loss_mean"] == pytest.approx(summary["test_log_loss"].mean())
    for heading in ("## By patient", "## Other metrics", "## Calibration"):
        assert heading in (tmp_path / "report" / "report.md").read_text()


def test_the_error_of_an_epoch() -> None:
    row = {"val_acc": 0.75, "val_auc": 0.9, "val_loss": 1.5}
    assert [error_of(row, name) for name in row] == pytest.approx([0.25, 0.1, 1.5])
    assert error_of({"val_auc": float("nan")}, "val_auc") == float("inf")


@pytest.mark.parametrize("metric", ["val_acc", "val_loss", "val_auc"])
def test_the_best_epoch_is_that_of_the_metric(
    simulated: SimulatedTask, run_main: RunMain, tmp_path: Path, metric: str
) -> None:
    """The first of the best."""
    more = ("--model_type", "MeanPooling", "--max_epochs", "6", "--early_stopping", "--k_end", "1")
    assert run_main(simulated.options(tmp_path, *more, "--checkpoint_metric", metric))[0] == 0
    [file] = tmp_path.rglob("history_0.csv")
    history = pd.read_csv(file)
    best = history[metric].idxmin() if metric == "val_loss" else history[metric].idxmax()
    assert pd.read_csv(file.parent / "summary_partial_0_1.csv").loc[0, "best_epoch"] == best
