"""main.py repeats itself, keeps what is finished, and goes on after a kill."""

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pandas as pd
import pytest
import torch

import main
from datasets.task import Slide
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.faults import check_fault
from tests.support.forked import start_script
from tests.support.run_contents import METRICS, files_below, notes, numbers, train_loss
from utils.interface import Bag

# ------------------------------------------------------------------------------------------------ repeating a run


def test_same_seed_same_bytes(simulated: SimulatedTask, whole: Path, tmp_path: Path) -> None:
    main.main(simulated.options(tmp_path))
    assert numbers(simulated.run_folder(tmp_path)) == numbers(simulated.run_folder(whole))
    assert len(numbers(simulated.run_folder(whole))) == 2 + 4 * 2


def test_other_seed_other_numbers(simulated: SimulatedTask, quick: Callable[..., Path], tmp_path: Path) -> None:
    main.main(simulated.options(tmp_path, "--max_epochs", "1", "--k_end", "1", "--seed", "2"))
    folder = simulated.run_folder(tmp_path).with_name("simulated_tinyclip_HiVE_MIL_4_s2")
    assert train_loss(folder) != train_loss(quick())
    assert (folder / "predictions_0.csv").read_bytes() != (quick() / "predictions_0.csv").read_bytes()


def test_a_fold_by_itself_is_that_of_the_whole_run(simulated: SimulatedTask, whole: Path, tmp_path: Path) -> None:
    main.main(simulated.options(tmp_path, "--k_start", "1"))
    alone, together = numbers(simulated.run_folder(tmp_path)), numbers(simulated.run_folder(whole))
    assert set(alone) == {"splits_1.csv", "history_1.csv", "predictions_1.csv", "fold_1.json"}
    assert all(alone[name] == together[name] for name in alone)


def test_every_fold_starts_from_the_same_seed(simulated: SimulatedTask, tmp_path: Path) -> None:
    """Two folds of the same slides are alike, to the last digit."""
    splits = tmp_path / "splits"
    splits.mkdir()
    for k in range(2):
        shutil.copy(simulated.split_dir / "splits_0.csv", splits / f"splits_{k}.csv")
    main.main(simulated.options(tmp_path, "--max_epochs", "2", "--drop_out", "--split_dir", str(splits)))
    found = numbers(simulated.run_folder(tmp_path))
    for name in ("history", "predictions", "splits"):
        assert found[f"{name}_0.csv"] == found[f"{name}_1.csv"]


