"""A task that may be broken, a run that was finished, and main.py expected to refuse."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SimulatedTask
from tests.support.damage import (
    Refused,
    count_faults,
    files_but_checks,
)


@pytest.fixture
def task(simulated: SimulatedTask, tmp_path: Path) -> SimulatedTask:
    """A copy of the simulated task that a test may break; its CLIP is the original."""
    root = tmp_path / "task"
    shutil.copytree(simulated.root, root, ignore=shutil.ignore_patterns("planted", "tinyclip_20x", "tinyclip"))
    (root / "tinyclip").symlink_to(simulated.root / "tinyclip")
    return SimulatedTask(root, simulated.shots)


@pytest.fixture
def refused(task: SimulatedTask, run_main: Callable, tmp_path: Path) -> Refused:
    """Run main.py on ``task`` and expect ``faults`` faults (None: a message of argparse); returns the message."""

    def run(*options: str, faults: int | None = 1, without: str = "") -> str:
        argv = task.options(tmp_path / "results", *options)
        if without:
            place = argv.index(without)
            del argv[place : place + 2]
        code, out, err = run_main(argv)
        assert code == 2, f"{out}\n{err}"
        assert "Traceback" not in out + err
        assert "epoch" not in out
        assert files_but_checks(tmp_path / "results") == {}
        if faults is None:
            assert err.startswith("usage: ")
        else:
            assert count_faults(err) == faults
        return err

    return run


@pytest.fixture(scope="module")
def finished_run(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run of one epoch over both folds. Read only."""
    import main

    results = tmp_path_factory.mktemp("finished")
    main.main(simulated.options(results, "--max_epochs", "1"))
    return results


@pytest.fixture
def results(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's results."""
    return Path(shutil.copytree(finished_run, tmp_path / "results"))
