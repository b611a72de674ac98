"""Damage to every file of a run's folder, against every script that reads it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import main
from experiments.grid import setting_folder
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import change_json, cut, flip
from tests.support.earlier import forget_digests
from utils.config import Config
from utils.errors import Fault

pytestmark = pytest.mark.usefixtures("blank_figures")

Arguments = Callable[[str], list[str]]

# the fold's files by the scripts that read them
RUN_READERS = ["main", "predict", "explain", "results_page", "report_results", "run_experiments"]
READERS = {
    "config.json": RUN_READERS,
    "fold_0.json": RUN_READERS,
    "s_0_checkpoint.pt": ["predict", "explain", "results_page", "report_results"],
    "splits_0.csv": ["predict", "explain", "results_page", "report_results"],
    "predictions_0.csv": ["results_page", "report_results"],
    "history_0.csv": ["results_page"],
}


@pytest.fixture(scope="module")
def other_run(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with another seed. Read only."""
    results = tmp_path_factory.mktemp("other")
    main.main(simulated.options(results, "--max_epochs", "1", "--seed", "2"))
    return simulated.run_folder(results).with_name("simulated_tinyclip_HiVE_MIL_4_s2")


@pytest.fixture
def folder(simulated: SimulatedTask, results: Path) -> Path:
    return simulated.run_folder(results)


@pytest.fixture
def arguments(simulated: SimulatedTask, results: Path, folder: Path, tmp_path: Path) -> Arguments:
    """What each script is called with."""

    def of(script: str) -> list[str]:
        options = simulated.options(results, "--max_epochs", "1")
        checkpoint = ["--checkpoint", str(folder / "s_0_checkpoint.pt")]
        if script == "run_experiments":  # it looks for the run where it would have written it
            setting = setting_folder(Config(**main.parse(options)[1]))
            grid = Path(shutil.copytree(results, tmp_path / "grid" / setting)).parent
            return [*simulated.options(grid, "--max_epochs", "1"), "--local", "--dry_run"]
        return {
            "main": [*options, "--resume"],
            "predict": [*checkpoint, "--output", str(tmp_path / "predictions.csv")],
            "explain": [*checkpoint, "--split", "test", "--draws", "0", "--output-dir", str(tmp_path / "explained")],
            "results_page": [str(folder), "--output", str(tmp_path / "page.html")],
            "report_results": [str(results), "--output-dir", str(tmp_path / "report"), "--resamples", "20"],
        }[script]

    return of


def of_other_fold(file: Path, *_: Path) -> None:
    shutil.copy(file.with_name(file.name.replace("_0", "_1")), file)


def of_other_run(file: Path, other: Path) -> None:
    shutil.copy(other / file.name, file)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "flipped": lambda file, _: flip(file),
    "cut_off": lambda file, _: cut(file),
    "emptied": lambda file, _: file.write_bytes(b""),
    "of_another_fold": of_other_fold,
    "of_another_run": of_other_run,
}
# a record has no fold; the other run has the same splits
NO_DAMAGE = {("config.json", "of_another_fold"), ("splits_0.csv", "of_another_run")}
CASES = [  # main.py refuses another run's record as other settings, which other tests see
    (name, damage, script)
    for name, scripts in READERS.items()
    for damage in DAMAGES
    for script in scripts
    if (name, damage) not in NO_DAMAGE and (name, damage, script) != ("config.json", "of_another_run", "main")
]


@pytest.mark.parametrize(("name", "damage", "script"), CASES)
def test_damage_is_refused_and_the_file_is_named(
    name: str, damage: str, script: str, folder: Path, other_run: Path, arguments: Arguments, faults_of: FaultsOf
) -> None:
    DAMAGES[damage](folder / name, other_run)
    faults = faults_of(arguments(script), script)
    # a record of another run shows in the results of the folds beside it
    shown = ("fold_0.json", "fold_1.json") if (name, damage) == ("config.json", "of_another_run") else (name,)
    assert {Path(fault.where).name for fault in faults} <= set(shown), faults
    codes = {"run.unreadable", "run.unreadable_result", "run.foreign", "run.changed_file", "checkpoint.changed"}
    assert {fault.code for fault in faults} <= {*codes, "json.unreadable"}


@pytest.mark.parametrize("script", RUN_READERS)
def test_a_run_without_damage_passes_in_silence(script: str, arguments: Arguments, run_main: RunMain) -> None:
    code, out, err = run_main(arguments(script), script)
    assert code == 0, err
    assert "without digests" not in out


