"""Several faults at once, and folders that hold another run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SimulatedTask
from tests.support.damage import (
    HIGH,
    LOW,
    SLIDE,
    Refused,
    change,
    change_json,
    change_text,
    count_faults,
    files_but_checks,
    first_is,
    other_clip,
    read_ids,
    without_last,
    write_ids,
)


def test_five_faults_at_once_are_all_listed(task: SimulatedTask, refused: Refused) -> None:
    missing, broken = task.features / LOW / f"{SLIDE}.h5", task.features / HIGH / "SIM-1002.h5"
    missing.unlink()
    change(broken, "features", first_is(np.nan))
    split = task.split_dir / "splits_0.csv"
    ids = read_ids(split)
    write_ids(split, {**ids, "test": [*ids["test"], ids["train"][0]]})
    change_json(task.root / "simulated.json", without_last)
    message = refused("--feature_dim", "32", faults=5)
    for part in (
        f"  - {missing}: file not found",
        f"  - {broken}: 1 of ",
        f"  - {split}: slide {ids['train'][0]} stands in train and test",
        f"  - {task.root / 'simulated.json'}: class 'SIMULATED_B' has 15 descriptions",
        "  - --feature_dim 32: ",
    ):
        assert part in message


def test_a_missing_table_hides_no_other_missing_file(task: SimulatedTask, refused: Refused) -> None:
    (task.root / "tinyclip").unlink()
    (task.root / "simulated.csv").unlink()
    (task.root / "simulated.json").unlink()
    (task.split_dir / "splits_1.csv").unlink()
    shutil.rmtree(task.features)
    message = refused(faults=5)
    for name in ("tinyclip", "simulated.csv", "simulated.json", "splits/simulated_4/splits_1.csv"):
        assert f"{task.root / name}: " in message
    assert f"{task.features}: " in message


@pytest.mark.parametrize("epochs", ["1", "2"])
def test_a_run_whose_weights_overflow_says_so(
    task: SimulatedTask, run_main: Callable, tmp_path: Path, epochs: str
) -> None:
    options = ("--lr", "1e38", "--opt", "sgd", "--max_epochs", epochs)
    code, _, err = run_main(task.options(tmp_path / "results", *options))
    assert code == 2
    assert count_faults(err) == 1
    assert "--lr" in err
    assert "fold 0" in err


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
    "clip": ((), other_clip, "text_tower has changed since"),
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
    task: SimulatedTask, results: Path, run_main: Callable, case: str, resume: tuple[str, ...]
) -> None:
    options, change_task, difference = OTHER_RUNS[case]
    if change_task:
        change_task(task)
    before = files_but_checks(results)
    code, out, err = run_main(task.options(results, "--max_epochs", "1", *options, *resume))
    assert code == 2, out
    assert count_faults(err) == 1
    assert f"{task.run_folder(results)}: holds a run with other settings (" in err
    assert difference in err
    assert "--results_dir" in err
    assert files_but_checks(results) == before


def test_a_finished_run_is_not_started_over(simulated: SimulatedTask, results: Path, run_main: Callable) -> None:
    before = files_but_checks(results)
    code, out, err = run_main(simulated.options(results, "--max_epochs", "1"))
    assert code == 2, out
    assert f"{simulated.run_folder(results)}: fold 0, 1 of this run is finished" in err
    assert "--resume" in err
    assert "--results_dir" in err
    assert files_but_checks(results) == before


@pytest.mark.parametrize("name", ["config.json", "fold_0.json", "resume_0.pt"])
def test_a_damaged_file_of_a_run_is_named(
    simulated: SimulatedTask, results: Path, run_main: Callable, name: str
) -> None:
    folder = simulated.run_folder(results)
    if name == "resume_0.pt":
        (folder / "fold_0.json").unlink()
    (folder / name).write_bytes(b"{")
    before = files_but_checks(results)
    code, out, err = run_main(simulated.options(results, "--max_epochs", "1", "--resume"))
    assert code == 2, out
    assert str(folder / name) in err
    after = files_but_checks(results)
    assert after.keys() == before.keys()
    changed = {file for file in before if before[file] != after[file]}
    assert changed <= {str((folder / "config.json").relative_to(results))} - {str((folder / name).relative_to(results))}
