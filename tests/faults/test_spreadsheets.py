"""A task whose slides and classes are named like formulas: trained, predicted and reported with the same names, and no
file that a spreadsheet runs."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import RunMain, SimulatedTask
from tests.support.damage import read_ids, write_ids
from utils.spreadsheets import FORMULA, NUMBER

CLASS = "=A1"
SLIDES = {"SIM-0000": "=cmd|'x'!A0", "SIM-0001": "+SIM-0001", "SIM-0002": "-SIM-0002", "SIM-0003": "@SIM-0003"}


@pytest.fixture
def formulas(task: SimulatedTask) -> SimulatedTask:
    """Slides and a class renamed in the table, the splits, the descriptions and the features, as a user writes them."""
    table = task.root / "simulated.csv"
    names = {**SLIDES, "SIMULATED_A": CLASS}
    pd.read_csv(table, dtype=str).replace(names).to_csv(table, index=False)
    for file in task.split_dir.glob("*.csv"):
        write_ids(file, {part: [names.get(one, one) for one in ids] for part, ids in read_ids(file).items()})
    for file in task.features.rglob("*.h5"):
        file.rename(file.with_stem(names.get(file.stem, file.stem)))
    texts = task.root / "simulated.json"
    texts.write_text(texts.read_text().replace('"SIMULATED_A"', json.dumps(CLASS)))
    return task


@pytest.mark.usefixtures("blank_figures")
def test_names_like_formulas(formulas: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert run_main(formulas.options(results, "--max_epochs", "1"))[0] == 0
    run = formulas.run_folder(results)
    output, checkpoint = tmp_path / "predictions.csv", str(run / "s_0_checkpoint.pt")
    assert run_main(["--checkpoint", checkpoint, "--output", str(output)], "predict")[0] == 0
    slides = [name for name in SLIDES.values() if not name.startswith("-")]  # the command line has options there
    explained = ["--checkpoint", checkpoint, "--output-dir", str(tmp_path / "out"), "--draws", "0", "--slide", *slides]
    assert run_main(explained, "explain")[0] == 0
    reported = [str(results), "--output-dir", str(tmp_path / "report"), "--resamples", "10"]
    assert run_main(reported, "report_results")[0] == 0
    assert run_main([str(run)], "results_page")[0] == 0

    files = [file for folder in ("results", "out", "report") for file in (tmp_path / folder).rglob("*.csv")]
    assert len(files) > 10
    for file in [*files, output]:
        with file.open(newline="") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
        assert [cell for cell in cells if FORMULA.match(cell) and cell[0] != "'" and not NUMBER.fullmatch(cell)] == []
    table = pd.read_csv(output, dtype=str)
    assert {"'" + name for name in SLIDES.values()} <= set(table["slide_id"])
    assert "'" + CLASS in set(table["label"]) and f"prob_{CLASS}" in table


def test_our_tables_are_read_as_they_were_meant(run_main: RunMain, tmp_path: Path) -> None:
    """A table that create_dataset_csv.py writes, and splits that create_splits.py writes of it."""
    for label in (CLASS, "B"):
        folder = tmp_path / "slides" / label
        folder.mkdir(parents=True)
        for number in range(20):
            (folder / f"-{label}{number}.h5").touch()
    table, splits = tmp_path / "t.csv", tmp_path / "splits"
    made = ["--task", "t", "--slides-dir", str(tmp_path / "slides"), "--output", str(table)]
    assert run_main(made, "create_dataset_csv")[0] == 0
    drawn = ["--task", "t", "--dataset_csv", str(table), "--few_shot_num", "2", "--k", "1", "--output_dir", str(splits)]
    assert run_main(drawn, "create_splits")[0] == 0
    for file in (table, splits / "t_2" / "splits_0.csv"):
        cells = [cell for row in csv.reader(file.read_text().splitlines()) for cell in row]
        assert any(cell.startswith("'-=A1") for cell in cells)
        assert not [cell for cell in cells if FORMULA.match(cell) and cell[0] != "'"]
    from datasets.splits import read_split_ids
    from datasets.task import read_slides

    names, slides = read_slides(table)
    assert names == [CLASS, "B"]
    assert {f"-{CLASS}{number}" for number in range(20)} < set(slides)
    assert {one for ids in read_split_ids(splits / "t_2" / "splits_0.csv").values() for one in ids} <= set(slides)
