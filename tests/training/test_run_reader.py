"""The reader of a run's folder: what it makes of config.json and of the result of a fold."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.earlier import forget_digests
from tests.support.made_page import write_made_up_run
from training.fold_result import FoldResult
from training.metrics import Metrics
from training.run_folder import RunFolder
from training.run_reader import RunReader
from training.run_record import RunRecord
from utils.config import Config
from utils.errors import Fault, UserError
from utils.sealed import DIGESTS, seal, write_sealed


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of classes A and B, whose fold 0 of 2 is finished."""
    return write_made_up_run(tmp_path / "run", ["A", "B"], 2, [0], lr=0.5)


def fault_of(run: RunReader) -> Fault:
    with pytest.raises(UserError) as error:
        run.record()
    (fault,) = error.value.faults
    return fault


def test_fold_result_keeps_test_and_val_apart() -> None:
    result = FoldResult.of(2, Metrics(0.1, 0.2, 0.3), Metrics(0.4, 0.5, 0.6), 0.7, best_epoch=8, epochs=9)
    assert (result.test_auc, result.test_f1, result.test_acc) == (0.1, 0.2, 0.3)
    assert (result.val_auc, result.val_f1, result.val_acc) == (0.4, 0.5, 0.6)
    assert (result.fold, result.test_hit_ratio, result.best_epoch, result.epochs) == (2, 0.7, 8, 9)


def test_a_record_reads_as_it_was_written(run: RunFolder) -> None:
    assert run.holds_run()
    assert run.record() == RunRecord(
        Config(task="made up", k=2, lr=0.5).to_dict(), ["A", "B"], None, {}, {}, {"torch": "9.9"}
    )


def test_what_an_older_record_lacks_has_its_default(run: RunFolder) -> None:
    content = json.loads(run.config.read_text())
    del content["options"]["tgdf"], content["versions"], content["feature_dim"], content["num_threads"]
    write_sealed(run.config, {**content, "of a later version": 3})
    record = run.record()
    assert (record.options["tgdf"], record.options["lr"]) == (Config.tgdf, 0.5)
    assert (record.versions, record.feature_dim, record.num_threads) == ({}, None, None)


@pytest.mark.parametrize("missing", ["options", "class_names", "descriptions", "inputs"])
def test_a_config_of_another_program_is_refused(run: RunFolder, missing: str) -> None:
    run.fold_result(0).unlink()
    content = json.loads(run.config.read_text())
    del content[missing], content[DIGESTS]
    for foreign in (content, [], None, 3):
        run.config.write_text(json.dumps(foreign))
        assert not run.holds_run()
        fault = fault_of(run)
        assert (fault.code, fault.where) == ("run.foreign", str(run.config))


@pytest.mark.parametrize(
    ("name", "value"),
    [("options", []), ("class_names", {}), ("descriptions", 3), ("inputs", None), ("class_names", [])],
)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_damaged_record_is_refused(run: RunFolder, name: str, value: Any, is_sealed: bool) -> None:
    if not is_sealed:
        forget_digests(run.path)
    content = json.loads(run.config.read_text())
    run.config.write_text(json.dumps({**content, name: value}))
    fault = fault_of(run)
    assert (fault.code, fault.where) == ("run.unreadable", str(run.config))
    assert name in fault.found


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert not RunReader(folder).holds_run()
        fault = fault_of(RunReader(folder))
        assert (fault.code, fault.where) == ("run.missing", str(folder))


def test_finished_folds_read_as_they_were_written(run: RunFolder) -> None:
    result = run.finished(0)
    assert result and (result.fold, result.epochs) == (0, 4)
    assert run.finished(1) is None
    predictions = run.read_predictions(result, ["A", "B"])
    assert list(predictions) == ["split", "slide_id", "label", "prediction", "prob_A", "prob_B"]
    assert predictions["split"].tolist() == ["val"] * 12 + ["test"] * 12
    assert run.read_history(result)["epoch"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("change", [{"fold": 1}, {"test_auc": "0.5"}, {"epochs": None}, {"more": 1}])
def test_a_damaged_result_is_refused(run: RunFolder, change: dict[str, Any]) -> None:
    file = run.fold_result(0)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError) as error:
        run.finished(0)
    assert [(fault.code, fault.where) for fault in error.value.faults] == [("run.unreadable_result", str(file))]


def test_what_a_fold_has_not_got_is_null_in_its_result(run: RunFolder) -> None:
    """Which a file of an earlier version has as NaN."""
    result, file = run.finished(0), run.fold_result(0)
    assert result and math.isnan(result.test_hit_ratio)
    content = json.loads(file.read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert content["test_hit_ratio"] is None
    file.write_text(json.dumps(seal({**content, "test_hit_ratio": math.nan})))
    assert repr(run.finished(0)) == repr(result)
