"""What the page of a run refuses: damaged files, and places where it cannot go."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FaultsOf, RunMain
from tests.support.earlier import forget_digests
from tests.support.made_page import write_made_up_run


def without(column: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = [line.split(",") for line in text.splitlines()]
        place = lines[0].index(column)
        return "\n".join(",".join(line[:place] + line[place + 1 :]) for line in lines)

    return change


DAMAGES: list[tuple[str, Callable[[str], str | None], str, str, str]] = [
    ("config.json", lambda text: None, "run.missing", "no run found", "a folder with a config.json"),
    ("config.json", lambda text: "[]", "run.foreign", "not a config.json of main.py", "class_names"),
    ("config.json", lambda text: text.replace('"inputs": {}', '"inputs": 3'), "run.unreadable", "inputs", ""),
    ("config.json", lambda text: text.replace('"k": 2', '"k": "2"'), "run.unreadable", "options.k: ", ""),
    ("fold_0.json", lambda text: '{"fold": 0}', "run.unreadable_result", "not the result of a fold", ""),
    ("fold_0.json", lambda text: text.replace('"fold": 0', '"fold": 1'), "run.foreign", "fold 1", ""),
    ("fold_0.json", lambda text: text.replace(": 0.", ": null, \"_\": 0.", 1), "run.unreadable_result", "", ""),
    ("predictions_0.csv", lambda text: None, "run.missing_file", "file not found, though the fold is finished", ""),
    ("predictions_0.csv", lambda text: "", "run.unreadable_table", "not a readable table", ""),
    ("predictions_0.csv", lambda text: text[:-30], "predictions.no_numbers", "could not convert string to float", ""),
    (
        "predictions_0.csv", lambda text: text[: text.rindex("S-2")] + "S-99", "predictions.unknown", "found label ''",
        "'A', 'B'",
    ),
    ("predictions_0.csv", lambda text: text[: text.index("test,")], "predictions.slides", "a part without slides", ""),
    (
        "predictions_0.csv", lambda text: text[: text.rindex("test,")], "predictions.other_result", "found test_",
        "as in fold_0.json",
    ),
    ("predictions_0.csv", lambda text: text.replace("S-2,", "S-1,"), "predictions.slides", "there twice", ""),
    (
        "predictions_0.csv", lambda text: text.replace("test,", "train,"), "predictions.unknown", "found split 'train'",
        "'val', 'test'",
    ),
    (
        "predictions_0.csv", lambda text: text.replace(",A,B,", ",A,C,", 1), "predictions.unknown",
        "found prediction 'C'", "'A', 'B'",
    ),
    ("predictions_0.csv", lambda text: text.replace(",0.", ",x0.", 1), "predictions.no_numbers", "are no numbers", ""),
    ("predictions_0.csv", lambda text: text.replace(",0.", ",1.", 1), "predictions.sum", "do not add up to 1", ""),
    (
        "predictions_0.csv", without("prob_B"), "predictions.columns",
        "found the columns 'split', 'slide_id', 'label', 'prediction', 'prob_A'", "'prob_B'",
    ),
    ("history_0.csv", lambda text: None, "run.missing_file", "file not found", ""),
    ("history_0.csv", lambda text: text.replace("0.5", "half"), "history.columns", "'train_loss', 'val_loss'", ""),
    ("history_0.csv", without("val_auc"), "history.columns", "val_auc; found 'epoch', 'train_loss'", ""),
    ("history_0.csv", lambda text: text[: text.rindex("\n3")], "history.length", "found 3 epochs", "4"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "code", "found", "expected"), DAMAGES)
def test_damaged_files_are_named_without_digests_too(
    name: str,
    damage: Callable[[str], str | None],
    code: str,
    found: str,
    expected: str,
    tmp_path: Path,
    faults_of: FaultsOf,
) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    forget_digests(run.path)
    file = run.path / name
    before = file.read_text()
    text = damage(before)
    assert text != before
    file.unlink() if text is None else file.write_text(text)
    (fault,) = faults_of([run.path, "--output", tmp_path / "page.html"], "results_page")
    assert (fault.code, fault.where) == (code, str(run.path if code == "run.missing" else file))
    assert found in fault.found and expected in fault.expected
    if "fold" not in name and "config" not in name:
        assert fault.mend == "remove fold_0.json and train the fold again with --resume"
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["config.json", "fold_0.json"])
def test_what_is_not_json_is_named(name: str, tmp_path: Path, faults_of: FaultsOf) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    (run.path / name).write_text((run.path / name).read_text()[:-9])
    (fault,) = faults_of([run.path], "results_page")
    assert (fault.code, fault.where) == ("json.unreadable", str(run.path / name))


def test_a_damaged_file_is_told_of_with_what_mends_it(tmp_path: Path, run_main: RunMain) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    run.predictions(1).unlink()
    assert run_main([str(run.path)], "results_page") == (
        2, "", f"error: {run.predictions(1)}: file not found, though the fold is finished; remove fold_1.json and "
        "train the fold again with --resume\n",
    )  # fmt: skip


def test_all_faults_are_listed_at_once(tmp_path: Path, faults_of: FaultsOf) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 3, [0, 1, 2])
    run.predictions(0).unlink()
    run.training(0).history.unlink()
    run.fold_result(1).write_text("{}")
    run.predictions(2).write_text("x")
    found = [(fault.code, Path(fault.where).name) for fault in faults_of([run.path, tmp_path / "no"], "results_page")]
    assert found == [
        ("run.missing_file", "predictions_0.csv"), ("run.missing_file", "history_0.csv"),
        ("run.unreadable_result", "fold_1.json"), ("run.changed_file", "predictions_2.csv"), ("run.missing", "no"),
    ]  # fmt: skip


def test_a_run_without_a_finished_fold_is_refused(tmp_path: Path, faults_of: FaultsOf) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 2, [])
    (fault,) = faults_of([run.path], "results_page")
    assert (fault.code, fault.where) == ("run.unfinished", str(run.path))
    assert "fold_0.json, fold_1.json" in fault.expected and "--resume" in fault.mend


@pytest.mark.usefixtures("no_figures")
def test_places_that_cannot_be_are_refused(tmp_path: Path, run_main: RunMain, faults_of: FaultsOf) -> None:
    path = str(write_made_up_run(tmp_path / "run", ["A", "B"], 1, [0]).path)
    (fault,) = faults_of([path, "--explanations", tmp_path / "none"], "results_page")
    assert (fault.code, fault.where) == ("folder.missing", f"--explanations {tmp_path / 'none'}")
    (tmp_path / "file").touch()
    (fault,) = faults_of([path, "--output", tmp_path / "file"], "results_page")
    assert (fault.code, fault.where) == ("output.file", f"--output {tmp_path / 'file'}")
    code, out, _ = run_main(
        [path, "--output", str(tmp_path / "x.htm"), "--explanations", str(tmp_path)], "results_page"
    )
    assert code == 0 and f"note: {tmp_path} has no page of a slide of run" in out
    (tmp_path / "folder.html").mkdir()
    assert run_main([path, "--output", str(tmp_path / "folder.html")], "results_page")[0] == 0
    assert (tmp_path / "folder.html" / "run.html").is_file()
