"""predict.py: what main.py predicted, unlabelled slides, and the released code's checkpoints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.faults import check_fault
from tests.support.run_contents import notes
from utils.sealed import write_sealed

pytestmark = pytest.mark.usefixtures("blank_figures")

COLUMNS = ["slide_id", "label", "prediction", "prob_SIMULATED_A", "prob_SIMULATED_B", "case_id"]


@pytest.fixture(scope="module")
def trained(simulated: SimulatedTask, whole: Path) -> Path:
    """The folder of a run of both folds. Read only."""
    return simulated.run_folder(whole)


def read(path: Path) -> pd.DataFrame:
    """Every cell as it is written."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture
def predict(run_main: RunMain, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, str]]:
    """predict.py's table, as text, and its standard output."""

    def run(checkpoint: Path, *options: str) -> tuple[pd.DataFrame, str]:
        output = tmp_path / "out" / "predictions.csv"
        code, out, err = run_main(["--checkpoint", str(checkpoint), "--output", str(output), *options], "predict")
        assert (code, err) == (0, "")
        return read(output), out

    return run


Predict = Callable[..., tuple[pd.DataFrame, str]]


def own_predictions(trained: Path, fold: int) -> pd.DataFrame:
    return read(trained / f"predictions_{fold}.csv").set_index("slide_id")


def test_options_of_the_run_are_kept(trained: Path, predict: Predict, faults_of: FaultsOf, tmp_path: Path) -> None:
    """But for those that its model does not read."""
    checkpoint = trained / "s_0_checkpoint.pt"
    plain, _ = predict(checkpoint)
    table, out = predict(checkpoint, "--prototype_number", "8", "--num_workers", "2", "--lr", "5")
    assert notes(out) == [
        "note: --lr has no effect on prediction", "note: --prototype_number has no effect on HiVE_MIL --variant paper"
    ]  # fmt: skip
    assert table.equals(plain)
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "no.csv"), "--prototype_number", "8"]
    (fault,) = faults_of([*options, "--scales", "low"], "predict")
    check_fault(fault, "run.other_settings", "--scales low", "trained with 'both'")


@pytest.mark.parametrize("fold", [0, 1])
def test_predictions_are_those_of_the_run(simulated: SimulatedTask, trained: Path, predict: Predict, fold: int) -> None:
    """All slides of the table, in its order; to the last digit what main.py wrote."""
    table, _ = predict(trained / f"s_{fold}_checkpoint.pt")
    slides = read(simulated.root / "simulated.csv")
    assert list(table) == COLUMNS
    assert table["slide_id"].tolist() == slides["slide_id"].tolist()
    assert table["label"].tolist() == slides["label"].tolist()
    expected = own_predictions(trained, fold)
    assert set(expected["split"]) == {"val", "test"}
    found = table.set_index("slide_id").loc[expected.index]
    pd.testing.assert_frame_equal(found, expected.drop(columns="split"))
    assert len(set(table["prob_SIMULATED_A"])) == len(table)  # slides differ


def test_the_folds_predict_differently(trained: Path, predict: Predict) -> None:
    first, _ = predict(trained / "s_0_checkpoint.pt")
    second, _ = predict(trained / "s_1_checkpoint.pt")
    assert (first["prob_SIMULATED_A"] != second["prob_SIMULATED_A"]).all()


def test_labels_are_optional(simulated: SimulatedTask, trained: Path, predict: Predict, tmp_path: Path) -> None:
    slides = read(simulated.root / "simulated.csv")
    labelled, out = predict(trained / "s_0_checkpoint.pt")
    correct = (labelled["prediction"] == labelled["label"]).sum()
    assert f"{correct} of 20 labelled slides are predicted as labelled" in out
    few = slides.iloc[[15, 3, 11]]
    tables = {
        "no label column": few.drop(columns="label"),
        "blank labels": few.assign(label=""),
        "spaces": few.assign(label="  "),
        "ids alone": few[["slide_id"]],
    }
    expected = labelled.set_index("slide_id").loc[few["slide_id"]].reset_index().assign(label="")
    for name, table in tables.items():
        table.to_csv(tmp_path / "new.csv", index=False)
        found, out = predict(trained / "s_0_checkpoint.pt", "--dataset_csv", str(tmp_path / "new.csv"))
        patients = expected["slide_id"] if name == "ids alone" else expected["case_id"]
        pd.testing.assert_frame_equal(found, expected.assign(case_id=patients), obj=name)
        assert "labelled" not in out
        assert "3 slides in" in out


