"""Sections of a report on made-up settings: calibration by hand, what the figures are given, names of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports.compose import settings_by_file
from reports.markdown import MarkdownReport
from reports.metric_sections import add_calibration
from reports.sections import add_figures, missing_class_notes
from reports.settings import ResultsTable, Setting
from tests.support.made_settings import accuracies, finished_fold, setting


def table_of(settings: Sequence[Setting]) -> ResultsTable:
    labels = [one.label for one in settings]
    cells = {(one.label, ("task", 4)): one for one in settings}
    return ResultsTable(None, "plip", labels, [("task", 4)], cells)


def test_calibration_by_hand(tmp_path: Path) -> None:
    """Every slide is predicted with 0.9; a wrong one has a Brier score of 1.62, a right one of 0.02."""
    report = MarkdownReport(tmp_path)
    add_calibration(report, [setting("ours", accuracies({1: [9, 6]}))])
    (row,) = pd.read_csv(tmp_path / "tables" / "calibration.csv").to_dict("records")
    assert (row["model"], row["folds"]) == ("ours", "2 of 2")
    assert (row["ece_mean"], row["ece_std"]) == pytest.approx((0.15, 0.15))
    assert (row["brier_mean"], row["brier_std"]) == pytest.approx((0.42, 0.24))
    assert "| ECE | Brier score |" in report.parts[-1]
    assert "| 0.1500 ± 0.1500 | 0.4200 ± 0.2400 |" in report.parts[-1]


def test_figures_show_labels_against_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, tuple[Any, ...]] = {}

    def figure(name: str, given: tuple[Any, ...]) -> Figure:
        drawn[name] = given
        return Figure()

    for name in ("roc", "confusion"):
        monkeypatch.setattr(f"reports.sections.{name}_figure", lambda *given, name=name: figure(name, given))
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    one = setting("ours", {1: {0: finished_fold(["a", "b", "c"], labels, probabilities)}})
    add_figures(MarkdownReport(tmp_path), {"ours": one})
    assert [column.tolist() for column in drawn["confusion"][:2]] == [[0, 0, 1], [0, 1, 1]]
    assert (drawn["roc"][0].tolist(), drawn["roc"][1].tolist()) == (labels.tolist(), probabilities.tolist())
    assert drawn["roc"][2] == drawn["confusion"][2] == ["A", "B"]
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"roc_ours.png", "confusion_ours.png"}


def test_settings_whose_names_differ_only_in_signs_have_files_of_their_own() -> None:
    settings = [setting(label, accuracies({1: [5]})) for label in ("w/o A", "w+o a", "w o A")]
    found = settings_by_file([table_of(settings)])
    assert list(found.values()) == settings
    assert len({name.lower() for name in found}) == 3


def test_settings_without_a_finished_fold_have_no_file() -> None:
    settings = [setting("begun", {1: {}}), setting("done", accuracies({1: [5]}))]
    assert [one.label for one in settings_by_file([table_of(settings)]).values()] == ["done"]


def test_folds_whose_test_slides_lack_a_class_are_told_together() -> None:
    """Of class A alone in two folds; the third has both."""
    a, both = np.zeros(2, dtype=int), np.array([0, 1])
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6]])
    folds = {number: finished_fold(["a", "b"], y, probabilities) for number, y in enumerate((a, both, a))}
    (note,) = missing_class_notes(setting("ours", {1: folds}))
    assert "test of fold 0 (seed 1), 2 (seed 1): no labelled slide of 1 of 2 classes ('B')" in note
    assert missing_class_notes(setting("ours", {1: {1: folds[1]}})) == []
