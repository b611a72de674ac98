"""main.py end to end on the simulated task: what a run writes, and that it learns."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import main
from tests.conftest import RunMain, SimulatedTask
from tests.support.run_contents import CLASSES, METRICS, files_below
from training.metrics import GRAPH_COLUMNS
from utils.config import Config

# ------------------------------------------------------------------------------------------------ files of a run


def test_files_of_a_run(simulated: SimulatedTask, whole: Path) -> None:
    folder = simulated.run_folder(whole)
    expected = {"config.json", "summary.csv", "results.csv"}
    for k in range(2):
        expected |= {f"splits_{k}.csv", f"s_{k}_checkpoint.pt", f"history_{k}.csv", f"predictions_{k}.csv"}
    found = set(files_below(folder))
    assert found >= expected
    # no state to resume from, no temporary files; the folds' own results are what --resume reads
    assert {name for name in found - expected if not name.startswith(".")} == {"fold_0.json", "fold_1.json"}
    others = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert {name for name in others if not name.startswith("simulated/tinyclip/4/")} <= {
        "simulated/tinyclip/checked_features.json"
    }


def test_config_json(simulated: SimulatedTask, whole: Path) -> None:
    record = json.loads((simulated.run_folder(whole) / "config.json").read_text())
    config = Config(**main.parse(simulated.options(whole))[1])
    assert Config(**record["options"]) == config
    assert record["class_names"] == CLASSES
    assert record["descriptions"] == json.loads((simulated.root / "simulated.json").read_text())
    assert record["versions"]["torch"] == torch.__version__


def test_splits_are_kept_as_they_were_given(simulated: SimulatedTask, whole: Path) -> None:
    for k in range(2):
        written = pd.read_csv(simulated.run_folder(whole) / f"splits_{k}.csv", index_col=0, keep_default_na=False)
        given = pd.read_csv(simulated.split_dir / f"splits_{k}.csv", index_col=0, keep_default_na=False)
        pd.testing.assert_frame_equal(written, given)


def test_history_has_every_epoch(simulated: SimulatedTask, whole: Path) -> None:
    summary = pd.read_csv(simulated.run_folder(whole) / "summary.csv", index_col="fold")
    for k in range(2):
        history = pd.read_csv(simulated.run_folder(whole) / f"history_{k}.csv")
        assert history["epoch"].tolist() == [0, 1, 2]
        assert np.isfinite(history.to_numpy()).all()
        # loss = bag + 0.5 HTCL, in the means too
        expected = history["train_bag_loss"] + 0.5 * history["train_htcl_loss"]
        np.testing.assert_allclose(history["train_loss"], expected, rtol=1e-6)
        assert summary.loc[k, "best_epoch"] == history["val_acc"].idxmax()  # the first of the best
        assert (summary.loc[k, "epochs"], summary.loc[k, "tested_epoch"]) == (3, 2)  # the last one is tested
        for name in ("val_acc", "val_auc", "val_f1"):
            assert summary.loc[k, name] == history[name][2]


def test_predictions(simulated: SimulatedTask, whole: Path) -> None:
    labels = pd.read_csv(simulated.root / "simulated.csv", index_col="slide_id")["label"]
    for k in range(2):
        table = pd.read_csv(simulated.run_folder(whole) / f"predictions_{k}.csv")
        assert list(table) == [
            "split",
            "slide_id",
            "label",
            "prediction",
            "prob_SIMULATED_A",
            "prob_SIMULATED_B",
            "case_id",
        ]
        split = pd.read_csv(simulated.split_dir / f"splits_{k}.csv")
        for name in ("val", "test"):
            rows = table[table["split"] == name]
            assert rows["slide_id"].tolist() == split[name].dropna().tolist()
        assert set(table["split"]) == {"val", "test"}
        assert (table["label"].to_numpy() == labels[table["slide_id"]].to_numpy()).all()
        probabilities = table[[f"prob_{name}" for name in CLASSES]].to_numpy()
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
        assert table["prediction"].tolist() == [CLASSES[i] for i in probabilities.argmax(1)]


def test_summary_follows_from_the_predictions(simulated: SimulatedTask, whole: Path) -> None:
    summary = pd.read_csv(simulated.run_folder(whole) / "summary.csv", index_col="fold")
    assert summary.index.tolist() == [0, 1]
    for k in range(2):
        table = pd.read_csv(simulated.run_folder(whole) / f"predictions_{k}.csv")
        for split in ("val", "test"):
            rows = table[table["split"] == split]
            expected = {
                "auc": roc_auc_score(rows["label"] == "SIMULATED_B", rows["prob_SIMULATED_B"]),
                "f1": f1_score(rows["label"], rows["prediction"], average="macro"),
                "acc": accuracy_score(rows["label"], rows["prediction"]),
            }
            for name, value in expected.items():
                assert summary.loc[k, f"{split}_{name}"] == pytest.approx(value, abs=1e-12)
        assert 0 <= summary.loc[k, "test_hit_ratio"] <= 1


def test_results_follow_from_the_summary(simulated: SimulatedTask, whole: Path) -> None:
    results = pd.read_csv(simulated.run_folder(whole) / "results.csv")
    summary = pd.read_csv(simulated.run_folder(whole) / "summary.csv")
    known = ["metric", *METRICS, *GRAPH_COLUMNS]
    assert list(results)[: len(known)] == known and set(results) - set(known) <= set(summary)
    assert results["metric"].tolist() == ["mean", "std"]
    values = summary[METRICS].to_numpy()
    assert (values[0] != values[1]).any()
    np.testing.assert_allclose(results[METRICS].iloc[0].to_numpy(float), values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(results[METRICS].iloc[1].to_numpy(float), values.std(0), rtol=1e-12)


def test_checkpoints_hold_what_is_trained_and_nothing_else(simulated: SimulatedTask, whole: Path) -> None:
    for k in range(2):
        saved = torch.load(simulated.run_folder(whole) / f"s_{k}_checkpoint.pt", weights_only=True)
        assert all(type(tensor) is torch.Tensor and torch.isfinite(tensor).all() for tensor in saved.values())
        assert saved["prompts.scale_context_tokens"].shape == (2, 16, 16)
        assert not [name for name in saved if "tower" in name]


# ----------------------------------------------------------------------------------------------------- patient audit


def audit(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, table: pd.DataFrame) -> list[str]:
    table.to_csv(tmp_path / "slides.csv", index=False)
    options = simulated.options(tmp_path / "results", "--dry_run")
    code, out, _ = run_main([*options, "--dataset_csv", str(tmp_path / "slides.csv")])
    assert code == 0
    return [line for line in out.splitlines() if "patients" in line]


def test_patient_audit(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    table = pd.read_csv(simulated.root / "simulated.csv")
    assert audit(simulated, tmp_path, run_main, table) == []
    first, second = (pd.read_csv(simulated.split_dir / f"splits_{fold}.csv") for fold in range(2))
    # two slides of one patient in the same split are no fault
    together = sorted(set(first["test"]) & set(second["test"]))[:2]
    assert len(together) == 2
    same = table.copy()
    same.loc[same["slide_id"].isin(together), "case_id"] = "one patient"
    assert audit(simulated, tmp_path, run_main, same) == []
    across = table.copy()
    across.loc[across["slide_id"].isin([first["train"][0], first["test"][0]]), "case_id"] = "one patient"
    lines = audit(simulated, tmp_path, run_main, across)
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    assert "train and test share 1" in lines[0] and "--group patient" in lines[0]


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 24 slides, smaller than those of the demo."""
    import create_simulated_task

    root = tmp_path_factory.mktemp("learnable")
    sizes = "--slides-per-class", "24", "--min-parents", "15", "--max-parents", "45"
    create_simulated_task.main(["--output-dir", str(root), *sizes])
    return root