@pytest.mark.parametrize("script", RUN_READERS)
def test_a_run_of_before_the_digests_is_read_with_one_note(
    script: str, folder: Path, arguments: Arguments, run_main: RunMain, tmp_path: Path
) -> None:
    forget_digests(folder)
    code, out, err = run_main(arguments(script), script)
    assert code == 0, err
    text = (tmp_path / "report" / "report.md").read_text() if script == "report_results" else out
    assert text.count("without digests") == (script != "run_experiments")


def only(faults: list[Fault], code: str, where: Path) -> Fault:
    (fault,) = faults
    assert (fault.code, fault.where) == (code, str(where))
    return fault


@pytest.mark.parametrize("name", ["test_auc", "val_f1", "best_epoch", "run", "files"])
def test_an_edited_field_of_a_result_is_named(
    name: str, folder: Path, arguments: Arguments, faults_of: FaultsOf
) -> None:
    file = folder / "fold_0.json"
    change_json(file, lambda result: {**result, name: 0.999})
    for script in ("results_page", "main"):
        assert only(faults_of(arguments(script), script), "run.unreadable_result", file).found.endswith(f"fit {name}")


EDITS = {
    "class_names": lambda record: record["class_names"].reverse(),
    "descriptions": lambda record: record["descriptions"]["SIMULATED_A"].update({"Simulated detail 0.0": "dark."}),
    "options": lambda record: record["options"].update(text_format="term"),
    "inputs": lambda record: record["inputs"].update(dataset_csv="0"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_field_of_the_record_is_named(
    name: str, folder: Path, arguments: Arguments, faults_of: FaultsOf
) -> None:
    record = json.loads((folder / "config.json").read_text())
    EDITS[name](record)
    (folder / "config.json").write_text(json.dumps(record))
    for script in ("predict", "explain"):
        fault = only(faults_of(arguments(script), script), "run.unreadable", folder / "config.json")
        assert fault.found == f"damaged or edited: {name}"


def test_edited_descriptions_show_without_digests_too(folder: Path, arguments: Arguments, faults_of: FaultsOf) -> None:
    forget_digests(folder)
    change_json(folder / "config.json", lambda record: EDITS["descriptions"](record) or record)
    fault = only(faults_of(arguments("predict"), "predict"), "run.unreadable", folder / "config.json")
    assert fault.found == "damaged or edited: descriptions"


def test_a_fold_is_not_counted_twice(folder: Path, arguments: Arguments, faults_of: FaultsOf) -> None:
    shutil.copy(folder / "fold_1.json", folder / "fold_0.json")
    fault = only(faults_of(arguments("main")), "run.foreign", folder / "fold_0.json")
    assert fault.found == "the result of fold 1"


def test_a_result_of_another_run_says_in_what(
    folder: Path, other_run: Path, arguments: Arguments, faults_of: FaultsOf
) -> None:
    shutil.copy(other_run / "fold_0.json", folder / "fold_0.json")
    fault = only(faults_of(arguments("main")), "run.foreign", folder / "fold_0.json")
    assert fault.found == "of a run with other options" and str(folder / "config.json") in fault.expected


@pytest.mark.parametrize("text", ["{}", "[]", None])
def test_a_run_without_its_record_is_not_passed_over(
    folder: Path, arguments: Arguments, faults_of: FaultsOf, text: str | None
) -> None:
    file = folder / "config.json"
    file.unlink() if text is None else file.write_text(text)
    (fault,) = faults_of(arguments("report_results"), "report_results")
    assert (fault.code, fault.where) == (("run.foreign", str(file)) if text else ("run.missing", str(folder)))


def test_a_bare_checkpoint_with_a_flipped_bit(
    simulated: SimulatedTask, folder: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    """In the numbers of a tensor, where PyTorch reads it without a word."""
    file = Path(shutil.copy(folder / "s_0_checkpoint.pt", tmp_path / "bare.pt"))
    flip(file)
    argv = ["--checkpoint", str(file), "--output", str(tmp_path / "predictions.csv"), *simulated.options(tmp_path)]
    only(faults_of(argv, "predict"), "tensors.unreadable", file)


def test_a_checkpoint_that_no_result_names_is_told_of(folder: Path, arguments: Arguments, run_main: RunMain) -> None:
    (folder / "fold_0.json").unlink()
    code, out, _ = run_main(arguments("predict"), "predict")
    assert code == 0 and "no fold_<k>.json tells whether the checkpoint of fold 0 is as main.py wrote it" in out
