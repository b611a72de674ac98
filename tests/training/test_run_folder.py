"""The run's folder: what is written when, and what is refused."""

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from training.fold_result import FoldResult
from training.metrics import GRAPH_COLUMNS, RESULT_COLUMNS, Metrics
from training.run_folder import RunFolder
from training.run_record import RunRecord
from utils.config import Config
from utils.errors import Fault, UserError
from utils.sealed import write_sealed


def fold_result(fold: int) -> FoldResult:
    """Metrics that differ from each other and from fold to fold, in no round numbers."""
    values = np.random.default_rng(fold).random(9)
    more = {"test_ece": float(values[7]), "test_recall_A": nan, "test_patient_auc": float(values[8])}
    test, val = Metrics(*values[:3].tolist()), Metrics(*values[3:6].tolist())
    return FoldResult.of(fold, test, val, float(values[6]), best_epoch=fold, epochs=fold + 5, more=more)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def record(inputs: dict[str, str] | None = None, **options: Any) -> RunRecord:
    inputs = {"dataset_csv": "aa", "text_tower": "bb", "splits_0": "cc", **(inputs or {})}
    return RunRecord(Config(task="T", **options).to_dict(), ["A", "B"], 16, {}, inputs, {"torch": "9.9"})


@pytest.fixture
def opened(run: RunFolder) -> RunFolder:
    run.open(record())
    return run


def test_a_finished_fold_reads_as_it_was_written(opened: RunFolder) -> None:
    assert opened.finished(1) is None
    opened.finish(fold_result(1))
    assert opened.finished(1) == fold_result(1)
    assert opened.finished(0) is None


def test_resume_state_goes_when_the_fold_is_finished(opened: RunFolder) -> None:
    files = opened.training(1)
    for file in (files.state, files.checkpoint, files.history, opened.training(0).state):
        file.touch()
    opened.finish(fold_result(1))
    assert not files.state.exists()
    assert files.checkpoint.exists() and files.history.exists() and opened.training(0).state.exists()


def test_resume_state_that_a_killed_process_left_goes_when_the_finished_fold_is_met(opened: RunFolder) -> None:
    opened.finish(fold_result(1))
    state = opened.training(1).state
    state.write_bytes(b"state")
    assert opened.finished_folds([1], resume=True) == {1: fold_result(1)}
    assert not state.exists()


def test_clear_forgets_one_fold(opened: RunFolder) -> None:
    for fold in (0, 1):
        opened.finish(fold_result(fold))
        files = opened.training(fold)
        for file in (files.state, files.checkpoint, files.history, opened.predictions(fold)):
            file.touch()
    before = {path.name for path in opened.path.iterdir()}
    opened.clear(0)
    gone = before - {path.name for path in opened.path.iterdir()}
    assert gone == {"fold_0.json", "resume_0.pt", "s_0_checkpoint.pt", "history_0.csv", "predictions_0.csv"}
    opened.clear(0)  # nothing left to forget: no error


def check_tables(run: RunFolder, suffix: str, folds: list[int]) -> None:
    summary = pd.read_csv(run.path / f"summary{suffix}.csv")
    assert summary["fold"].tolist() == folds
    for row, fold in zip(summary.to_dict("records"), folds, strict=True):
        expected = {**vars(fold_result(fold)), "tested_epoch": fold}
        expected |= expected.pop("more")
        assert row == pytest.approx(expected, abs=1e-15, nan_ok=True)
    results = pd.read_csv(run.path / f"results{suffix}.csv")
    assert list(results) == [
        "metric",
        "test_auc",
        "test_f1",
        "test_acc",
        "val_auc",
        "val_f1",
        "val_acc",
        *GRAPH_COLUMNS,
        *fold_result(0).more,
    ]
    assert results["metric"].tolist() == ["mean", "std"]
    for name in [*RESULT_COLUMNS, "test_hit_ratio", "test_ece", "test_patient_auc"]:
        values = [{**vars(fold_result(fold)), **fold_result(fold).more}[name] for fold in folds]
        mean = sum(values) / len(values)
        std = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        assert results[name].tolist() == pytest.approx([mean, std], abs=1e-12)


def test_tables_of_all_folds(opened: RunFolder) -> None:
    for fold in range(3):
        opened.finish(fold_result(fold))
    table = opened.summarise([0, 1, 2], 3)
    check_tables(opened, "", [0, 1, 2])
    assert table.loc["mean", "test_auc"] == pytest.approx(np.mean([fold_result(fold).test_auc for fold in range(3)]))
    assert not list(opened.path.glob("*partial*"))


