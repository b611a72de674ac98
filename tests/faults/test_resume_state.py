"""The state that a stopped fold goes on from: damaged, of another run or fold, or of an earlier version."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import main
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import cut, flip
from tests.support.run_contents import numbers
from training.run_folder import RunFolder
from utils.files import write_tensors

OF_A_FOLD = [f"inputs.{name}_{fold}" for name in ("features", "splits") for fold in (0, 1)]
OPTIONS = ("--max_epochs", "1", "--k_end", "1")


@pytest.fixture(scope="module")
def stopped(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """The results of a run that was stopped before the result of its first fold. Read only."""

    def stop(self: RunFolder, result: object) -> None:
        raise KeyboardInterrupt

    def run(*options: str) -> Path:
        results = tmp_path_factory.mktemp("stopped")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RunFolder, "finish", stop)
            main.main(simulated.options(results, *OPTIONS, *options))
        return results

    made: dict[tuple[str, ...], Path] = {}
    yield lambda *options: made.get(options) or made.setdefault(options, run(*options))


@pytest.fixture
def state(simulated: SimulatedTask, stopped: Callable[..., Path], tmp_path: Path) -> Path:
    """The state of a copy of such a run, in tmp_path / results."""
    results = shutil.copytree(stopped(), tmp_path / "results")
    return simulated.run_folder(results) / "resume_0.pt"


@pytest.fixture
def resume(simulated: SimulatedTask, tmp_path: Path) -> list[str]:
    return [*simulated.options(tmp_path / "results", *OPTIONS), "--resume"]


def test_the_state_of_the_fold_is_taken(
    state: Path, resume: list[str], run_main: RunMain, quick: Callable[..., Path]
) -> None:
    code, out, err = run_main(resume)
    assert (code, err) == (0, "")
    assert "epoch   1/1" not in out and "note: " not in out
    assert numbers(state.parent) == numbers(quick())


@pytest.mark.parametrize("damage", [flip, cut, lambda file: file.write_bytes(b"")], ids=["flipped", "cut", "emptied"])
def test_a_damaged_state(state: Path, resume: list[str], faults_of: FaultsOf, damage: Callable[[Path], object]) -> None:
    damage(state)
    (fault,) = faults_of(resume)
    assert (fault.code, fault.where) == ("tensors.unreadable", str(state))


@pytest.mark.parametrize(
    ("options", "others"),
    [
        (("--seed", "2"), "options"),
        (("--lr", "5e-4"), "options"),
        (("--k_start", "1", "--k_end", "2"), ", ".join(["fold", *OF_A_FOLD])),
    ],
)
def test_the_state_of_another_run_or_fold(
    state: Path, stopped: Callable[..., Path], resume: list[str], faults_of: FaultsOf, options: tuple[str, ...],
    others: str,
) -> None:  # fmt: skip
    (other,) = stopped(*options).rglob("resume_?.pt")
    shutil.copy(other, state)
    (fault,) = faults_of(resume)
    assert (fault.code, fault.where) == ("resume.foreign", str(state))
    assert fault.found == f"of another run or fold: other {others}" and "remove it" in fault.mend


def without_first(part: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        del state[part][next(iter(state[part]))]

    return change


def misshapen(weights: dict[str, torch.Tensor]) -> None:
    name = next(iter(weights))
    weights[name] = weights[name][:1]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no_model": (lambda state: state.pop("model"), "its parts"),
    "no_optimizer": (lambda state: state.pop("optimizer"), "its parts"),
    "one_more": (lambda state: state.update(more=1), "its parts"),
    "a_weight_less": (without_first("model"), "model."),
    "a_weight_more": (lambda state: state["model"].update(more=1), "model.more"),
    "a_misshapen_weight": (lambda state: misshapen(state["model"]), "model."),
    "a_misshapen_best_weight": (lambda state: misshapen(state["progress"]["best_weights"]), "best_weights."),
    "no_epochs": (lambda state: state["progress"].pop("epochs"), "progress"),
    "epochs_that_are_text": (lambda state: state["progress"].update(epochs="1"), "epochs"),
    "other_epochs": (lambda state: state["progress"].update(epochs=7), "epochs"),
    "no_best_epoch": (lambda state: state["progress"].update(best_epoch=-1), "epochs"),
    "moments_missing": (lambda state: state["optimizer"]["state"][0].pop("exp_avg"), "optimizer.0"),
    "moments_misshapen": (lambda state: state["optimizer"]["state"][1].update(exp_avg=torch.ones(1)), "optimizer.1"),
    "moments_of_nothing": (lambda state: state["optimizer"].update(state={"a": {}}), "optimizer"),
    "origin_of_another_kind": (lambda state: state.update(origin=3), "origin"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_state_that_does_not_fit(state: Path, resume: list[str], faults_of: FaultsOf, case: str) -> None:
    change, named = CHANGES[case]
    content = torch.load(state, weights_only=True)
    change(content)
    write_tensors(state, content)
    (fault,) = faults_of(resume)
    assert (fault.code, fault.where) == ("resume.unreadable", str(state))
    assert f"does not fit: {named}" in fault.found


def test_a_state_of_before_is_taken_with_a_note(state: Path, resume: list[str], run_main: RunMain) -> None:
    content = torch.load(state, weights_only=True)
    del content["origin"]
    write_tensors(state, content)
    code, out, _ = run_main(resume)
    assert code == 0
    assert out.count(f"note: {state}: an earlier version wrote it, without telling of which run it is") == 1
