"""Inputs that changed and look the same: features of the same size and time, a tokenizer beside the same weights."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from models.vlms.tokenizers import StandardTokenizer
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import HIGH, SLIDE, change_json
from tests.support.earlier import forget_digests
from tests.support.faults import check_fault


def rewrite_rows(file: Path) -> None:
    """Other features, in a file of the same size and time."""
    before = file.stat()
    with h5py.File(file, "r+") as opened:
        opened["features"][...] = opened["features"][()][..., ::-1]
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.mark.usefixtures("blank_figures")
def test_features_that_keep_size_and_time(
    task: SimulatedTask, tmp_path: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    options = task.options(tmp_path / "results", "--max_epochs", "1")
    assert run_main(options)[0] == 0
    rewrite_rows(task.features / HIGH / f"{SLIDE}.h5")
    assert run_main([*options, "--resume"])[0] == 0
    code, out, _ = run_main([*options, "--dry_run", "--verify"])
    assert (
        code == 0
        and f"1 slides hold other features than at the last check, with the same size and time ('{SLIDE}')" in out
    )
    (fault,) = faults_of([*options, "--resume", "--verify"])
    folder = task.run_folder(tmp_path / "results")
    check_fault(
        fault, "run.other_settings", folder, f"features_0 has changed since (1 of the run's 20 slides: '{SLIDE}')"
    )
    (fault,) = faults_of([*options, "--resume"])  # what was found is remembered
    check_fault(fault, "run.other_settings", folder, "features_0 has changed since")


DAMAGES: dict[str, Callable[[dict], object]] = {
    "entry": lambda entry: entry.update(sha256="0" * 64),
    "stamp": lambda entry: entry.update(stamp=[16, 1, 2, 3, 4]),
    "lengths": lambda entry: entry.pop("unit_rows"),
}


@pytest.mark.parametrize("case", [*DAMAGES, "digests"])
def test_a_damaged_memory_of_checks_is_not_trusted(
    simulated: SimulatedTask, results: Path, run_main: RunMain, case: str
) -> None:
    """Slides whose entries are damaged are read again."""
    (memory,) = results.rglob("checked_features.json")
    good = json.loads(memory.read_text())

    def damage(known: dict) -> dict:
        if case == "digests":
            return {**known, "digests": 3}
        DAMAGES[case](next(iter(known.values())))
        return known

    change_json(memory, damage)
    code, _, err = run_main([*simulated.options(results, "--max_epochs", "1"), "--resume"])
    assert code == 0, err
    assert json.loads(memory.read_text()) == good


def test_a_tokenizer_that_changed(
    simulated: SimulatedTask, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults_of: FaultsOf
) -> None:
    """The weights are the same, and the texts' ids are not."""
    encode = StandardTokenizer.encode

    def other(self: StandardTokenizer, texts: list[str]) -> list[list[int]]:
        return [[(token + 1) % 400 for token in tokens] for tokens in encode(self, texts)]

    monkeypatch.setattr(StandardTokenizer, "encode", other)
    (fault,) = faults_of([*simulated.options(results, "--max_epochs", "1"), "--resume"])
    check_fault(fault, "run.other_settings", simulated.run_folder(results), "tokenizer has changed since")
    checkpoint = simulated.run_folder(results) / "s_0_checkpoint.pt"
    (fault,) = faults_of(["--checkpoint", str(checkpoint), "--output", str(tmp_path / "x.csv")], "predict")
    check_fault(fault, "run.other_settings", f"--vlm_path {simulated.root / 'tinyclip'}", "other tokens")


@pytest.mark.parametrize("is_old", [False, True])
def test_slides_whose_features_changed_are_named(
    task: SimulatedTask, results: Path, tmp_path: Path, run_main: RunMain, faults_of: FaultsOf, is_old: bool
) -> None:
    """By whatever compares the features with those of a run; a record of an earlier version cannot tell them."""
    folder = task.run_folder(results)
    if is_old:
        forget_digests(folder)
        change_json(folder / "config.json", lambda record: {k: v for k, v in record.items() if k != "features"})
    rewrite_rows(task.features / HIGH / f"{SLIDE}.h5")
    told = "earlier version" if is_old else f"1 of the run's 20 slides: '{SLIDE}'"
    places = ["--data_root_dir", str(task.root / "features"), "--verify"]
    faults = faults_of(["--from_config", str(folder / "config.json"), "--results_dir", str(tmp_path / "r"), *places])
    assert {fault.code for fault in faults} == {"run.input_changed"} and all(told in fault.found for fault in faults)
    argv = ["--checkpoint", str(folder / "s_0_checkpoint.pt"), "--output", str(tmp_path / "p.csv"), *places[:2]]
    code, out, _ = run_main(argv, "predict")
    assert code == 0 and (f"are not those that the run read ('{SLIDE}')" in out) == (not is_old)
