"""predict.py with several folds, without a table, from slide files, and after an interruption."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

import predict
import training.prediction
from benchmarks.pyramids import tissue, write_pyramid
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.faults import check_fault

blank_figures = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def trained(simulated: SimulatedTask, whole: Path) -> Path:
    return simulated.run_folder(whole)


@pytest.fixture
def checkpoints(trained: Path) -> list[str]:
    return [str(trained / f"s_{fold}_checkpoint.pt") for fold in range(2)]


def predicted(run_main: RunMain, output: Path, *options: str) -> tuple[pd.DataFrame, str]:
    code, out, err = run_main(["--output", str(output), *options], "predict")
    assert code == 0, err
    return pd.read_csv(output), out


@blank_figures
def test_folds_are_averaged_and_their_spread_shown(run_main: RunMain, checkpoints: list[str], tmp_path: Path) -> None:
    alone = [predicted(run_main, tmp_path / "one.csv", "--checkpoint", file)[0] for file in checkpoints]
    both, _ = predicted(run_main, tmp_path / "both.csv", "--checkpoint", *checkpoints)
    for name in ("SIMULATED_A", "SIMULATED_B"):
        values = np.stack([table[f"prob_{name}"] for table in alone])
        np.testing.assert_allclose(both[f"prob_{name}"], values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(both[f"std_{name}"], np.abs(values[0] - values[1]) / 2, atol=1e-12)
        assert f"std_{name}" not in alone[0]
    best = np.where(both["prob_SIMULATED_A"] > both["prob_SIMULATED_B"], "SIMULATED_A", "SIMULATED_B")
    assert both["prediction"].tolist() == best.tolist()


def test_metrics_and_plots_of_labelled_slides(run_main: RunMain, checkpoints: list[str], tmp_path: Path) -> None:
    table, out = predicted(run_main, tmp_path / "p.csv", "--checkpoint", checkpoints[0])
    is_b = table["label"] == "SIMULATED_B"
    metrics = json.loads((tmp_path / "p_metrics.json").read_text())
    assert metrics["auc"] == pytest.approx(roc_auc_score(is_b, table["prob_SIMULATED_B"]))
    assert metrics["f1"] == pytest.approx(f1_score(table["label"], table["prediction"], average="macro"))
    assert metrics["acc"] == pytest.approx((table["label"] == table["prediction"]).mean())
    assert f"auc {metrics['auc']:.4f}" in out
    for name in ("roc", "confusion", "calibration"):
        with Image.open(tmp_path / f"p_{name}.png") as image:
            assert min(image.size) > 200


@blank_figures
def test_all_slides_with_features_where_there_is_no_table(
    run_main: RunMain, simulated: SimulatedTask, checkpoints: list[str], tmp_path: Path
) -> None:
    """A task of new slides: a folder of features, nothing else."""
    shutil.copytree(simulated.features, tmp_path / "data" / "new_tinyclip")
    options = ("--task", "new", "--data_root_dir", str(tmp_path / "data"))
    table, out = predicted(run_main, tmp_path / "new.csv", "--checkpoint", checkpoints[0], *options)
    own, _ = predicted(run_main, tmp_path / "own.csv", "--checkpoint", checkpoints[0])
    assert "all 20 slides with features are taken, without labels" in out
    assert table["label"].isna().all()
    assert not (tmp_path / "new_metrics.json").exists()
    assert table["case_id"].tolist() == table["slide_id"].tolist()
    dropped = ["label", "case_id"]
    expected = own.set_index("slide_id").drop(columns=dropped).loc[table["slide_id"]]
    pd.testing.assert_frame_equal(table.set_index("slide_id").drop(columns=dropped), expected)


@blank_figures
def test_an_interrupted_call_goes_on(
    run_main: RunMain, checkpoints: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished slides are not predicted again, and the table is that of an undisturbed call."""
    whole, _ = predicted(run_main, tmp_path / "whole.csv", "--checkpoint", *checkpoints)
    evaluate, seen = training.prediction.evaluate, []

    def counted(model, bags, *rest):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append([slide.slide_id for slide in bags.slides])
        return evaluate(model, bags, *rest)

    monkeypatch.setattr(training.prediction, "evaluate", counted)
    monkeypatch.setattr(training.prediction, "SLIDES_A_CHUNK", 7)
    output = tmp_path / "p.csv"
    given = ["--checkpoint", *checkpoints, "--output", str(output)]
    with pytest.raises(KeyboardInterrupt):
        predict.main(given)
    assert not output.exists()
    first = [name for chunk in seen for name in chunk]
    seen.clear()
    code, _, err = run_main([*given, "--resume"], "predict")
    assert code == 0, err
    again = [name for chunk in seen for name in chunk]
    assert not set(first) & set(again)
    assert len(set(first) | set(again)) == 20
    pd.testing.assert_frame_equal(pd.read_csv(output), whole)
    assert not list(tmp_path.glob(".*partial*"))