def test_some_slides_have_labels(simulated: SimulatedTask, trained: Path, predict: Predict, tmp_path: Path) -> None:
    few = read(simulated.root / "simulated.csv").iloc[[15, 3, 11]].assign(label=["", "SIMULATED_A", ""])
    few.to_csv(tmp_path / "new.csv", index=False)
    table, out = predict(trained / "s_0_checkpoint.pt", "--dataset_csv", str(tmp_path / "new.csv"))
    assert table["label"].tolist() == ["", "SIMULATED_A", ""]
    right = int(table["prediction"][1] == "SIMULATED_A")
    assert f"{right} of 1 labelled slides" in out


def test_classes_are_the_runs_even_where_the_table_has_fewer(
    simulated: SimulatedTask, trained: Path, predict: Predict, tmp_path: Path
) -> None:
    slides = read(simulated.root / "simulated.csv")
    slides[slides["label"] == "SIMULATED_B"].to_csv(tmp_path / "new.csv", index=False)
    table, _ = predict(trained / "s_0_checkpoint.pt", "--dataset_csv", str(tmp_path / "new.csv"))
    expected = own_predictions(trained, 0)
    expected = expected[expected["label"] == "SIMULATED_B"].drop(columns="split")
    pd.testing.assert_frame_equal(table.set_index("slide_id").loc[expected.index], expected)


def test_an_unknown_class_is_refused(
    simulated: SimulatedTask, trained: Path, faults_of: FaultsOf, tmp_path: Path
) -> None:
    slides = read(simulated.root / "simulated.csv")
    slides.loc[5, "label"] = "SIMULATED_Z"
    slides.to_csv(tmp_path / "new.csv", index=False)
    output = tmp_path / "predictions.csv"
    options = ["--output", str(output), "--dataset_csv", str(tmp_path / "new.csv")]
    (fault,) = faults_of(["--checkpoint", str(trained / "s_0_checkpoint.pt"), *options], "predict")
    words = "'SIMULATED_Z'", "SIMULATED_A", "SIMULATED_B"
    check_fault(fault, "table.unknown_class", tmp_path / "new.csv", *words)
    assert not output.exists()


def test_another_task_of_the_same_classes(
    simulated: SimulatedTask, trained: Path, predict: Predict, tmp_path: Path
) -> None:
    """Slides of another hospital: their own folder of features and their own table."""
    slides = read(simulated.root / "simulated.csv").iloc[6:14]
    for folder in ("tinyclip_5x", "hierarchical_tinyclip_5x_20x"):
        (tmp_path / "data" / "hospital_tinyclip" / folder).mkdir(parents=True)
        for slide_id in slides["slide_id"]:
            target = tmp_path / "data" / "hospital_tinyclip" / folder / f"H-{slide_id}.h5"
            shutil.copy(simulated.features / folder / f"{slide_id}.h5", target)
    slides.assign(slide_id="H-" + slides["slide_id"]).to_csv(tmp_path / "hospital.csv", index=False)
    table, _ = predict(
        trained / "s_0_checkpoint.pt",
        *("--task", "hospital", "--data_root_dir", str(tmp_path / "data")),
        *("--dataset_csv", str(tmp_path / "hospital.csv")),
    )
    here, _ = predict(trained / "s_0_checkpoint.pt")
    expected = here.set_index("slide_id").loc[slides["slide_id"]].reset_index()
    pd.testing.assert_frame_equal(table, expected.assign(slide_id="H-" + expected["slide_id"]))


def test_a_run_that_was_moved(simulated: SimulatedTask, trained: Path, predict: Predict, tmp_path: Path) -> None:
    """The checkpoint and its config.json are enough; prompts come from the record, the folders are named anew."""
    moved = tmp_path / "moved"
    moved.mkdir()
    record = json.loads((trained / "config.json").read_text())
    for name in ("data_root_dir", "dataset_csv", "vlm_path", "text_prompt", "split_dir", "results_dir"):
        record["options"][name] = f"/not/here/{name}"
    write_sealed(moved / "config.json", record)
    shutil.copy(trained / "s_1_checkpoint.pt", moved / "best.pt")
    table, _ = predict(
        moved / "best.pt",
        *("--data_root_dir", str(simulated.root / "features"), "--vlm_path", str(simulated.root / "tinyclip")),
        *("--dataset_csv", str(simulated.root / "simulated.csv")),
    )
    expected = own_predictions(trained, 1).drop(columns="split")
    pd.testing.assert_frame_equal(table.set_index("slide_id").loc[expected.index], expected)