def mean_test_auc(root: Path, table: pd.DataFrame, results: Path) -> float:
    """Train on a table of slides, with splits drawn for it: 4 training and 2 validation slides a class, 18 to test."""
    generator = np.random.default_rng(0)
    results.mkdir()
    table.to_csv(results / "slides.csv", index=False)
    for fold in range(2):
        columns: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for _, members in table.groupby("label"):
            ids = generator.permutation(members["slide_id"]).tolist()
            columns["train"] += ids[:4]
            columns["val"] += ids[4:6]
            columns["test"] += ids[6:]
        split = pd.DataFrame({name: pd.Series(ids, dtype=str) for name, ids in columns.items()}).fillna("")
        split.to_csv(results / f"splits_{fold}.csv")
    main.main(
        [
            *("--task", "simulated", "--feature_extractor", "tinyclip", "--vlm_path", str(root / "tinyclip")),
            *("--data_root_dir", str(root / "features"), "--dataset_csv", str(results / "slides.csv")),
            *("--text_prompt", str(root / "simulated.json"), "--split_dir", str(results), "--few_shot_num", "4"),
            *("--k", "2", "--lr", "1e-3", "--max_epochs", "10", "--results_dir", str(results), "--device", "cpu"),
        ]
    )
    found = pd.read_csv(next(results.rglob("results.csv")), index_col="metric")
    return float(found.loc["mean", "test_auc"])


@pytest.mark.slow
def test_it_learns(learnable: Path, tmp_path: Path) -> None:
    table = pd.read_csv(learnable / "simulated.csv")
    assert mean_test_auc(learnable, table, tmp_path / "labels") >= 0.9


@pytest.mark.slow
def test_it_learns_nothing_from_shuffled_labels(learnable: Path, tmp_path: Path) -> None:
    table = pd.read_csv(learnable / "simulated.csv")
    table["label"] = np.random.default_rng(1).permutation(table["label"])
    assert 0.35 <= mean_test_auc(learnable, table, tmp_path / "shuffled") <= 0.65


def test_another_number_of_shots_than_said_is_told(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--few_shot_num", "16"))
    assert out.count("--few_shot_num is 16, but classes with 4 training slides were found") == 1
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run"))
    assert "training slides were found" not in out
