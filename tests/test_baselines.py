"""Models without a hierarchy and without texts through main.py and predict.py."""

import json
import shutil
from pathlib import Path

import h5py
import pandas as pd
import pytest

import main
from tests.conftest import RunMain, SimulatedTask
from tests.support.small_transmil import make_transmil_small
from training.metrics import GRAPH_COLUMNS, RESULT_COLUMNS
from utils.model_types import MODEL_TYPES

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def flat(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> SimulatedTask:
    """A task with flat bags of 20x patches alone: no parents, no links, no texts, no vision-language model."""
    root = tmp_path_factory.mktemp("flat")
    shutil.copytree(simulated.features / "tinyclip_20x", root / "features" / "simulated_tinyclip" / "tinyclip_20x")
    shutil.copytree(simulated.root / "splits", root / "splits")
    shutil.copy(simulated.root / "simulated.csv", root)
    return SimulatedTask(root)


def options(task: SimulatedTask, results: Path, model_type: str, *more: str) -> list[str]:
    """Without anything that belongs to texts."""
    given = task.options(results, "--model_type", model_type, *more)
    for name in ("--vlm_path", "--text_prompt"):
        at = given.index(name)
        del given[at : at + 2]
    return given


def run_folder(results: Path, model_type: str) -> Path:
    return results / "simulated" / "tinyclip" / "4" / f"simulated_tinyclip_{model_type}_4_s1"


@pytest.fixture(scope="module")
def trained(flat: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("trained")
    main.main(options(flat, results, "ABMIL", "--max_epochs", "8", "--lr", "1e-2"))
    return run_folder(results, "ABMIL")


def test_a_task_of_patches_alone(trained: Path) -> None:
    results = pd.read_csv(trained / "results.csv", index_col="metric")
    assert results.loc["mean", list(RESULT_COLUMNS)].between(0, 1).all()
    assert results.loc["mean", list(GRAPH_COLUMNS)].isna().all()
    history = pd.read_csv(trained / "history_0.csv")
    assert history["train_acc"].iloc[-1] == 1
    assert history["train_loss"].iloc[-1] < 0.1 < history["train_loss"].iloc[0]
    predictions = pd.read_csv(trained / "predictions_0.csv")
    assert set(predictions["split"]) == {"val", "test"}
    record = json.loads((trained / "config.json").read_text())
    assert record["feature_dim"] == 16
    assert not {"text_tower", "text_prompt"} & set(record["inputs"])


def test_predictions_are_those_of_the_run(trained: Path, run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "predictions.csv"
    code, _, err = run_main(["--checkpoint", str(trained / "s_1_checkpoint.pt"), "--output", str(output)], "predict")
    assert (code, err) == (0, "")
    expected = pd.read_csv(trained / "predictions_1.csv", dtype=str).drop(columns="split").set_index("slide_id")
    found = pd.read_csv(output, dtype=str).set_index("slide_id").loc[expected.index]
    pd.testing.assert_frame_equal(found, expected)


def test_a_bare_checkpoint(flat: SimulatedTask, trained: Path, run_main: RunMain, tmp_path: Path) -> None:
    """Classes from the table, the width from the features."""
    bare, output = tmp_path / "bare.pt", tmp_path / "predictions.csv"
    shutil.copy(trained / "s_0_checkpoint.pt", bare)
    given = options(flat, tmp_path / "results", "ABMIL")
    code, _, err = run_main(["--checkpoint", str(bare), "--output", str(output), *given], "predict")
    assert (code, err) == (0, "")
    expected = pd.read_csv(trained / "predictions_0.csv").drop(columns="split").set_index("slide_id")
    pd.testing.assert_frame_equal(pd.read_csv(output).set_index("slide_id").loc[expected.index], expected)


def test_a_slide_of_another_width(flat: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    task = SimulatedTask(tmp_path / "task")
    shutil.copytree(flat.root, task.root)
    file = task.features / "tinyclip_20x" / "SIM-1002.h5"
    with h5py.File(file, "r+") as opened:
        features = opened["features"][:, :8]
        del opened["features"]
        opened["features"] = features
    code, _, err = run_main(options(task, tmp_path / "results", "MeanPooling"))
    assert code == 2
    assert f"{file}: features are 8 wide; expected 16" in err


def test_no_features_at_all(flat: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    given = options(flat, tmp_path / "results", "MaxPooling", "--data_root_dir", str(tmp_path))
    code, _, err = run_main(given)
    assert code == 2
    assert "no such folder; expected the features of task simulated" in err


def test_another_width_is_one_fault(flat: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    code, _, err = run_main(options(flat, tmp_path / "results", "ABMIL", "--feature_dim", "99"))
    assert code == 2 and "faults" not in err
    assert err.startswith("error: --feature_dim 99: ") and "16" in err


def test_neither_flat_nor_linked_patches(flat: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "features" / "simulated_tinyclip" / "tinyclip_5x").mkdir(parents=True)
    given = options(flat, tmp_path / "results", "ABMIL", "--data_root_dir", str(tmp_path / "features"))
    code, _, err = run_main(given)
    assert code == 2 and "tinyclip_20x: no such folder, nor hierarchical_tinyclip_5x_20x/ beside it" in err
    assert "python extract_features.py" in err


def test_options_of_other_models_are_told_of(flat: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    given = options(flat, tmp_path / "results", "MeanPooling", "--tgdf", "none", "--k_sample", "3", "--dry_run")
    code, out, _ = run_main(given)
    assert code == 0
    assert "note: --tgdf has no effect on MeanPooling" in out
    assert "note: --k_sample has no effect on MeanPooling" in out
    assert "--lr" not in out


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_model_trains_and_predicts_the_same(
    simulated: SimulatedTask, run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """Two epochs of one fold over two slides a class and split, with the options that all share; predict.py repeats
    what was predicted."""
    make_transmil_small(monkeypatch)
    given = simulated.options(tmp_path / "results", "--model_type", model_type, "--testing", "--k_end", "1")
    code, out, err = run_main(given)
    assert code == 0, err
    made = f"texts of {model_type}: made from HiVE-MIL's in {simulated.root / 'simulated.json'}"
    assert (made in out) == (model_type in ("ViLa_MIL", "MSCPT", "FOCUS"))
    (folder,) = (tmp_path / "results").rglob("*_testing")
    expected = pd.read_csv(folder / "predictions_0.csv", dtype=str).drop(columns="split").set_index("slide_id")
    table = pd.read_csv(simulated.root / "simulated.csv")
    table[table["slide_id"].isin(expected.index)].to_csv(tmp_path / "slides.csv", index=False)
    files = ["--checkpoint", str(folder / "s_0_checkpoint.pt"), "--dataset_csv", str(tmp_path / "slides.csv")]
    code, _, err = run_main([*files, "--output", str(tmp_path / "out.csv")], "predict")
    assert code == 0, err
    found = pd.read_csv(tmp_path / "out.csv", dtype=str).set_index("slide_id").loc[expected.index]
    pd.testing.assert_frame_equal(found, expected)
