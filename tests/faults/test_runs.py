"""Several faults at once, and folders that hold another run."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import main
from tests.conftest import FaultsOf, SimulatedTask
from tests.support.damage import (
    HIGH,
    LOW,
    SLIDE,
    change,
    change_json,
    change_text,
    files_but_checks,
    first_is,
    other_clip_and_features,
    read_ids,
    without_last,
    write_ids,
)
from tests.support.faults import Refused, check_fault
from utils.errors import UserError


def test_five_faults_at_once_are_all_listed(task: SimulatedTask, refused: Refused) -> None:
    missing, broken = task.features / LOW / f"{SLIDE}.h5", task.features / HIGH / "SIM-1002.h5"
    missing.unlink()
    change(broken, "features", first_is(np.nan))
    split = task.split_dir / "splits_0.csv"
    ids = read_ids(split)
    write_ids(split, {**ids, "test": [*ids["test"], ids["train"][0]]})
    change_json(task.root / "simulated.json", without_last)
    found = {fault.where or str(fault).split(": ")[0]: fault for fault in refused("--feature_dim", "32", faults=5)}
    expected = {
        str(missing): "file.missing",
        str(broken): "features.values",
        str(split): "split.repeated_slide",
        str(task.root / "simulated.json"): "prompt.number",
        "--feature_dim 32": "option.value",
    }
    assert found.keys() == expected.keys()
    for where, code in expected.items():
        check_fault(found[where], code, where)


def test_a_missing_table_hides_no_other_missing_file(task: SimulatedTask, refused: Refused) -> None:
    (task.root / "tinyclip").unlink()
    (task.root / "simulated.csv").unlink()
    (task.root / "simulated.json").unlink()
    (task.split_dir / "splits_1.csv").unlink()
    shutil.rmtree(task.features)
    faults = {
        f"--vlm_path {task.root / 'tinyclip'}": "vlm.missing",
        task.root / "simulated.csv": "table.missing",
        task.root / "simulated.json": "prompt.missing",
        task.split_dir / "splits_1.csv": "split.missing",
        task.features: "features.missing",
    }
    for fault, (where, code) in zip(refused(faults=5), faults.items(), strict=True):
        check_fault(fault, code, where)


@pytest.mark.parametrize("epochs", ["1", "2"])
def test_a_run_whose_weights_overflow_says_so(task: SimulatedTask, tmp_path: Path, epochs: str) -> None:
    options = ("--lr", "1e38", "--opt", "sgd", "--max_epochs", epochs)
    with pytest.raises(UserError) as caught:
        main.main(task.options(tmp_path / "results", *options))
    (fault,) = caught.value.faults
    assert fault.code == "loss.not_finite"
    assert "fold 0" in fault.where and "--lr" in fault.mend


def swapped_train_and_val(task: SimulatedTask) -> None:
    change_text(task.split_dir / "splits_0.csv", "train,val", "val,train")


OTHER_RUNS = {
    "lr": (("--lr", "5e-4"), None, "lr 0.001, now 0.0005"),
    "variant": (("--variant", "released"), None, "variant 'paper', now 'released'"),
    "epochs": (("--max_epochs", "2"), None, "max_epochs 1, now 2"),
    "splits": ((), swapped_train_and_val, "splits_0 has changed since"),
    "table": (
        (), lambda task: change_text(task.root / "simulated.csv", "simulated_0001", "p"),
        "dataset_csv has changed since",
    ),
    "clip": ((), other_clip_and_features, "text_tower has changed since"),
    "features": (
        (), lambda task: change(task.features / HIGH / f"{SLIDE}.h5", "features", lambda x: x * 2),
        "features_0 has changed since",
    ),
    "descriptions": (
        (), lambda task: change_text(task.root / "simulated.json", "pale", "dark"), "text_prompt has changed since",
    ),
}  # fmt: skip


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["again", "resume"])
@pytest.mark.parametrize("case", OTHER_RUNS)
def test_a_folder_that_holds_another_run_is_left_as_it_is(
    task: SimulatedTask, results: Path, faults_of: FaultsOf, case: str, resume: tuple[str, ...]
) -> None:
    options, change_task, difference = OTHER_RUNS[case]
    if change_task:
        change_task(task)
    before = files_but_checks(results)
    (fault,) = faults_of(task.options(results, "--max_epochs", "1", *options, *resume))
    check_fault(fault, "run.other_settings", task.run_folder(results), difference, "--results_dir")
    assert files_but_checks(results) == before


def test_a_finished_run_is_not_started_over(simulated: SimulatedTask, results: Path, faults_of: FaultsOf) -> None:
    before = files_but_checks(results)
    (fault,) = faults_of(simulated.options(results, "--max_epochs", "1"))
    words = "fold 0, 1 of this run", "--resume", "--results_dir"
    check_fault(fault, "run.finished", simulated.run_folder(results), *words)
    assert files_but_checks(results) == before


@pytest.mark.parametrize("name", ["config.json", "fold_0.json", "resume_0.pt"])
def test_a_damaged_file_of_a_run_is_named(
    simulated: SimulatedTask, results: Path, faults_of: FaultsOf, name: str
) -> None:
    folder = simulated.run_folder(results)
    if name == "resume_0.pt":
        (folder / "fold_0.json").unlink()
    (folder / name).write_bytes(b"{")
    before = files_but_checks(results)
    (fault,) = faults_of(simulated.options(results, "--max_epochs", "1", "--resume"))
    assert str(folder / name) in str(fault)
    after = files_but_checks(results)
    assert after.keys() == before.keys()
    changed = {file for file in before if before[file] != after[file]}
    assert changed <= {str((folder / "config.json").relative_to(results))} - {str((folder / name).relative_to(results))}
