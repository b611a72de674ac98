"""What the report refuses, with nothing written."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import FaultsOf, RunMain
from tests.support.earlier import forget_digests
from tests.support.faults import Refused
from tests.support.made_results import folds_of
from tests.support.run_folders import write_run
from utils.errors import Fault


@pytest.fixture
def refused(faults_of: FaultsOf, tmp_path: Path) -> Refused:
    """Results -> the faults with which a report on them ends, with nothing written."""

    def run(*results: Path) -> list[Fault]:
        faults = faults_of([*results, "--output-dir", tmp_path / "report", "--resamples", 5], "report_results")
        assert not (tmp_path / "report").exists()
        return faults

    return run


def test_no_run_is_there(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "results" / "tinyclip").mkdir(parents=True)
    (tmp_path / "results" / "tinyclip" / "config.json").write_text('{"model_type": "clip"}')
    for folder, code in ((tmp_path / "results", "run.missing"), (tmp_path / "nowhere", "folder.missing")):
        (fault,) = refused(folder)
        assert (fault.code, fault.where) == (code, str(folder))


def test_all_damage_is_listed(results: Path, tmp_path: Path, refused: Refused) -> None:
    best, middle, worst = (sorted((results / name).rglob("*_s1"))[0] for name in ("best", "middle", "worst"))
    table = pd.read_csv(best / "predictions_0.csv")
    test = table["split"] == "test"
    table.loc[test, "prob_LUAD"] = table.loc[test, "prob_LUAD"].to_numpy()[::-1]
    table.to_csv(best / "predictions_0.csv", index=False)
    (best / "predictions_1.csv").unlink()
    (middle / "predictions_2.csv").write_bytes((middle / "predictions_2.csv").read_bytes()[:-9])
    (middle / "config.json").write_text("{")
    (worst / "fold_0.json").write_text("{}")
    (worst / "splits_1.csv").write_text((worst / "splits_2.csv").read_text())
    faults = refused(results, tmp_path / "nowhere")
    damaged = [best / "predictions_0.csv", best / "predictions_1.csv", middle / "config.json", worst / "fold_0.json"]
    for file in (*damaged, worst / "splits_1.csv", tmp_path / "nowhere"):
        assert len([fault for fault in faults if str(file) in str(fault)]) == 1
    assert len(faults) == 6


def test_negative_probabilities(results: Path, refused: Refused) -> None:
    """They add up to 1."""
    forget_digests(results)
    file = next((results / "worst").rglob("*_s1")) / "predictions_2.csv"
    table = pd.read_csv(file)
    table.loc[0, ["prob_LUAD", "prob_LUSC", "prob_OTHER"]] = [1.5, -0.5, 0]
    table.to_csv(file, index=False)
    (fault,) = refused(results)
    assert (fault.code, fault.where) == ("predictions.sum", str(file))


@pytest.mark.parametrize("cut", [16, 60, 400])
def test_truncated_predictions(results: Path, cut: int, refused: Refused) -> None:
    forget_digests(results)
    file = next((results / "worst").rglob("*_s1")) / "predictions_2.csv"
    file.write_bytes(file.read_bytes()[:-cut])
    (fault,) = refused(results)
    assert fault.code.startswith("predictions.") and fault.where == str(file)


def test_splits_that_were_not_tested(results: Path, refused: Refused) -> None:
    run = next((results / "worst").rglob("*_s1"))
    forget_digests(results)
    shutil.copy(run / "splits_2.csv", run / "splits_1.csv")
    missing = next((results / "best").rglob("*_s1")) / "splits_0.csv"
    missing.unlink()
    absent, other = refused(results)
    assert f"{missing}: no such split file" in str(absent)
    assert (other.code, other.where) == ("predictions.other_split", str(run / "predictions_1.csv"))
    assert "splits_1.csv" in other.found and "fold_1.json" in other.mend


def test_runs_that_cannot_be_told_apart(results: Path, table: Path, refused: Refused) -> None:
    shutil.copytree(results / "best", results / "copy")
    faults = refused(results)
    assert [fault.code for fault in faults] == ["run.same_seed"] * 2
    assert faults[0].found == "found two runs labelled 'HiVE_MIL' with seed 1"
    shutil.rmtree(results / "copy")
    paths = [file.parent.relative_to(results).as_posix() for file in sorted(results.rglob("*/config.json"))]
    entries = [{"label": "one", "preset": None, "path": path} for path in paths if path.endswith("MIL_4_s1")]
    write_run(results / "lr", table, folds_of(table), 0.5, seed=3, lr=0.5)
    entries.append({"label": "one", "path": "lr/nsclc/plip/4/nsclc_plip_HiVE_MIL_4_s3"})
    (results / "experiment.json").write_text(json.dumps({"runs": entries[1:2] + entries[-1:]}))
    (fault,) = refused(results)
    assert fault.code == "run.same_label"
    assert fault.found == "both are labelled 'one', but differ in htcl, lr, not in the seed alone"


@pytest.mark.parametrize("text", ["[]", '{"runs": [{"label": "a"}]}', '{"runs": 3}'])
def test_a_faulty_experiment_file(results: Path, text: str, refused: Refused) -> None:
    (results / "experiment.json").write_text(text)
    (fault,) = refused(results)
    assert (fault.code, fault.where) == ("experiment.unreadable", str(results / "experiment.json"))


def test_an_experiment_file_that_is_not_json(results: Path, refused: Refused) -> None:
    (results / "experiment.json").write_text("{")
    (fault,) = refused(results)
    assert (fault.code, fault.where) == ("json.unreadable", str(results / "experiment.json"))


def test_an_unknown_reference(report: RunMain, results: Path, tmp_path: Path) -> None:
    code, output, errors = report(results, "--reference", "HiVE")
    expected = "expected one of 'ABMIL', 'HiVE_MIL', 'HiVE_MIL (htcl none)'"
    assert (code, output, errors) == (2, "", f"error: --reference HiVE: no such row; {expected}\n")
    assert not (tmp_path / "report").exists()
