"""Fixtures: a small simulated task, made once, and the golden cases where they are at hand."""

import functools
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the core to other tests

import pytest
import torch
from filelock import FileLock

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared"

sys.path.insert(0, str(PROJECT))
import utils.torchvision_compat  # noqa: E402, F401  (before open_clip and transformers)
from utils.errors import Fault, UserError, run_script  # noqa: E402

if TYPE_CHECKING:
    from tests.support.planted_run import PlantedRun

torch.set_num_threads(1)

QUICK = {"test_fault_codes.py", "test_imports.py", "test_pretend_device.py", "test_sizes.py"}
TRAINED = {"planted_run", "whole", "quick", "run_main"}  # fixtures
RunMain = Callable[..., tuple[int, str, str]]
FaultsOf = Callable[..., list[Fault]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-baselines", metavar="DIR", help="golden cases of the baselines to check instead")
    parser.addoption("--golden-vlms", metavar="DIR", help="golden vision-language models to check instead")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what runs scripts or trains: the modules beside this one, but those of ``QUICK``, tests of faults,
    and whatever asks for a trained run. Modules with slow tests come first, so that no worker of pytest-xdist is left
    with a long one while the others have ended."""
    here = Path(__file__).parent
    for item in items:
        runs_scripts = item.path.parent in (here, here / "faults") and item.path.name not in QUICK
        if runs_scripts or TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden cases; the test is skipped where they are absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden cases (../shared/golden) are not here")
    return folder


@pytest.fixture(scope="session")
def released() -> Path:
    """The authors' released files; the test is skipped where they are absent."""
    folder = SHARED / "released_assets"
    if not folder.is_dir():
        pytest.skip("the released assets (../shared/released_assets) are not here")
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No test leaves another number of threads behind: the order of sums, and so the last bits of a result, depends on
    it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of models lies beside the tests' other files, for scripts in processes of their own too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIVE_MIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_tokenizer() -> Iterator[None]:
    """Build CLIP's vocabulary once, not for every run: it takes longer than training an epoch."""
    import open_clip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "SimpleTokenizer", functools.cache(open_clip.SimpleTokenizer))
        yield


@dataclass(frozen=True)
class SimulatedTask:
    """Where a simulated task lies, and the options that train on it. Tests that change files copy it first."""

    root: Path
    shots: int = 4

    @property
    def features(self) -> Path:
        return self.root / "features" / "simulated_tinyclip"

    @property
    def split_dir(self) -> Path:
        return self.root / "splits" / f"simulated_{self.shots}"

    def options(self, results: Path, *more: str) -> list[str]:
        """main.py's options; a run takes a few seconds."""
        root = self.root
        return [
            *("--task", "simulated", "--feature_extractor", "tinyclip", "--vlm_path", str(root / "tinyclip")),
            *("--data_root_dir", str(root / "features"), "--dataset_csv", str(root / "simulated.csv")),
            *("--text_prompt", str(root / "simulated.json"), "--split_dir", str(self.split_dir)),
            *("--few_shot_num", str(self.shots), "--k", "2", "--lr", "1e-3", "--max_epochs", "3"),
            *("--results_dir", str(results), "--device", "cpu", *more),
        ]

    def run_folder(self, results: Path) -> Path:
        name = f"simulated_tinyclip_HiVE_MIL_{self.shots}_s1"
        return results / "simulated" / "tinyclip" / str(self.shots) / name


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the workers of pytest-xdist fills, for all of them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"{name}_for_all"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.with_suffix(".made").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedTask:
    """Two classes, 10 slides each, 6 to 12 parents, features 16 wide, 2 folds of 4 shots. Read only; the workers of
    pytest-xdist share it, and the runs below."""
    import create_simulated_task

    sizes = "--classes", "2", "--slides-per-class", "10", "--width", "16", "--min-parents", "6", "--max-parents", "12"

    def make(root: Path) -> None:
        create_simulated_task.main(["--output-dir", str(root), *sizes])

    return SimulatedTask(made_once(tmp_path_factory, "simulated", make))


@pytest.fixture(scope="session")
def whole(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both folds, 3 epochs. Read only."""
    import main

    return made_once(tmp_path_factory, "whole", lambda results: main.main(simulated.options(results)))


@pytest.fixture(scope="session")
def quick(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train one epoch of fold 0 with some options: -> the run's folder, read only. Each choice is trained once."""
    import main

    @functools.cache
    def run(*options: str) -> Path:
        def train(results: Path) -> None:
            main.main(simulated.options(results, "--max_epochs", "1", "--k_end", "1", *options))

        name = f"quick_{sha256(' '.join(options).encode()).hexdigest()[:16]}"
        return simulated.run_folder(made_once(tmp_path_factory, name, train))

    return run


@pytest.fixture(scope="session")
def planted_run(tmp_path_factory: pytest.TempPathFactory) -> "PlantedRun":
    """A run of both folds that finds the planted patches. Read only; the workers of pytest-xdist share it."""
    from tests.support.planted_run import PlantedRun, train_planted_run

    return PlantedRun(SimulatedTask(made_once(tmp_path_factory, "planted", train_planted_run)))


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no figures: to draw those of predict.py takes longer than everything else."""
    from tests.support.blank_figures import Figure, save_blank

    monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> RunMain:
    """Call a script's main as the command line would: options -> exit code, standard output, standard error."""

    def run(argv: list[str], script: str = "main") -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = run_script(importlib.import_module(script).main, argv)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def faults_of(capsys: pytest.CaptureFixture[str]) -> FaultsOf:
    """Call a script's main, which is to refuse: options -> the faults that it raises. It exits with 2, and says them
    without a traceback; no epoch is trained."""

    def run(arguments: Sequence[object], script: str = "main") -> list[Fault]:
        argv = [str(argument) for argument in arguments]
        raised: list[UserError] = []

        def main(argv: Sequence[str] | None) -> None:
            try:
                importlib.import_module(script).main(argv)
            except UserError as error:
                raised.append(error)
                raise

        capsys.readouterr()
        code = run_script(main, argv)
        out, err = capsys.readouterr()
        assert code == 2, f"{out}\n{err}"
        assert "Traceback" not in out + err and not re.search(r"epoch +\d+/", out)
        assert [str(error) for error in raised] == [err.removesuffix("\n").rpartition("\r")[2]]
        return raised[0].faults

    return run
