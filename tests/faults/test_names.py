"""Names that lead elsewhere are refused by every script that makes paths of them, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import files_but_checks
from tests.support.faults import Refused, check_fault

EVIL = ["../../evil", "/tmp/evil", "a/b", "..", ".", "", "a\\b", "a\nb", ".evil", "x" * 300]
FOLDERS = ("--data_root_dir", "DATA", "--feature_extractor", "plip")
SCRIPTS = {
    "main": ("--data_root_dir", "DATA"),
    "predict": ("--checkpoint", "c.pt", "--data_root_dir", "DATA"),
    "explain": ("--checkpoint", "c.pt", "--slide", "s", "--output-dir", "out"),
    "extract_features": ("--wsi-dir", "DATA", *FOLDERS),
    "create_hierarchical_features": FOLDERS,
    "check_hierarchical_consistency": FOLDERS,
    "create_splits": (),
    "create_dataset_csv": ("--slides-dir", "DATA"),
    "create_text_prompt": ("--classes", "A", "B", "--LLM", "x", "--base-url", "http://127.0.0.1:9"),
    "create_mil_task": ("--csv", "data.csv", "--output-dir", "out"),
    "run_experiments": ("--local", "--data_root_dir", "DATA"),
}


@pytest.fixture
def nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The test runs in a folder with some files, which the call finds as they were, and no others below them."""
    here = tmp_path / "below" / "here"
    (here / "DATA" / "A").mkdir(parents=True)
    (here / "data.csv").write_text("A,b1,0.5\nB,b2,0.25\n")
    monkeypatch.chdir(here)
    before = files_but_checks(tmp_path)

    def check() -> None:
        assert files_but_checks(tmp_path) == before
        assert not list(tmp_path.rglob("*evil*"))

    return check


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_task_is_no_path(script: str, name: str, run_main: RunMain, nothing_written: Callable[[], None]) -> None:
    code, _, err = run_main([*SCRIPTS[script], f"--task={name}"], script)
    assert code == 2
    assert "--task" in err and "Traceback" not in err
    nothing_written()


@pytest.mark.parametrize("option", ["--feature_extractor", "--LLM"])
@pytest.mark.parametrize("script", ["main", "predict", "run_experiments", "create_text_prompt"])
def test_nor_are_the_extractor_and_the_language_model(
    script: str, option: str, run_main: RunMain, nothing_written: Callable[[], None]
) -> None:
    code, _, err = run_main([*SCRIPTS[script], "--task=t", f"{option}=../../evil"], script)
    assert code == 2
    assert option in err
    nothing_written()


def test_nor_is_a_slide_that_is_named(run_main: RunMain, nothing_written: Callable[[], None]) -> None:
    options = ("--checkpoint", "c.pt", "--output-dir", "out", "--slide", "good", "../../evil")
    code, _, err = run_main([*options], "explain")
    assert code == 2
    assert "../../evil" in err
    nothing_written()


@pytest.mark.parametrize("name", ["../../evil", "a\x1bb", "/x", ".x"])
def test_nor_is_a_slide_of_a_table(name: str, task: SimulatedTask, refused: Refused) -> None:
    table = pd.read_csv(task.root / "simulated.csv", dtype=str)
    pd.concat([table, table.iloc[:1].assign(slide_id=name)]).to_csv(task.root / "simulated.csv", index=False)
    (fault,) = refused()
    check_fault(fault, "name.unusable", task.root / "simulated.csv", repr(name))


def test_nor_is_a_slide_of_a_split(task: SimulatedTask, refused: Refused) -> None:
    file = task.split_dir / "splits_0.csv"
    table = pd.read_csv(file, index_col=0, dtype=str, keep_default_na=False)
    table.loc[0, "train"] = "../../evil"
    table.to_csv(file)
    check_fault(refused()[0], "name.unusable", file, "'../../evil'")


def test_a_task_is_named_after_a_file_where_it_can_be(faults_of: FaultsOf, tmp_path: Path) -> None:
    file = tmp_path / ".evil.csv"
    file.write_text("A,b1,0.5\nB,b2,0.25\n")
    (fault,) = faults_of(["--csv", file, "--output-dir", tmp_path / "out"], "create_mil_task")
    assert fault.code == "name.unusable"
    assert not (tmp_path / "out").exists()


def test_a_grid_has_no_paths_for_names(faults_of: FaultsOf, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("task: [good, ../../evil]\ndata_root_dir: DATA\nLLM: /evil\n")
    faults = faults_of(["--grid", grid, "--results_dir", tmp_path / "results", "--local"], "run_experiments")
    assert {fault.code for fault in faults} == {"option.value"}
    assert not (tmp_path / "results").exists()
