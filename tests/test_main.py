"""main.py end to end on the simulated task: what a run writes, that it repeats itself, that it goes on after a kill,
and that it learns."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import main
from datasets.task import Slide
from tests.conftest import PROJECT, SimulatedTask
from utils.config import Config
from utils.interface import Bag

RunMain = Callable[..., tuple[int, str, str]]
METRICS = ["test_auc", "test_f1", "test_acc", "val_auc", "val_f1", "val_acc"]
CLASSES = ["SIMULATED_A", "SIMULATED_B"]


@pytest.fixture(scope="module")
def whole(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both folds, 3 epochs. Read only."""
    results = tmp_path_factory.mktemp("whole")
    main.main(simulated.options(results))
    return results


@pytest.fixture(scope="module")
def quick(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train one epoch of fold 0 with some options: -> the run's folder. Each choice of options is trained once."""

    @functools.cache
    def run(*options: str) -> Path:
        results = tmp_path_factory.mktemp("quick")
        main.main(simulated.options(results, "--max_epochs", "1", "--k_end", "1", *options))
        return simulated.run_folder(results)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(folder: Path) -> dict[str, bytes]:
    """Everything of a run that the seed determines."""
    names = ("results.csv", "summary.csv", "predictions_", "history_", "splits_", "fold_")
    return {name: data for name, data in contents(folder).items() if name.startswith(names)}


def train_loss(folder: Path) -> float:
    return float(pd.read_csv(folder / "history_0.csv")["train_loss"].iloc[0])


# ------------------------------------------------------------------------------------------------ files of a run


def test_files_of_a_run(simulated: SimulatedTask, whole: Path) -> None:
    folder = simulated.run_folder(whole)
    expected = {"config.json", "summary.csv", "results.csv"}
    for k in range(2):
        expected |= {f"splits_{k}.csv", f"s_{k}_checkpoint.pt", f"history_{k}.csv", f"predictions_{k}.csv"}
    found = set(contents(folder))
    assert found >= expected
    # no state to resume from, no temporary files; the folds' own results are what --resume reads
    assert {name for name in found - expected if not name.startswith(".")} == {"fold_0.json", "fold_1.json"}
    others = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert {name for name in others if not name.startswith("simulated/tinyclip/4/")} <= {
        "simulated/tinyclip/checked_features.json"
    }


def test_config_json(simulated: SimulatedTask, whole: Path) -> None:
    record = json.loads((simulated.run_folder(whole) / "config.json").read_text())
    config, _ = main.parse(simulated.options(whole))
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
        best = summary.loc[k, "best_epoch"]
        assert best == history["val_acc"].idxmax()  # the first of the best
        assert summary.loc[k, "epochs"] == 3
        for name in ("val_acc", "val_auc", "val_f1"):
            assert summary.loc[k, name] == history[name][best]


def test_predictions(simulated: SimulatedTask, whole: Path) -> None:
    labels = pd.read_csv(simulated.root / "simulated.csv", index_col="slide_id")["label"]
    for k in range(2):
        table = pd.read_csv(simulated.run_folder(whole) / f"predictions_{k}.csv")
        assert list(table) == ["split", "slide_id", "label", "prediction", "prob_SIMULATED_A", "prob_SIMULATED_B"]
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
    assert list(results) == ["metric", *METRICS]
    assert results["metric"].tolist() == ["mean", "std"]
    values = summary[METRICS].to_numpy()
    assert (values[0] != values[1]).any()
    np.testing.assert_allclose(results[METRICS].iloc[0].to_numpy(float), values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(results[METRICS].iloc[1].to_numpy(float), values.std(0), rtol=1e-12)


def test_checkpoints_hold_what_is_trained_and_nothing_else(simulated: SimulatedTask, whole: Path) -> None:
    for k in range(2):
        saved = torch.load(simulated.run_folder(whole) / f"s_{k}_checkpoint.pt", weights_only=True)
        assert all(type(tensor) is torch.Tensor and torch.isfinite(tensor).all() for tensor in saved.values())
        assert saved["prompts.context_tokens"].shape == (16, 16)
        assert not [name for name in saved if "tower" in name]


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
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = simulated.run_folder(tmp_path)
    before = contents(folder)
    code, _, err = run_main(simulated.options(tmp_path))
    assert code == 2
    assert "fold 0, 1 of this run is finished" in err and "--resume" in err
    assert contents(folder) == before


def test_resume_takes_options_without_effect(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = contents(simulated.run_folder(tmp_path))
    code, out, _ = run_main(simulated.options(tmp_path, "--resume", "--prototype_number", "8"))
    assert code == 0
    assert notes(out) == ["note: --prototype_number has no effect on HiVE_MIL --variant paper"]
    assert contents(simulated.run_folder(tmp_path)) == before
    code, _, err = run_main(simulated.options(tmp_path, "--resume", "--prototype_number", "8", "--htcl", "none"))
    assert code == 2
    assert "htcl 'class_wise', now 'none'" in err and "prototype_number" not in err


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
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    """Folds of different features are not averaged."""
    shutil.copytree(whole, tmp_path / "results")
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    file = tmp_path / "features" / "simulated_tinyclip" / "tinyclip_5x" / "SIM-0003.h5"
    with h5py.File(file, "r+") as opened:
        opened["features"][0, 0] += 1.0
    options = simulated.options(tmp_path / "results", "--resume")
    code, _, err = run_main([*options, "--data_root_dir", str(tmp_path / "features")])
    assert code == 2
    assert "features_0 has changed since" in err


def test_two_processes_do_not_train_the_same_fold(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    from utils.results import RunFolder

    with RunFolder(simulated.run_folder(tmp_path)).lock("fold_0"):
        code, _, err = run_main(simulated.options(tmp_path))
    assert code == 2
    assert "another process is at work on fold_0" in err
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
    assert results.loc["mean"].tolist() == first[METRICS].iloc[0].tolist()
    assert run_main(simulated.options(tmp_path, "--k_start", "1", "--k_end", "2"))[0] == 0
    assert pd.read_csv(folder / "summary_partial_1_2.csv")["fold"].tolist() == [1]
    found, expected = numbers(folder), numbers(simulated.run_folder(whole))
    assert {name: found[name] for name in expected} == expected
    inputs = json.loads((folder / "config.json").read_text())["inputs"]
    assert {"splits_0", "splits_1"} <= set(inputs)


def test_dry_run_writes_no_run(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    code, out, err = run_main(simulated.options(tmp_path, "--dry_run"))
    assert (code, err) == (0, "")
    assert "dry run: all checks passed" in out
    assert "epoch" not in out
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["checked_features.json"]
    assert not simulated.run_folder(tmp_path).exists()


# ---------------------------------------------------------------------------------------------- after an interruption


def start(options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "main.py", *options],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after_two_epochs(run: subprocess.Popen[str], history: Path) -> str:
    """kill -9 when the history has two rows: -> standard output so far."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if len(history.read_text().splitlines()) >= 3:
                break
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    out, err = run.communicate()
    assert run.returncode == -signal.SIGKILL, err
    return out


def test_resume_after_kill(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    main.main(simulated.options(tmp_path / "whole", "--max_epochs", "8"))
    options = simulated.options(tmp_path / "killed", "--max_epochs", "8")
    folder = simulated.run_folder(tmp_path / "killed")

    kill_after_two_epochs(start(options), folder / "history_0.csv")
    assert not (folder / "fold_0.json").exists()
    epochs_before = len(pd.read_csv(folder / "history_0.csv"))
    assert 2 <= epochs_before < 8

    out = kill_after_two_epochs(start([*options, "--resume"]), folder / "history_1.csv")
    assert (folder / "fold_0.json").exists() and not (folder / "fold_1.json").exists()
    # the history is written before the state: the second epoch may have to be repeated, the first may not
    assert "fold 0 epoch   1/8" not in out and "fold 0 epoch   8/8" in out and "fold 1 epoch   1/8" in out
    assert 2 <= len(pd.read_csv(folder / "history_1.csv")) < 8
    assert not (folder / "results.csv").exists()

    code, out, err = run_main([*options, "--resume"])
    assert (code, err) == (0, "")
    assert "fold 0 epoch" not in out and "fold 1 epoch   1/8" not in out and "fold 1 epoch   8/8" in out
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
    before = contents(folder)
    unwritten = ("s_", "history_", "predictions_", "fold_", "splits_")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name.startswith(unwritten)}
    code, out, err = run_main(simulated.options(tmp_path, "--resume"))
    assert (code, err) == (0, "")
    assert "epoch   1/3" not in out
    assert "fold 0: test auc" in out and "fold 1: test auc" in out
    after = contents(folder)
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
    from utils.results import RunFolder

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
    import utils.training

    options = ["--drop_out", "--num_workers", "1", "--k_end", "1"]
    main.main(simulated.options(tmp_path / "whole", *options))
    save, calls = utils.training._save, []

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils.training, "_save", save_and_stop)
        assert run_main(simulated.options(tmp_path / "stopped", *options))[0] == 130
    assert run_main(simulated.options(tmp_path / "stopped", *options, "--resume"))[0] == 0
    stopped, expected = (numbers(simulated.run_folder(tmp_path / name)) for name in ("stopped", "whole"))
    assert stopped == expected


# ------------------------------------------------------------------------------------------------ options and notes


def notes(out: str) -> list[str]:
    return [line for line in out.splitlines() if "no effect" in line]


def test_no_notes_without_reason(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--drop_out", "--bag_loss", "svm", "--tgdf", "none"))
    assert notes(out) == []
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--variant", "released"))
    assert notes(out) == []


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_options_without_effect_say_so_once(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, variant: str
) -> None:
    given = ["--mode", "transformer", "--prototype_number", "8"]
    names = ["mode", "prototype_number"]
    if variant == "released":
        given += ["--drop-out", "--bag-loss", "svm", "--tgdf", "none", "--htcl", "instance_wise"]
        given += ["--hier_aggregator", "maa", "--hier_direction", "up"]
        names += ["drop_out", "bag_loss", "tgdf", "htcl", "hier_aggregator", "hier_direction"]
    code, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--variant", variant, *given))
    assert code == 0
    assert len(notes(out)) == len(names)
    for name in names:
        assert sum(f"--{name} " in line for line in notes(out)) == 1
    # the dry run ends before training; a run says them no more often
    if variant == "paper":
        _, out, _ = run_main(simulated.options(tmp_path, "--max_epochs", "1", *given))
        assert len(notes(out)) == len(names)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        (("--contrastive_lambda", "0.1"), ("--htcl", "none")),
        (("--filter_alpha", "0.1"), ("--tgdf", "none")),
        (("--hier_aggregator", "maa"), ("--hier_direction", "none")),
        (("--top_k_high", "3"), ("--scales", "low")),
        (("--top_k_low", "1"), ("--scales", "high")),
    ],
    ids=lambda words: " ".join(words),
)
def test_options_that_another_one_switches_off_say_so(
    simulated: SimulatedTask,
    tmp_path: Path,
    run_main: RunMain,
    quick: Callable[..., Path],
    option: tuple[str, ...],
    choices: tuple[str, ...],
) -> None:
    predictions = [(quick(*more) / "predictions_0.csv").read_bytes() for more in (choices, (*choices, *option))]
    assert predictions[0] == predictions[1]
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", *option, *choices))
    assert len(notes(out)) == 1 and f"{option[0]} " in notes(out)[0]


def test_options_without_effect_have_none(quick: Callable[..., Path]) -> None:
    """The released variant with all of them gives the numbers of the released variant without."""
    plain = quick("--variant", "released")
    given = quick(
        *("--variant", "released", "--drop_out", "--bag_loss", "focal", "--tgdf", "none", "--htcl", "none"),
        *("--hier_aggregator", "sage", "--hier_direction", "none", "--mode", "x", "--prototype_number", "3"),
    )
    assert numbers(given) == numbers(plain)
    assert train_loss(plain) != train_loss(quick())


OPTIONS_WITH_EFFECT = [
    *[("--tgdf", choice) for choice in ("no_mask_propagation", "high_only", "none")],
    *[("--htcl", choice) for choice in ("instance_wise", "share_parent", "none")],
    *[("--hier_aggregator", choice) for choice in ("maa", "saa", "attention", "sage")],
    *[("--hier_direction", choice) for choice in ("up", "down", "none")],
    *[("--scales", choice) for choice in ("low", "high")],
    *[("--bag_loss", choice) for choice in ("focal", "svm")],
    *[("--text_format", choice) for choice in ("term", "explanation")],
    *[("--class-token-position", choice) for choice in ("front", "middle")],
    ("--class-specific-token",),
    ("--weighted_sample",),
    ("--drop_out",),
    ("--opt", "sgd"),
    ("--label_frac", "0.5"),
    ("--top_k_low", "1"),
    ("--top_k_high", "3"),
    ("--filter-alpha", "1"),
    ("--contrastive_lambda", "0.1"),
    ("--num-context-tokens", "4"),
    ("--reg", "0.1"),
    ("--variant", "released"),
    ("--variant", "released", "--class-specific-token"),
    ("--variant", "released", "--scales", "low"),
    ("--variant", "released", "--filter_alpha", "1"),
]


@pytest.mark.parametrize("options", OPTIONS_WITH_EFFECT, ids=" ".join)
def test_an_option_trains_and_has_an_effect(quick: Callable[..., Path], options: tuple[str, ...]) -> None:
    folder = quick(*options)
    history = pd.read_csv(folder / "history_0.csv")
    assert len(history) == 1
    assert np.isfinite(history[["train_loss", "train_acc", "val_loss", "val_auc", "val_hit_ratio"]].to_numpy()).all()
    predictions = pd.read_csv(folder / "predictions_0.csv")
    assert np.isfinite(predictions[[f"prob_{name}" for name in CLASSES]].to_numpy()).all()
    others = [("--variant", "released")] if options[:2] == ("--variant", "released") and len(options) > 2 else []
    for other in [(), *others]:
        assert train_loss(folder) != train_loss(quick(*other))
    assert (folder / "predictions_0.csv").read_bytes() != (quick() / "predictions_0.csv").read_bytes()


def test_ablations_differ_from_each_other(quick: Callable[..., Path]) -> None:
    for name in ("--tgdf", "--htcl", "--hier_aggregator", "--hier_direction", "--scales", "--bag_loss"):
        losses = [train_loss(quick(*options)) for options in OPTIONS_WITH_EFFECT if options[0] == name]
        assert len({*losses, train_loss(quick())}) == len(losses) + 1, name


def test_label_frac_takes_a_share_of_every_class(simulated: SimulatedTask, quick: Callable[..., Path]) -> None:
    labels = pd.read_csv(simulated.root / "simulated.csv", index_col="slide_id")["label"]
    written = pd.read_csv(quick("--label_frac", "0.5") / "splits_0.csv", index_col=0)
    given = pd.read_csv(simulated.split_dir / "splits_0.csv", index_col=0)
    train = written["train"].dropna()
    assert set(train) < set(given["train"].dropna())
    assert labels[train].value_counts().to_dict() == dict.fromkeys(CLASSES, 2)
    for name in ("val", "test"):
        assert written[name].dropna().tolist() == given[name].dropna().tolist()


def test_testing_is_a_quick_try(simulated: SimulatedTask, tmp_path: Path) -> None:
    main.main(simulated.options(tmp_path, "--testing", "--max_epochs", "50"))
    folder = simulated.run_folder(tmp_path)
    assert not folder.exists()  # the real run's place stays free
    folder = folder.with_name(f"{folder.name}_testing")
    labels = pd.read_csv(simulated.root / "simulated.csv", index_col="slide_id")["label"]
    for k in range(2):
        assert len(pd.read_csv(folder / f"history_{k}.csv")) == 2
        split = pd.read_csv(folder / f"splits_{k}.csv", index_col=0)
        for name in ("train", "val", "test"):
            assert labels[split[name]].value_counts().to_dict() == dict.fromkeys(CLASSES, 2)
        assert len(pd.read_csv(folder / f"predictions_{k}.csv")) == 8
    assert (folder / "results.csv").exists()


def test_early_stopping_stops(simulated: SimulatedTask, tmp_path: Path) -> None:
    """A learning rate of nothing: the first epoch stays the best one."""
    main.main(simulated.options(tmp_path, "--lr", "0", "--max_epochs", "30", "--early_stopping", "--k_end", "1"))
    summary = pd.read_csv(simulated.run_folder(tmp_path) / "summary_partial_0_1.csv")
    assert summary[["best_epoch", "epochs"]].iloc[0].tolist() == [0, 11]


def test_log_data(quick: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = quick("--log_data")
    events = EventAccumulator(str(folder / "tensorboard" / "fold_0"))
    events.Reload()
    assert [event.value for event in events.Scalars("train_loss")] == pytest.approx([train_loss(folder)], rel=1e-6)
    assert numbers(folder) == numbers(quick())


def test_bf16_is_close_to_fp32(quick: Callable[..., Path]) -> None:
    fp32, bf16 = (pd.read_csv(quick(*more) / "predictions_0.csv") for more in ((), ("--precision", "bf16")))
    columns = [f"prob_{name}" for name in CLASSES]
    difference = np.abs(fp32[columns].to_numpy() - bf16[columns].to_numpy()).max()
    assert 0 < difference < 0.15  # eight training steps apart
    assert train_loss(quick("--precision", "bf16")) == pytest.approx(train_loss(quick()), abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        *[("--lr", "-1"), ("--lr", "nan"), ("--reg", "-1"), ("--reg", "nan"), ("--filter-alpha", "nan")],
        *[("--contrastive-lambda", "nan"), ("--num-context-tokens", "100"), ("--label_frac", "nan")],
    ],
    ids=" ".join,
)
def test_impossible_numbers_are_refused(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, options: tuple[str, ...]
) -> None:
    """Before anything is written: a config.json left behind would refuse the corrected run."""
    code, out, err = run_main(simulated.options(tmp_path, "--max_epochs", "1", *options))
    message = err.rpartition("error: ")[2].replace("-", "_")
    assert code == 2, out + err
    assert options[0].removeprefix("--").replace("-", "_") in message
    assert not simulated.run_folder(tmp_path).exists()


def test_any_integer_is_a_seed(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    options = simulated.options(tmp_path, "--max_epochs", "1", "--k_end", "1", "--seed", "-1", "--label_frac", "0.5")
    assert run_main(options)[0] == 0


def test_feature_dim_is_checked(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    assert run_main(simulated.options(tmp_path, "--dry_run", "--feature_dim", "16"))[0] == 0
    code, _, err = run_main(simulated.options(tmp_path, "--dry_run", "--feature_dim", "512"))
    assert code == 2
    assert "--feature_dim 512" in err and "16 wide" in err


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
    """Three classes of 24 slides, as the demo makes them."""
    import create_simulated_task

    root = tmp_path_factory.mktemp("learnable")
    create_simulated_task.main(["--output-dir", str(root), "--slides-per-class", "24"])
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
            *("--k", "2", "--lr", "1e-3", "--max_epochs", "7", "--results_dir", str(results), "--device", "cpu"),
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