def test_a_bare_checkpoint_with_its_options(
    simulated: SimulatedTask, trained: Path, predict: Predict, tmp_path: Path
) -> None:
    """Without config.json: settings from the options, classes from the prompt file."""
    shutil.copy(trained / "s_0_checkpoint.pt", tmp_path / "bare.pt")
    options = simulated.options(tmp_path / "results")
    table, _ = predict(tmp_path / "bare.pt", *options)
    expected = own_predictions(trained, 0).drop(columns="split")
    pd.testing.assert_frame_equal(table.set_index("slide_id").loc[expected.index], expected)
    other, _ = predict(tmp_path / "bare.pt", *options, "--top_k_high", "3")
    assert (other["prob_SIMULATED_A"] != table["prob_SIMULATED_A"]).any()


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table[[name for name in table if name.startswith("prob_")]].to_numpy(float)


def test_bf16_predicts_close_to_fp32(trained: Path, predict: Predict) -> None:
    fp32, _ = predict(trained / "s_0_checkpoint.pt")
    bf16, _ = predict(trained / "s_0_checkpoint.pt", "--precision", "bf16")
    difference = np.abs(probabilities(fp32) - probabilities(bf16))
    assert 0 < difference.max() < 0.05  # a filtered edge more or less
    assert np.median(difference) < 0.005
    np.testing.assert_allclose(probabilities(bf16).sum(1), 1, rtol=1e-12)


# ---------------------------------------------------------------------------------- checkpoints of the released code


def golden_options(case: Path, feature_extractor: str, vlm_path: Path) -> list[str]:
    return [
        *("--variant", "released", "--task", "golden", "--feature_extractor", feature_extractor),
        *("--vlm_path", str(vlm_path), "--data_root_dir", str(case), "--dataset_csv", str(case / "golden.csv")),
        *("--text_prompt", str(case / "golden.json"), "--device", "cpu"),
    ]


def check_golden(table: pd.DataFrame, case: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())["slides"]
    assert list(table) == ["slide_id", "label", "prediction", "prob_ALPHA", "prob_BETA", "case_id"]
    assert table["slide_id"].tolist() == list(expected)
    np.testing.assert_allclose(probabilities(table), [slide["prob"] for slide in expected.values()], atol=1e-5, rtol=0)
    assert table["label"].tolist() == [slide["label"] for slide in expected.values()]
    best = [["ALPHA", "BETA"][int(np.argmax(slide["prob"]))] for slide in expected.values()]
    assert table["prediction"].tolist() == best


def test_released_checkpoint_with_clip(golden: Path, predict: Predict) -> None:
    case = golden / "visible_2class"
    table, _ = predict(case / "s_0_checkpoint.pt", *golden_options(case, "tinyclip", case / "tinyclip"))
    check_golden(table, case)


def test_released_checkpoint_with_clip_without_labels(golden: Path, predict: Predict, tmp_path: Path) -> None:
    case = golden / "visible_2class"
    slides = read(case / "golden.csv").drop(columns="label")
    slides.to_csv(tmp_path / "new.csv", index=False)
    options = golden_options(case, "tinyclip", case / "tinyclip")
    table, _ = predict(case / "s_0_checkpoint.pt", *options, "--dataset_csv", str(tmp_path / "new.csv"))
    assert (table["label"] == "").all()
    check_golden(table.assign(label=read(case / "golden.csv")["label"]), case)


def test_released_checkpoint_with_conch(golden: Path, predict: Predict, tmp_path: Path) -> None:
    case = golden / "visible_conch"
    for file in (
        golden / "conch_tokenizer" / "conch_byte_level_bpe_uncased.json",
        case / "pytorch_model.bin",
        case / "open_clip_config.json",
    ):
        shutil.copy(file, tmp_path)
    table, _ = predict(case / "s_0_checkpoint.pt", *golden_options(case, "conch", tmp_path / "pytorch_model.bin"))
    check_golden(table, case)


def test_released_checkpoint_needs_its_variant(golden: Path, faults_of: FaultsOf, tmp_path: Path) -> None:
    case = golden / "visible_2class"
    output = tmp_path / "predictions.csv"
    options = [*golden_options(case, "tinyclip", case / "tinyclip"), "--variant", "paper"]
    checkpoint = case / "s_0_checkpoint.pt"
    (fault,) = faults_of(["--checkpoint", str(checkpoint), "--output", str(output), *options], "predict")
    check_fault(fault, "checkpoint.mismatch", checkpoint, "--variant paper")
    assert not output.exists()