@blank_figures
def test_resuming_takes_no_slide_whose_features_changed(
    run_main: RunMain, simulated: SimulatedTask, checkpoints: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted call on other features of the same slides leaves nothing behind."""
    shutil.copytree(simulated.root / "features", tmp_path / "other")
    for file in (tmp_path / "other" / "simulated_tinyclip" / "tinyclip_5x").glob("*.h5"):
        with h5py.File(file, "r+") as opened:
            opened["features"][:] = -opened["features"][:]
    given = ["--checkpoint", checkpoints[0]]
    whole, _ = predicted(run_main, tmp_path / "whole.csv", *given)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # as if it had stopped before its end
    predicted(run_main, tmp_path / "p.csv", *given, "--data_root_dir", str(tmp_path / "other"))
    monkeypatch.undo()
    assert (tmp_path / ".p.csv.partial.json").exists()
    table, _ = predicted(run_main, tmp_path / "p.csv", *given, "--resume")
    pd.testing.assert_frame_equal(table, whole)


@blank_figures
def test_resuming_with_other_options(
    run_main: RunMain,
    faults_of: FaultsOf,
    simulated: SimulatedTask,
    checkpoints: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = shutil.copy(checkpoints[0], tmp_path / "bare.pt")
    given = ["--checkpoint", str(bare), *simulated.options(tmp_path / "results")]
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    predicted(run_main, tmp_path / "p.csv", *given)
    monkeypatch.undo()
    again = [*given, "--output", str(tmp_path / "p.csv"), "--resume", "--top_k_high", "3"]
    (fault,) = faults_of(again, "predict")
    check_fault(fault, "predictions.other_models", tmp_path / ".p.csv.partial.json")


@blank_figures
def test_metrics_of_an_earlier_call_do_not_stay(
    run_main: RunMain, simulated: SimulatedTask, checkpoints: list[str], tmp_path: Path
) -> None:
    predicted(run_main, tmp_path / "p.csv", "--checkpoint", checkpoints[0])
    assert len(list(tmp_path.glob("p_*"))) == 5
    pd.read_csv(simulated.root / "simulated.csv").drop(columns="label").to_csv(tmp_path / "new.csv", index=False)
    predicted(run_main, tmp_path / "p.csv", "--checkpoint", checkpoints[0], "--dataset_csv", str(tmp_path / "new.csv"))
    assert [file.name for file in tmp_path.glob("p_*")] == ["p_patients.csv"]


@blank_figures
def test_slides_of_the_training_are_told_of(
    run_main: RunMain, simulated: SimulatedTask, checkpoints: list[str], trained: Path, tmp_path: Path
) -> None:
    _, out = predicted(run_main, tmp_path / "p.csv", "--checkpoint", checkpoints[0])
    split = pd.read_csv(trained / "splits_0.csv")
    number = int(split["train"].notna().sum() + split["val"].notna().sum())
    assert f"warning: {number} of 20 slides were training or validation slides" in out
    table = pd.read_csv(simulated.root / "simulated.csv")
    table[table["slide_id"].isin(split["test"])].to_csv(tmp_path / "test.csv", index=False)
    given = ["--checkpoint", checkpoints[0], "--dataset_csv", str(tmp_path / "test.csv")]
    _, out = predicted(run_main, tmp_path / "p.csv", *given)
    assert "warning" not in out


@blank_figures
def test_resuming_with_other_checkpoints(faults_of: FaultsOf, checkpoints: list[str], tmp_path: Path) -> None:
    (tmp_path / ".p.csv.partial.json").write_text(json.dumps({"made_by": "others", "slides": {}}))
    given = ["--checkpoint", checkpoints[0], "--output", str(tmp_path / "p.csv"), "--resume"]
    (fault,) = faults_of(given, "predict")
    check_fault(fault, "predictions.other_models", tmp_path / ".p.csv.partial.json", "or predict without --resume")


@blank_figures
def test_checkpoints_of_different_runs(faults_of: FaultsOf, checkpoints: list[str], tmp_path: Path) -> None:
    shutil.copy(checkpoints[1], tmp_path / "s_1_checkpoint.pt")
    (fault,) = faults_of(["--checkpoint", checkpoints[0], str(tmp_path / "s_1_checkpoint.pt")], "predict")
    assert (fault.code, fault.expected) == ("checkpoint.several_runs", "different folds of one run's folder")


@blank_figures
def test_from_slide_files(run_main: RunMain, simulated: SimulatedTask, checkpoints: list[str], tmp_path: Path) -> None:
    """Features are made by the run's own encoder; a second call makes none."""
    slides = tmp_path / "slides"
    slides.mkdir()
    for seed, name in enumerate(("first", "second")):
        write_pyramid(slides / f"{name}.tiff", tissue(2048, 3072, [(0, 0, 2048, 2048)], seed), power=20)
    options = ["--checkpoint", *checkpoints, "--wsi-dir", str(slides), "--task", "new"]
    options += ["--data_root_dir", str(tmp_path / "data"), "--device", "cpu"]
    table, _ = predicted(run_main, tmp_path / "p.csv", *options)
    assert table["slide_id"].tolist() == ["first", "second"]
    np.testing.assert_allclose(table[["prob_SIMULATED_A", "prob_SIMULATED_B"]].sum(axis=1), 1)
    files = sorted((tmp_path / "data").rglob("*.h5"))
    made = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 6
    again, _ = predicted(run_main, tmp_path / "p.csv", *options)
    assert [file.stat().st_mtime_ns for file in files] == made
    pd.testing.assert_frame_equal(again, table)
