"""Which runs make a cell, a row and a column of a table, from made-up runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.finished_runs import ExperimentEntry, FinishedRun
from reports.settings import build_tables
from tests.support.made_settings import accuracies, run_of_folds, setting
from utils.errors import UserError

A, B, C = (Path(f"/r/{letter}") for letter in "abc")


def run(path: Path, class_names: tuple[str, ...] = ("A", "B"), **options: Any) -> FinishedRun:
    return run_of_folds(path, {}, class_names, **{"task": "t", **options})


def test_a_row_stands_where_its_first_run_is_listed() -> None:
    runs = {A: run(A, seed=1), B: run(B, seed=2), C: run(C, model_type="ABMIL")}
    listed = {A: ("ours", 0), B: ("ours", 2), C: ("base", 1)}
    entries = {path: [ExperimentEntry(label, None, place)] for path, (label, place) in listed.items()}
    (table,) = build_tables(runs, entries)
    assert table.rows == ["ours", "base"]
    assert [one.seed for one in table.cells["ours", ("t", 16)].runs] == [1, 2]


def test_only_runs_without_an_entry_decide_how_they_are_told_apart() -> None:
    runs = {A: run(A, htcl="none"), B: run(B, seed=2), C: run(C, model_type="ABMIL", lr=0.5)}
    (table,) = build_tables(runs, {B: [ExperimentEntry("listed", None, 0)]})
    assert table.rows == ["listed", "ABMIL", "HiVE_MIL"]


def test_shots_are_columns_and_no_part_of_a_label() -> None:
    runs = {A: run(A, few_shot_num=16), B: run(B, few_shot_num=4), C: run(C, task="s")}
    (table,) = build_tables(runs, {})
    assert (table.rows, table.columns) == (["HiVE_MIL"], [("s", 16), ("t", 4), ("t", 16)])


def test_seeds_of_a_cell_have_the_same_classes() -> None:
    runs = {A: run(A, seed=1), B: run(B, ("A", "C"), seed=2)}
    with pytest.raises(UserError) as error:
        build_tables(runs, {})
    (fault,) = error.value.faults
    assert (fault.code, fault.where) == ("run.same_label", f"{A} and {B}")
    assert "differ in class names" in fault.found


def test_predictions_of_all_folds_and_seeds() -> None:
    labels, probabilities = setting("a", accuracies({1: [9, 8], 2: [3]})).test_predictions()
    assert labels.tolist() == 3 * [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    right = np.split(probabilities.argmax(1) == labels, 3)
    assert [int(part.sum()) for part in right] == [9, 8, 3]
