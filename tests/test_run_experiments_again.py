"""run_experiments.py: folds that were killed, lost or interrupted are started again."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import main
from tests.conftest import PROJECT, RunMain, SimulatedTask
from tests.support.stand_in import LAUNCHER, folds_at_work, options, run_folder, stand_in_fixture, starts, wait_for  # noqa: F401
from training.metrics import RESULT_COLUMNS

# ------------------------------------------------------------------------------------------------ with main.py itself


def test_a_grid_with_a_killed_fold_gives_what_main_gives(simulated: SimulatedTask, tmp_path: Path) -> None:
    """main.py itself; one of two folds is finished before."""
    wanted = tmp_path / "main"
    more = ["--htcl", "none", "--max_epochs", "3"]
    main.main(simulated.options(wanted, *more))
    results = tmp_path / "grid"
    given = simulated.options(results, *more)
    setting = results / "htcl=none,k=2,lr=0.001,max_epochs=3"
    run = simulated.run_folder(setting)
    main.main(simulated.options(setting, *more, "--k_end", "1"))
    command = [sys.executable, str(PROJECT / "run_experiments.py"), "--local", "--jobs", "2", *given]
    grid = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "history_1.csv").exists())
    (process,) = folds_at_work(results, "--k_start=1")
    process.kill()
    output, _ = grid.communicate(timeout=600)
    assert grid.returncode == 0, output
    assert "2 of 2 folds" in output
    assert starts(run) == [2]
    for name in ("results.csv", "summary.csv", "predictions_0.csv", "predictions_1.csv", "fold_1.json"):
        assert (run / name).read_bytes() == (simulated.run_folder(wanted) / name).read_bytes()
    assert not list(run.glob("resume_*")) and folds_at_work(results) == []
    record = json.loads((results / "experiment.json").read_text())["runs"]
    assert [results / entry["path"] for entry in record] == [run]


@pytest.fixture(params=["--local", "Ray"])
def launch(
    request: pytest.FixtureRequest, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.Popen]:
    """Start a grid of some seeds in a process of its own, on Ray or without it."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # Ray looks beside the script, which is a launcher here
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launcher = [sys.executable, "-c", LAUNCHER, str(PROJECT), str(stand_in)]

    def start(*seeds: int) -> subprocess.Popen:
        given = options("--seed", *map(str, seeds), "--gpus_per_fold", "0", "--retries", "1")
        command = launcher + (given if request.param == "--local" else given[1:])
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_killed_folds_are_started_again(
    launch: Callable[..., subprocess.Popen], request: pytest.FixtureRequest
) -> None:
    """Seed 200: fold 1 is a mistake. 500: its folds are killed once. 600: its folds' workers are killed once, which
    without Ray are the grid itself."""
    is_local = request.node.callspec.params["launch"] == "--local"
    grid = launch(200, 500) if is_local else launch(200, 500, 600)
    out, err = grid.communicate(timeout=300)
    assert grid.returncode == 1 and "1 folds failed" in err
    ends = re.findall(r" fold (\d (?:exit code \d|finished))", out)
    finished = 1 if is_local else 2
    assert sorted(ends) == ["0 finished"] * (finished + 1) + ["1 exit code 2"] + ["1 finished"] * finished
    assert [starts(run_folder(seed)) for seed in (200, 500)] == [[1, 1], [2, 2]]
    assert (run_folder(500) / "logs" / "fold_1.log").read_text().count("fold 1 threads 1 GPUs none\n") == 2
    if not is_local:
        assert starts(run_folder(600)) == [2, 2] and (run_folder(600) / "results.csv").exists()


def test_ctrl_c_and_going_on(launch: Callable[..., subprocess.Popen], stand_in: Path, run_main: RunMain) -> None:
    """Seed 300: its folds do not end."""
    grid = launch(300)
    wait_for(lambda: len(folds_at_work(stand_in, "--seed=300")) == 2)
    family = psutil.Process(grid.pid).children(recursive=True)
    grid.send_signal(signal.SIGINT)
    _, err = grid.communicate(timeout=300)
    assert grid.returncode == 130
    assert err.splitlines()[-2:] == [
        "finished folds and epochs are kept: the same command goes on behind them", "interrupted"
    ]  # fmt: skip
    assert len(family) >= 2 and psutil.wait_procs(family, timeout=100)[1] == []

    result = {**dict.fromkeys(list(RESULT_COLUMNS), 0.5), "fold": 0, "test_hit_ratio": 0, "best_epoch": 0, "epochs": 1}
    (run_folder(300) / "fold_0.json").write_text(json.dumps(result))  # what fold 1 waits for
    code, out, _ = run_main(options("--seed", "300"), "run_experiments")
    assert code == 0 and "1 runs, 2 folds, 1 of them finished" in out
    assert (run_folder(300) / "results.csv").exists() and starts(run_folder(300)) == [1, 2]
