"""A main.py that stands in for the project's, where only what is around the folds matters."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import experiments.launch

# writes what main.py writes, as far as run_experiments.py looks at it; what a fold does is its --seed's hundreds
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
assert "--resume" in sys.argv
fold, seed = int(given["k_start"]), int(given.get("seed", "1"))
assert int(given["k_end"]) == fold + 1
run = Path(given["results_dir"]) / "t/plip/16" / f"t_plip_HiVE_MIL_16_s{seed}"
print("fold", fold, "threads", os.environ["OMP_NUM_THREADS"], "GPUs", os.environ["CUDA_VISIBLE_DEVICES"] or "none")
sys.stdout.flush()
if seed // 100 == 2 and fold == 1:
    print("error: a user's mistake")
    sys.exit(2)
if seed // 100 == 3 and not (run / f"fold_{1 - fold}.json").exists():
    time.sleep(60)
if seed // 100 == 4:
    sys.exit(0)
marker = run / f"killed_{fold}"
if seed // 100 in (5, 6) and not marker.exists():
    marker.touch()
    os.kill(os.getpid() if seed // 100 == 5 else os.getppid(), signal.SIGKILL)
    time.sleep(60)
names = ("test_auc", "test_f1", "test_acc", "val_auc", "val_f1", "val_acc")
result = {"fold": fold, **{name: fold / 4 for name in names}, "test_hit_ratio": 0, "best_epoch": 0, "epochs": 1}
(run / f"fold_{fold}.json").write_text(json.dumps(result))
"""
LAUNCHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import experiments.launch
import run_experiments
from utils.errors import run_script
experiments.launch.PROJECT = Path(sys.argv.pop(1))
sys.exit(run_script(run_experiments.main))
"""


@pytest.fixture(name="stand_in")
def stand_in_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a main.py in place of the project's; the working directory is another."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "main.py").write_text(STAND_IN)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(experiments.launch, "PROJECT", tmp_path / "project")
    return tmp_path / "project"


def options(*more: str) -> list[str]:
    return ["--local", "--jobs", "2", "--task", "t", "--data_root_dir", "D", "--k", "2", "--results_dir", "R", *more]


def run_folder(seed: int, setting: str = "k=2") -> Path:
    return Path("R") / setting / "t" / "plip" / "16" / f"t_plip_HiVE_MIL_16_s{seed}"


def starts(folder: Path) -> list[int]:
    """How often each fold was started, as its log tells."""
    logs = sorted((folder / "logs").glob("fold_*.log"))
    return [log.read_text().count("$ python ") for log in logs]


def folds_at_work(folder: Path, option: str = "--resume") -> list[psutil.Process]:
    """Processes of main.py that have to do with a folder and an option, from all of the machine."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if option in words and any(str(folder) in word for word in words):
            found.append(process)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