def test_training_slides_come_in_another_order_every_epoch(
    simulated: SimulatedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets.bag_cache import BagCache

    get, order = BagCache.get, []

    def note_and_get(cache: BagCache, slide: Slide) -> Bag:
        order.append(slide.slide_id)
        return get(cache, slide)

    monkeypatch.setattr(BagCache, "get", note_and_get)
    main.main(simulated.options(tmp_path, "--max_epochs", "2", "--k_end", "1"))
    split = pd.read_csv(simulated.split_dir / "splits_0.csv")
    train, val = split["train"].dropna().tolist(), split["val"].dropna().tolist()
    length = len(train) + len(val)
    epochs = [order[:length], order[length : 2 * length]]
    assert [epoch[len(train) :] for epoch in epochs] == [val, val]
    trained = [epoch[: len(train)] for epoch in epochs]
    assert all(sorted(ids) == sorted(train) for ids in trained)
    assert trained[0] != trained[1] and train not in trained


def test_finished_folds_are_not_overwritten(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = simulated.run_folder(tmp_path)
    before = files_below(folder)
    (fault,) = faults_of(simulated.options(tmp_path))
    assert (fault.code, fault.where) == ("run.finished", str(folder))
    assert "fold 0, 1" in fault.found and "--resume" in fault.mend
    assert files_below(folder) == before


def test_resume_takes_options_without_effect(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = files_below(simulated.run_folder(tmp_path))
    code, out, _ = run_main(simulated.options(tmp_path, "--resume", "--prototype_number", "8"))
    assert code == 0
    assert notes(out) == ["note: --prototype_number has no effect on HiVE_MIL --variant paper"]
    assert files_below(simulated.run_folder(tmp_path)) == before
    (fault,) = faults_of(simulated.options(tmp_path, "--resume", "--prototype_number", "8", "--htcl", "none"))
    assert "htcl 'class_wise', now 'none'" in str(fault) and "prototype_number" not in str(fault)


def test_an_unfinished_fold_starts_over(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = simulated.run_folder(tmp_path)
    (folder / "fold_1.json").unlink()
    (folder / "predictions_1.csv").write_text("of another day")
    (folder / "resume_1.pt").write_text("of another day")
    assert run_main(simulated.options(tmp_path, "--k_start", "1"))[0] == 0
    assert numbers(folder) == {**numbers(simulated.run_folder(whole))}


def test_features_that_changed_are_another_run(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    """Folds of different features are not averaged."""
    shutil.copytree(whole, tmp_path / "results")
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    file = tmp_path / "features" / "simulated_tinyclip" / "tinyclip_5x" / "SIM-0003.h5"
    with h5py.File(file, "r+") as opened:
        opened["features"][0, 0] += 1.0
    options = simulated.options(tmp_path / "results", "--resume")
    (fault,) = faults_of([*options, "--data_root_dir", str(tmp_path / "features")])
    check_fault(fault, "run.other_settings", simulated.run_folder(tmp_path / "results"), "features_0 has changed since")


def test_two_processes_do_not_train_the_same_fold(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    from training.run_folder import RunFolder

    with RunFolder(simulated.run_folder(tmp_path)).lock("fold_0"):
        (fault,) = faults_of(simulated.options(tmp_path))
    check_fault(fault, "run.locked", simulated.run_folder(tmp_path), "another process is at work on fold_0")
    assert run_main(simulated.options(tmp_path, "--k_end", "1"))[0] == 0


@pytest.mark.parametrize("more", [(), ("--drop_out",)], ids=["plain", "drop_out"])
def test_reading_ahead_and_keeping_in_memory_change_nothing(
    simulated: SimulatedTask, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """With dropout the training draws random numbers, which reading must leave alone."""
    options = ["--max_epochs", "2", "--k_end", "1", *more]
    main.main(simulated.options(tmp_path / "none", *options, "--num_workers", "0", "--cache_gb", "0"))
    main.main(simulated.options(tmp_path / "both", *options, "--num_workers", "2", "--cache_gb", "1"))
    without, both = (numbers(simulated.run_folder(tmp_path / name)) for name in ("none", "both"))
    assert len(without) == 4
    assert both == without


def test_folds_one_by_one_give_the_results_of_the_whole(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    folder = simulated.run_folder(tmp_path)
    assert run_main(simulated.options(tmp_path, "--k_start", "0", "--k_end", "1"))[0] == 0
    assert not (folder / "results.csv").exists() and not (folder / "summary.csv").exists()
    first = pd.read_csv(folder / "summary_partial_0_1.csv")
    assert first["fold"].tolist() == [0]
    results = pd.read_csv(folder / "results_partial_0_1.csv", index_col="metric")
    assert results.loc["mean", METRICS].tolist() == first[METRICS].iloc[0].tolist()
    assert run_main(simulated.options(tmp_path, "--k_start", "1", "--k_end", "2"))[0] == 0
    assert pd.read_csv(folder / "summary_partial_1_2.csv")["fold"].tolist() == [1]
    found, expected = numbers(folder), numbers(simulated.run_folder(whole))
    assert {name: found[name] for name in expected} == expected
    inputs = json.loads((folder / "config.json").read_text())["inputs"]
    assert {"splits_0", "splits_1"} <= set(inputs)


# ---------------------------------------------------------------------------------------------- after an interruption


def kill_after_two_epochs(options: list[str], history: Path, said: Path) -> str:
    """kill -9 main.py when the history has two rows: -> what it said so far."""
    run = start_script("main", options, said)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.is_alive():
        with contextlib.suppress(FileNotFoundError):
            if len(history.read_text().splitlines()) >= 3:
                break
        time.sleep(0.005)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL, said.read_text()
    return said.read_text()


def test_resume_after_kill(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    main.main(simulated.options(tmp_path / "whole", "--max_epochs", "6"))
    options = simulated.options(tmp_path / "killed", "--max_epochs", "6")
    folder = simulated.run_folder(tmp_path / "killed")

    kill_after_two_epochs(options, folder / "history_0.csv", tmp_path / "said")
    assert not (folder / "fold_0.json").exists()
    epochs_before = len(pd.read_csv(folder / "history_0.csv"))
    assert 2 <= epochs_before < 6

    out = kill_after_two_epochs([*options, "--resume"], folder / "history_1.csv", tmp_path / "said")
    assert (folder / "fold_0.json").exists() and not (folder / "fold_1.json").exists()
    # the history is written before the state: the second epoch may have to be repeated, the first may not
    assert "fold 0 epoch   1/6" not in out and "fold 0 epoch   6/6" in out and "fold 1 epoch   1/6" in out
    assert 2 <= len(pd.read_csv(folder / "history_1.csv")) < 6
    assert not (folder / "results.csv").exists()

    code, out, err = run_main([*options, "--resume"])
    assert (code, err) == (0, "")
    assert "fold 0 epoch" not in out and "fold 1 epoch   1/6" not in out and "fold 1 epoch   6/6" in out
    assert numbers(folder) == numbers(simulated.run_folder(tmp_path / "whole"))
    for k in range(2):
        resumed, expected = (
            torch.load(simulated.run_folder(tmp_path / name) / f"s_{k}_checkpoint.pt", weights_only=True)
            for name in ("killed", "whole")
        )
        assert resumed.keys() == expected.keys()
        assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert not list(folder.glob("resume_*"))


def test_resume_of_a_finished_run_trains_nothing(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = simulated.run_folder(tmp_path)
    before = files_below(folder)
    unwritten = ("s_", "history_", "predictions_", "fold_", "splits_")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name.startswith(unwritten)}
    code, out, err = run_main(simulated.options(tmp_path, "--resume"))
    assert (code, err) == (0, "")
    assert "epoch   1/3" not in out
    assert "fold 0: test auc" in out and "fold 1: test auc" in out
    after = files_below(folder)
    records = [json.loads(files.pop("config.json")) for files in (before, after)]
    assert after == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for record in records:  # that it was resumed, and where it lies, may be noted
        del record["options"]["resume"], record["options"]["results_dir"]
    assert records[0] == records[1]


def test_resume_after_the_last_epoch_only_tests(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between training and the fold's results."""
    from training.run_folder import RunFolder

    def stop(self: RunFolder, result: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", stop)
        code, _, err = run_main(simulated.options(tmp_path))
    assert code == 130
    assert "--resume" in err
    code, out, _ = run_main(simulated.options(tmp_path, "--resume"))
    assert code == 0
    assert "fold 0 epoch" not in out and "fold 1 epoch   1/3" in out
    assert numbers(simulated.run_folder(tmp_path)) == numbers(simulated.run_folder(whole))


def test_resume_draws_the_same_dropout(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thread that reads ahead, too: it is started in an epoch that is not the first."""
    import training.loop

    options = ["--drop_out", "--num_workers", "1", "--k_end", "1"]
    main.main(simulated.options(tmp_path / "whole", *options))
    save, calls = training.loop.save_state, []

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.loop, "save_state", save_and_stop)
        assert run_main(simulated.options(tmp_path / "stopped", *options))[0] == 130
    assert run_main(simulated.options(tmp_path / "stopped", *options, "--resume"))[0] == 0
    stopped, expected = (numbers(simulated.run_folder(tmp_path / name)) for name in ("stopped", "whole"))
    assert stopped == expected
