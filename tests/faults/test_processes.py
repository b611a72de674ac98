"""Runs that other processes change meanwhile, readers whose parent dies, and files that vanish."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import main
from tests.conftest import PROJECT, RunMain, SimulatedTask
from tests.support.faults import expect_faults
from tests.support.run_contents import files_below
from training.run_folder import RunFolder


@pytest.mark.parametrize("resume", [True, False])
def test_a_fold_that_another_process_finished_meanwhile_is_not_trained_again(
    task: SimulatedTask, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    """The other process finishes fold 1 just before this one gets its lock."""
    results = tmp_path / "results"
    run, other = task.run_folder(results), task.run_folder(finished_run)
    taken: dict[str, bytes] = {}
    real = RunFolder.lock

    @contextmanager
    def lock(self: RunFolder, name: str, wait: bool = False) -> Iterator[None]:
        if name == "fold_1":
            shutil.copytree(other, run, dirs_exist_ok=True)
            taken.update({name: data for name, data in files_below(run).items() if "_1" in name and name[0] != "."})
        with real(self, name, wait):
            yield

    monkeypatch.setattr(RunFolder, "lock", lock)
    options = task.options(results, "--max_epochs", "1", *(["--resume"] if resume else []))
    if resume:
        main.main(options)
    else:
        with expect_faults("run.finished"):
            main.main(options)
    assert len(taken) == 5
    assert {name: (run / name).read_bytes() for name in taken} == taken


def test_a_finished_fold_is_read_while_another_process_holds_its_lock(
    task: SimulatedTask, results: Path, run_main: RunMain
) -> None:
    with RunFolder(task.run_folder(results)).lock("fold_0"):
        assert run_main(task.options(results, "--max_epochs", "1", "--resume"))[0] == 0


# ---- what vanishes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "config", "fold"])
def test_what_vanishes_during_training_is_told(
    task: SimulatedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    results = tmp_path / "results"
    run = task.run_folder(results)
    vanish = {"folder": lambda: shutil.rmtree(run), "config": (run / "config.json").unlink, "fold": lambda: None}
    if what == "fold":
        real = RunFolder.summarise

        def summarise(self: RunFolder, *args: object) -> object:
            self.fold_result(0).unlink()
            return real(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(RunFolder, "summarise", summarise)
    else:
        import training.loop

        evaluate = training.loop.evaluate

        def evaluated(*args: object) -> object:
            vanish[what]()
            monkeypatch.undo()
            return evaluate(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(training.loop, "evaluate", evaluated)
    with expect_faults("run.missing" if what == "config" else "run.vanished") as faults:
        main.main(task.options(results, "--max_epochs", "1"))
    assert str(run) in faults[0].where
    if what == "folder":
        assert not run.exists()


# ---- a parent that dies ----------------------------------------------------------------------------------------------

READ = """
import os, time
from types import SimpleNamespace
import numpy as np
from datasets import slide_features
def read(self, item):
    print(os.getpid(), flush=True)
    time.sleep(600)
slide_features.RegionReader.__getitem__ = read
grid = SimpleNamespace(parents=np.zeros((8, 2)), is_child=np.ones((8, 2, 2), bool))
next(slide_features.extract_features([SimpleNamespace(grid=grid)], None, 4, batch_size=5, workers=2))
"""


def is_alive(number: int) -> bool:
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_readers_of_slides_die_with_their_parent(end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", READ], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout
    readers = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, readers))
    parent.send_signal(end)
    assert parent.wait() == -end
    deadline = time.monotonic() + 3
    while any(map(is_alive, readers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [reader for reader in readers if is_alive(reader)]
    for reader in left:
        os.kill(reader, signal.SIGKILL)
    assert left == []
