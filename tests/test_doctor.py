"""doctor.py: the machine, and all that main.py --dry_run checks, each check with its level and what mends it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

import training.environment
from tests.conftest import RunMain, SimulatedTask
from tests.support.damage import LOW, SLIDE, first_is
from tests.support.damage import change as change_data_set
from utils.config import Config
from utils.errors import Faults, UserError

ENVIRONMENT = ["Python", "packages", "torchvision", "CUDA", "threads", "memory", "disk", "HDF5 locks", "Chromium"]
OF_THE_RUN = [
    *("options", "device", "vision-language model", "table of slides", "descriptions"),
    *("splits of fold 0", "splits of fold 1", "features", "model"),
]
Doctor = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def doctor(run_main: RunMain) -> Doctor:
    """Exit code, the JSON, and the page of text."""

    def run(*options: str) -> tuple[int, dict[str, Any], str]:
        code, out, _ = run_main([*options, "--json"], "doctor")
        again, text, _ = run_main([*options], "doctor")
        assert code == again
        return code, json.loads(out, parse_constant=pytest.fail), text

    return run


def levels(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["level"] for check in found["checks"]}


def test_without_options_the_machine_alone_is_checked(doctor: Doctor) -> None:
    code, found, text = doctor()
    assert code == 0 and found["format"] == 1
    assert [(check["area"], check["name"]) for check in found["checks"]] == [("environment", n) for n in ENVIRONMENT]
    assert all(check["found"] for check in found["checks"])
    assert text.splitlines()[0] == "environment" and text.splitlines()[-1].endswith("0 FAIL")


def test_a_sound_task_passes_what_the_dry_run_passes(
    simulated: SimulatedTask, doctor: Doctor, run_main: RunMain, tmp_path: Path
) -> None:
    options = simulated.options(tmp_path)
    code, found, _ = doctor(*options)
    assert code == 0 and found.keys() == {"format", "level", "checks", "notes"}
    assert all(check.keys() == {"area", "name", "level", "found", "faults"} for check in found["checks"])
    assert [check["name"] for check in found["checks"]] == [*ENVIRONMENT, *OF_THE_RUN]
    told = {check["name"]: check["found"] for check in found["checks"]}
    assert "20 slides of 20 patients" in told["table of slides"]
    assert told["splits of fold 0"].startswith("8 train, ")
    assert "16 wide" in told["features"] and "tokens, " in told["descriptions"]
    assert {check["area"] for check in found["checks"]} == {"environment", "models", "task", "features"}
    dry = json.loads(run_main([*options, "--dry_run", "--json"])[1])
    assert dry["passed"] == OF_THE_RUN and set(found["notes"]) <= set(dry["notes"])
    assert not simulated.run_folder(tmp_path).exists()


def test_faults_are_those_of_the_dry_run(
    simulated: SimulatedTask, doctor: Doctor, run_main: RunMain, tmp_path: Path
) -> None:
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    broken = tmp_path / "features" / "simulated_tinyclip" / LOW / f"{SLIDE}.h5"
    change_data_set(broken, "features", first_is(float("nan")))
    shutil.copytree(simulated.split_dir, tmp_path / "splits")
    (tmp_path / "splits" / "splits_1.csv").unlink()
    places = ("--data_root_dir", str(tmp_path / "features"), "--split_dir", str(tmp_path / "splits"))
    options = simulated.options(tmp_path, *places, "--feature_dim", "32", "--text_prompt", str(tmp_path / "none.json"))
    code, found, text = doctor(*options)
    assert code == 1 and found["level"] == "FAIL"
    faults = [fault for check in found["checks"] if check["level"] == "FAIL" for fault in check["faults"]]
    dry = json.loads(run_main([*options, "--dry_run", "--json"])[1])
    assert sorted(map(str, faults)) == sorted(map(str, dry["faults"]))
    assert {fault["code"] for fault in faults} == {
        "features.values", "split.missing", "option.value", "prompt.missing",
    }  # fmt: skip
    of_run = {name: level for name, level in levels(found).items() if name not in ENVIRONMENT}
    assert [name for name, level in of_run.items() if level == "PASS"] == dry["passed"]
    assert f"{broken}: 1 of" in text and "python create_splits.py" in text


@pytest.mark.parametrize(("sample", "read"), [("3", 3), ("1000", 20)])
def test_a_sample_of_the_features(
    simulated: SimulatedTask, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: str, read: int
) -> None:
    code, found, _ = doctor(*simulated.options(tmp_path), "--sample", sample)
    told = next(check["found"] for check in found["checks"] if check["name"] == "features")
    assert code == 0 and int(told.split()[0]) <= read and ("a sample of" in told) == (read < 20)


def test_a_warning_is_no_failure(simulated: SimulatedTask, doctor: Doctor, tmp_path: Path) -> None:
    code, found, text = doctor(*simulated.options(tmp_path, "--few_shot_num", "16"))
    (check,) = [check for check in found["checks"] if check["level"] == "WARN" and check["area"] == "task"]
    assert (code, found["level"], check["faults"][0]["code"]) == (0, "WARN", "split.shots")
    assert check["faults"][0]["mend"] in text


def test_what_a_check_waits_for_is_no_second_failure(simulated: SimulatedTask, doctor: Doctor, tmp_path: Path) -> None:
    code, found, _ = doctor(*simulated.options(tmp_path, "--dataset_csv", str(tmp_path / "none.csv")))
    told = {check["name"]: check for check in found["checks"]}
    assert code == 1 and told["table of slides"]["level"] == "FAIL"
    assert told["splits of fold 0"]["level"] == "WARN" and "not checked" in told["splits of fold 0"]["found"]


@pytest.mark.parametrize("options", [["--sample", "3"], ["--task", "a", "--sample", "0"], ["--no-such-option"]])
def test_misuse_is_told_by_exit_code_2(run_main: RunMain, options: list[str]) -> None:
    assert run_main(options, "doctor")[0] == 2


def test_missing_options_fail(doctor: Doctor) -> None:
    code, found, _ = doctor("--task", "simulated")
    assert code == 1 and levels(found)["options"] == "FAIL"


# ---- the machine -----------------------------------------------------------------------------------------------------


def no_lock(*given: object, locking: bool | None = None, **more: object) -> h5py.File:
    if locking:
        raise OSError(37, "No locks available")
    return REAL_FILE(*given, **more)


REAL_FILE = h5py.File
MACHINES: dict[str, tuple[str, str, Callable[[pytest.MonkeyPatch], None]]] = {
    "old Python": (
        "python.version", "faults", lambda patch: patch.setattr(training.environment, "OLDEST_PYTHON", (9, 9))
    ),
    "unpinned": (
        "package.version", "warnings",
        lambda patch: patch.setattr(training.environment, "pinned_versions", lambda: {"torch": "1.0"}),
    ),
    "no package": (
        "package.missing", "faults", lambda patch: patch.setattr(training.environment, "PACKAGES", ("no-such-package",))
    ),
    "threads": ("threads.number", "warnings", lambda patch: patch.setattr("torch.get_num_threads", lambda: 10**6)),
    "full disk": ("disk.small", "warnings", lambda patch: patch.setattr(training.environment, "LEAST_FREE", 1e30)),
    "read only": ("output.read_only", "faults", lambda patch: patch.setattr("os.access", lambda *_: False)),
    "no locks": ("h5.locks", "warnings", lambda patch: patch.setattr(h5py, "File", no_lock)),
    "little memory": (
        "memory.small", "warnings", lambda patch: patch.setattr(training.environment, "cache_bytes", lambda _: 10)
    ),
    "unused GPU": ("device.unused", "warnings", lambda patch: patch.setattr("shutil.which", lambda name: name)),
}  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_machine_lacks_is_told_with_what_mends_it(
    machine: str, simulated: SimulatedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, kind, break_machine = MACHINES[machine]
    break_machine(monkeypatch)
    faults = Faults()
    places = {"data_root_dir": str(simulated.root / "features"), "results_dir": str(tmp_path)}
    training.environment.examine_environment(Config(task="simulated", feature_extractor="tinyclip", **places), faults)
    told = [fault for check in faults.checks for fault in getattr(check, kind)]
    assert [fault.code for fault in told] == [code] and told[0].mend
    assert [check.name for check in faults.checks] == ENVIRONMENT
    if kind == "faults":
        with pytest.raises(UserError):
            faults.raise_any()
