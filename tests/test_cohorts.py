"""Slides of other places: cohorts that lack classes, labels that are no class, tasks without a table."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from reports.prediction_report import write_predictions
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.faults import check_fault
from tests.support.planted_run import PlantedRun
from training.prediction import RunPredictions

CLASSES = ["SIMULATED_A", "SIMULATED_B"]


def strict_json(file: Path) -> Any:
    """Without NaN and Infinity, which are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {file}")

    return json.loads(file.read_text(), parse_constant=refuse)


@pytest.fixture
def checkpoint(simulated: SimulatedTask, whole: Path) -> str:
    return str(simulated.run_folder(whole) / "s_0_checkpoint.pt")


@pytest.fixture
def cohort(simulated: SimulatedTask, tmp_path: Path) -> Path:
    """A table of six slides: four of class A, two of class B. Tests change it."""
    table = pd.read_csv(simulated.root / "simulated.csv", dtype=str).iloc[[0, 1, 2, 3, 10, 11]]
    table.to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path / "cohort.csv"


def relabel(table: Path, labels: dict[int, str]) -> list[str]:
    """Put other labels into some rows; returns all labels."""
    rows = pd.read_csv(table, dtype=str)
    for row, label in labels.items():
        rows.loc[row, "label"] = label
    rows.to_csv(table, index=False)
    return [str(label) for label in rows["label"]]


# ---- cohorts that lack classes ---------------------------------------------------------------------------------------


def test_a_cohort_of_one_class(checkpoint: str, cohort: Path, tmp_path: Path, run_main: RunMain) -> None:
    relabel(cohort, {4: "SIMULATED_A", 5: "SIMULATED_A"})
    output = tmp_path / "p.csv"
    argv = ["--checkpoint", checkpoint, "--dataset_csv", str(cohort), "--output", str(output)]
    code, out, err = run_main(argv, "predict")
    assert (code, err) == (0, "")
    table, metrics = pd.read_csv(output), strict_json(tmp_path / "p_metrics.json")
    assert (metrics["slides"], metrics["unlabelled"], metrics["auc"]) == (6, 0, None)
    assert metrics["f1"] == f1_score(table["label"], table["prediction"], labels=["SIMULATED_A"], average="macro")
    assert metrics["acc"] == accuracy_score(table["label"], table["prediction"])
    assert metrics["undefined"].keys() == {"auc"} and "'SIMULATED_A'" in metrics["undefined"]["auc"]
    assert metrics["classes_without_slides"] == ["SIMULATED_B"]
    assert "auc undefined" in out and metrics["undefined"]["auc"] in out and "nan" not in out
    assert {file.name for file in tmp_path.glob("p_*.png")} == {"p_roc.png", "p_confusion.png", "p_calibration.png"}


def test_a_cohort_with_two_of_four_classes(tmp_path: Path) -> None:
    """Held against scikit-learn with the labels that are present."""
    generator = np.random.default_rng(2)
    labels = np.array([0, 2] * 10 + [-1] * 3)
    by_fold = generator.dirichlet(np.ones(4), (23, 1))
    out = write_predictions(
        tmp_path / "p.csv",
        RunPredictions([*map(str, range(23))], [*"ABCD"], labels, by_fold, [*map(str, range(23))], "mean"),
    )
    metrics, scores, y = strict_json(tmp_path / "p_metrics.json"), by_fold[:20, 0], labels[:20]
    assert metrics["auc"] == pytest.approx(np.mean([roc_auc_score(y == k, scores[:, k]) for k in (0, 2)]))
    assert metrics["f1"] == pytest.approx(f1_score(y, scores.argmax(1), labels=[0, 2], average="macro"))
    assert (metrics["slides"], metrics["unlabelled"], metrics["undefined"]) == (20, 3, {})
    assert metrics["classes_without_slides"] == ["B", "D"] and "('B', 'D')" in out


def test_a_bare_checkpoint_keeps_the_classes_that_the_cohort_lacks(
    simulated: SimulatedTask, checkpoint: str, cohort: Path, tmp_path: Path, run_main: RunMain
) -> None:
    texts = json.loads((simulated.root / "simulated.json").read_text())
    texts["SIMULATED_C"] = {f"{term} c": f"{text} c" for term, text in texts["SIMULATED_A"].items()}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    bare = shutil.copy(checkpoint, tmp_path / "bare.pt")
    options = simulated.options(tmp_path, "--text_prompt", str(tmp_path / "texts.json"), "--dataset_csv", str(cohort))
    argv = ["--checkpoint", str(bare), "--output", str(tmp_path / "p.csv"), *options]
    assert run_main(argv, "predict")[0] == 0
    assert list(pd.read_csv(tmp_path / "p.csv"))[3:-1] == [f"prob_{name}" for name in [*CLASSES, "SIMULATED_C"]]
    assert strict_json(tmp_path / "p_metrics.json")["classes_without_slides"] == ["SIMULATED_C"]


