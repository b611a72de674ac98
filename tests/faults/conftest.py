"""A task that may be broken, a run that was finished, and main.py expected to refuse."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import FaultsOf, SimulatedTask
from tests.support.damage import files_but_checks
from tests.support.faults import Refused
from utils.errors import Fault


@pytest.fixture
def task(simulated: SimulatedTask, tmp_path: Path) -> SimulatedTask:
    """A copy of the simulated task that a test may break; its CLIP is the original."""
    root = tmp_path / "task"
    shutil.copytree(simulated.root, root, ignore=shutil.ignore_patterns("planted", "tinyclip_20x", "tinyclip"))
    (root / "tinyclip").symlink_to(simulated.root / "tinyclip")
    return SimulatedTask(root, simulated.shots)


@pytest.fixture
def refused(task: SimulatedTask, faults_of: FaultsOf, tmp_path: Path) -> Refused:
    """Run main.py on ``task`` and expect it to refuse, with ``faults`` faults, and to write nothing; returns them."""

    def run(*options: str, faults: int = 1, without: str = "") -> list[Fault]:
        argv = task.options(tmp_path / "results", *options)
        if without:
            place = argv.index(without)
            del argv[place : place + 2]
        found = faults_of(argv)
        assert files_but_checks(tmp_path / "results") == {}
        assert len(found) == faults, found
        return found

    return run


@pytest.fixture(scope="session")
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