def test_tables_of_some_folds_and_then_of_all(opened: RunFolder) -> None:
    for fold in (1, 2):
        opened.finish(fold_result(fold))
    table = opened.summarise([1, 2], 3)
    check_tables(opened, "_partial_1_3", [1, 2])
    assert table.loc["mean", "val_f1"] == pytest.approx((fold_result(1).val_f1 + fold_result(2).val_f1) / 2)
    assert not (opened.path / "results.csv").exists()
    opened.finish(fold_result(0))
    table = opened.summarise([0], 3)
    check_tables(opened, "_partial_0_1", [0])
    check_tables(opened, "_partial_1_3", [1, 2])
    check_tables(opened, "", [0, 1, 2])
    assert table.loc["mean", "val_f1"] == pytest.approx(np.mean([fold_result(fold).val_f1 for fold in range(3)]))


def test_std_of_one_fold_is_zero(opened: RunFolder) -> None:
    opened.finish(fold_result(0))
    opened.summarise([0], 2)
    results = pd.read_csv(opened.path / "results_partial_0_1.csv", index_col="metric")
    assert (results.loc["std", list(RESULT_COLUMNS)] == 0).all()


def test_open_writes_the_record(run: RunFolder) -> None:
    run.open(record(lr=0.5))
    written = json.loads(run.config.read_text())
    fields = ["options", "class_names", "feature_dim", "descriptions", "inputs", "versions", "num_threads", "features"]
    fields += ["features_model"]
    assert list(written) == [*fields, "digests"] and list(written["digests"]) == fields
    assert written["options"]["lr"] == 0.5
    assert run.record() == record(lr=0.5)


def refusal(run: RunFolder, *given: Any) -> Fault:
    """The fault with which a folder is not opened; the folder is left as it was."""
    before = run.config.read_bytes()
    with pytest.raises(UserError) as error:
        run.open(*given)
    assert run.config.read_bytes() == before
    (fault,) = error.value.faults
    return fault


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.5}, "lr 0.0001, now 0.5"),
        ({"htcl": "none"}, "htcl"),
        ({"testing": True}, "testing"),
        ({"k": 3}, "k 5"),
    ],
)
def test_open_refuses_a_folder_of_another_run(run: RunFolder, options: dict[str, Any], named: str) -> None:
    run.open(record())
    fault = refusal(run, record(**options))
    assert (fault.code, fault.where) == ("run.other_settings", str(run.path))
    assert named in fault.found and "--results_dir" in fault.mend


def test_open_takes_options_without_effect(run: RunFolder) -> None:
    run.open(record())
    before = run.config.read_bytes()
    run.open(record(htcl="none"), {"htcl", "tgdf"})
    assert run.config.read_bytes() == before
    fault = refusal(run, record(htcl="none", lr=0.5), {"htcl"})
    assert "lr 0.0001, now 0.5" in fault.found and "htcl" not in fault.found


def test_open_refuses_changed_inputs(run: RunFolder) -> None:
    run.open(record())
    fault = refusal(run, record({"dataset_csv": "other"}))
    assert fault.code == "run.other_settings" and "dataset_csv has changed since" in fault.found


def test_open_takes_another_place_and_other_folds(run: RunFolder) -> None:
    run.open(record(k_end=1))
    later = record({"splits_1": "dd"}, k_start=1, data_root_dir="/elsewhere", resume=True, num_workers=4, device="cuda")
    del later.inputs["splits_0"]
    run.open(later)
    assert run.record().inputs == {"dataset_csv": "aa", "text_tower": "bb", "splits_0": "cc", "splits_1": "dd"}
    assert run.record().options["k_end"] == 1


def test_a_run_of_a_version_that_lacked_an_option_had_its_default(run: RunFolder) -> None:
    run.open(record())
    content = json.loads(run.config.read_text())
    del content["options"]["num_neighbours"]
    write_sealed(run.config, content)
    run.open(record())
    assert refusal(run, record(num_neighbours=3)).code == "run.other_settings"


def test_a_lock_keeps_another_process_out(run: RunFolder) -> None:
    with run.lock("fold_0"), pytest.raises(UserError) as error, RunFolder(run.path).lock("fold_0"):
        pass
    assert [(fault.code, fault.where) for fault in error.value.faults] == [("run.locked", str(run.path))]