# ---- labels that are no class ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["predict", "explain"])
def test_a_third_kind_of_label_is_told(
    script: str, checkpoint: str, cohort: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    relabel(cohort, {0: "unknown", 1: "unknown", 2: "NA", 3: ""})
    output = {"predict": ["--output", tmp_path / "p.csv"], "explain": ["--output-dir", tmp_path / "e"]}[script]
    (fault,) = faults_of(["--checkpoint", checkpoint, "--dataset_csv", cohort, *output], script)
    words = "'unknown' of 2 ('SIM-0000', 'SIM-0001')", "'NA' of 1 ('SIM-0002')", "--labels-optional"
    check_fault(fault, "table.unknown_class", cohort, *words)
    assert fault.expected == f"one of {CLASSES}"


@pytest.mark.usefixtures("blank_figures")
def test_with_labels_optional_it_counts_as_unlabelled(
    checkpoint: str, cohort: Path, tmp_path: Path, run_main: RunMain
) -> None:
    relabel(cohort, {0: "unknown", 1: "n/a", 4: ""})
    argv = ["--checkpoint", checkpoint, "--dataset_csv", str(cohort), "--output", str(tmp_path / "p.csv")]
    code, out, err = run_main([*argv, "--labels-optional"], "predict")
    assert (code, err) == (0, "")
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert table["label"].tolist() == ["", "", "SIMULATED_A", "SIMULATED_A", "", "SIMULATED_B"]
    assert strict_json(tmp_path / "p_metrics.json")["unlabelled"] == 3
    (note,) = [line for line in out.splitlines() if "unlabelled" in line]
    assert all(word in note for word in ("3 of 6", "a blank of 1", "'unknown' of 1 ('SIM-0000')", "'n/a' of 1"))


@pytest.mark.usefixtures("blank_figures")
def test_explanations_of_slides_with_other_labels(planted_run: PlantedRun, tmp_path: Path, run_main: RunMain) -> None:
    table = shutil.copy(planted_run.task.root / "simulated.csv", tmp_path / "new.csv")
    first, *_ = relabel(Path(table), {0: "unknown"})
    slide_id = pd.read_csv(table)["slide_id"][0]
    argv = ["--checkpoint", str(planted_run.checkpoint(0)), "--dataset_csv", str(table), "--slides", slide_id]
    code, _, err = run_main(
        [*argv, "--output-dir", str(tmp_path / "e"), "--draws", "0", "--labels-optional"], "explain"
    )
    assert (code, err, first) == (0, "", "unknown")
    assert "The slide has no label" in (tmp_path / "e" / f"{slide_id}.html").read_text()


# ---- tasks without a table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [[], ["SIM-0001"]])
def test_explanations_without_a_table(
    planted_run: PlantedRun, tmp_path: Path, run_main: RunMain, chosen: list[str]
) -> None:
    """Of the slides that are named, or of all that have features, as predict.py predicts them."""
    few = ["SIM-0000", "SIM-0001"]
    for folder in ("tinyclip_5x", "hierarchical_tinyclip_5x_20x"):
        (tmp_path / "data" / "new_tinyclip" / folder).mkdir(parents=True)
        for slide_id in few:
            file = Path(folder) / f"{slide_id}.h5"
            shutil.copy(planted_run.task.features / file, tmp_path / "data" / "new_tinyclip" / file)
    options = ["--task", "new", "--data_root_dir", str(tmp_path / "data")]
    argv = [
        "--checkpoint",
        str(planted_run.checkpoint(0)),
        "--output-dir",
        str(tmp_path / "e"),
        "--draws",
        "0",
        *options,
    ]
    code, out, err = run_main([*argv, *(["--slides", *chosen] if chosen else [])], "explain")
    assert (code, err) == (0, "")
    assert {file.stem for file in (tmp_path / "e").glob("*.html")} == set(chosen or few)
    assert ("all 2 slides with features are taken" in out) == (not chosen)
    assert run_main(["--checkpoint", str(planted_run.checkpoint(0)), "--output", str(tmp_path / "p.csv"), *options],
                    "predict")[0] == 0  # fmt: skip
    assert pd.read_csv(tmp_path / "p.csv")["slide_id"].tolist() == few


# ---- tasks to train on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"SIM-0000": "unknown"}, ("no slide of class 'unknown' in", "the table has 1 of 'unknown'", "leave a label")),
        (
            {f"SIM-000{n}": "unknown" for n in (1, 3, 7, 8)},  # those of the validation slides
            ("'SIMULATED_A'", "put slides of each class", "splits: python"),
        ),
    ],
)
def test_a_class_that_a_split_lacks(
    simulated: SimulatedTask, tmp_path: Path, faults_of: FaultsOf, labels: dict[str, str], words: tuple[str, ...]
) -> None:
    """Told with how many slides there are and what to do: other splits, more labels, or predict.py for the test."""
    table = pd.read_csv(simulated.root / "simulated.csv", dtype=str).set_index("slide_id")
    table.loc[list(labels), "label"] = list(labels.values())
    table.reset_index().to_csv(tmp_path / "table.csv", index=False)
    options = simulated.options(tmp_path / "results", "--dataset_csv", str(tmp_path / "table.csv"), "--dry_run")
    faults = [fault for fault in faults_of(options) if fault.code == "split.missing_class"]
    assert any(all(word in str(fault) for word in words) for fault in faults)
    assert all("create_splits.py --task simulated --k 2 --few_shot_num 4" in fault.mend for fault in faults)
    of_test = [fault for fault in faults if fault.found.endswith(" in test")]
    assert all(("predict.py" in fault.mend) == (fault in of_test) for fault in faults)
