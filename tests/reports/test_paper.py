"""The paper's numbers: held against the text they were read from and against each other; beside ours; and in order."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.paper import PublishedRow, beside_published, in_paper_order, measures_of, read_published
from reports.settings import ResultsTable, Setting
from tests.conftest import SHARED
from tests.support.faults import expect_faults
from tests.support.made_settings import with_results
from utils.presets import Preset, PresetReport, read_preset_file

ROWS = read_published()
TABLE_1 = {(row.place, row.label): row for row in ROWS if row.table == "1"}
NUMBER = re.compile(r"(\d+\.\d+)\+-(\d+\.\d+)")
OURS = {  # rows of which the text says "as Table 1"
    "11": "GPT-4o (HiVE-MIL)",
    "14": "(c) both (HiVE-MIL)",
    "16": "lambda 0.5 (HiVE-MIL)",
}
MODEL = {  # the row of each table that is the model as it is
    **OURS, "2": "Class-Wise (HiVE-MIL)", "3": "(d) HiVE-MIL", "10": "Term + Exp. (HiVE-MIL)",
    "12": "TGDF (HiVE-MIL)", "13": "Graph / HGNN (HiVE-MIL)", "15": "alpha 0.5 (HiVE-MIL)",
}  # fmt: skip


def rows_of(table: str) -> list[PublishedRow]:
    return [row for row in ROWS if row.table == table]


# ---- the numbers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> dict[str, str]:
    """The text of each table of paper.md by its number."""
    file = SHARED / "spec" / "paper.md"
    if not file.is_file():
        pytest.skip("the paper's text (../shared/spec) is not here")
    text = file.read_text(encoding="utf-8").split("## 2. Tables")[1].split("## 3. Figures")[0]
    parts = re.split(r"### Table (\d+)\b", text.replace("### Table 7 notation. ", ""))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("table", list(dict.fromkeys(row.table for row in ROWS)))
def test_every_number_is_the_papers_in_its_order(paper: dict[str, str], table: str) -> None:
    told = [(float(mean), float(std)) for mean, std in NUMBER.findall(paper[table])]
    rows = [row for row in rows_of(table) if row.label != OURS.get(table)]
    assert [(row.means[key], row.stds[key]) for row in rows for key in ("acc", "auc", "f1") if key in row.stds] == told


def test_no_table_of_results_is_left_out(paper: dict[str, str]) -> None:
    assert {row.table for row in ROWS} == {table for table, text in paper.items() if NUMBER.search(text)}
    assert len(ROWS) == 203 and all(set(row.stds) | {"filtered_low", "filtered_high"} >= set(row.means) for row in ROWS)


def test_filtered_pairs(paper: dict[str, str]) -> None:
    told = re.findall(r"(?<=[ :])(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)(?= \d)", paper["15"].splitlines()[1])
    found = [(row.means["filtered_low"], row.means["filtered_high"]) for row in rows_of("15")]
    assert found == [(float(low), float(high)) for low, high in told]
    assert len(found) == 12


@pytest.mark.parametrize("table", MODEL)
def test_the_model_has_the_same_numbers_in_all_tables(table: str) -> None:
    rows = [row for row in rows_of(table) if row.label == MODEL[table]]
    assert len(rows) in (2, 3)
    for row in rows:
        first = TABLE_1[row.place, "HiVE-MIL"]
        shared = row.stds.keys()
        assert {key: (row.means[key], row.stds[key]) for key in shared} == {
            key: (first.means[key], first.stds[key]) for key in shared
        }


def test_differences_from_the_second_best(paper: dict[str, str]) -> None:
    places = list(dict.fromkeys(row.place for row in rows_of("1")))
    told = [
        float(one) for line in re.findall(r"over 2nd best.*", paper["1"]) for one in re.findall(r"\+(\d\.\d+)", line)
    ]
    found = []
    for place in places:
        for key in ("acc", "auc", "f1"):
            first, second, *_ = sorted((row.means[key] for row in rows_of("1") if row.place == place), reverse=True)
            found.append(round(first - second, 2))
            assert first == TABLE_1[place, "HiVE-MIL"].means[key]
    assert found == pytest.approx(told)


def test_labels_are_those_of_the_presets() -> None:
    for preset in read_preset_file().values():
        for table in preset.report.published:
            labels = list(dict.fromkeys(row.label for row in rows_of(table)))
            assert set(preset.runs) <= set(labels)
            assert table == "1" or labels == list(preset.runs)
            places = {row.place for row in rows_of(table)}
            assert {place[0] for place in places} == set(preset.values("feature_extractor"))
            assert {place[1] for place in places} == set(preset.values("task"))


# ---- beside ours -----------------------------------------------------------------------------------------------------


PRESET = Preset(
    "x", {"base": {}, "whole": {}}, {"task": ["t2", "t1"]}, PresetReport(["auc", "acc"], published=["2"], also=["9"])
)
PLACE = ("plip", "t1", 16)
PUBLISHED = [
    PublishedRow("2", PLACE, "base", {"auc": 60.0, "acc": 50.0}, {"auc": 1.0, "acc": 2.0}),
    PublishedRow("2", PLACE, "whole", {"auc": 70.5}, {"auc": 1.5}),
    PublishedRow("2", PLACE, "not here", {"auc": 1.0}, {}),
    PublishedRow("2", ("conch", "t1", 16), "base", {"auc": 66.0}, {}),
    PublishedRow("9", PLACE, "other model", {"auc": 80.0}, {}),
]


def results_of(*labels: str, task: str = "t1", shots: int = 16, extractor: str = "plip") -> ResultsTable:
    """Rows whose two folds have the AUCs 0.6 and 0.7, and the accuracies 0.25 and 0.75."""

    def made(label: str) -> Setting:
        folds = ({"test_auc": 0.6, "test_acc": 0.25}, {"test_auc": 0.7, "test_acc": 0.75})
        return replace(with_results(label, *folds), task=task, shots=shots, feature_extractor=extractor)

    column = (task, shots)
    return ResultsTable("mine", extractor, list(labels), [column], {(label, column): made(label) for label in labels})


def cells(results: ResultsTable, published: list[PublishedRow]) -> Iterator[list[str]]:
    beside = beside_published(results, PRESET, published)
    assert beside is not None
    for row in beside.table.rows:
        yield [cell.text for cell in row]


def test_the_papers_number_stands_beside_ours_with_the_difference() -> None:
    assert list(cells(results_of("whole", "own row"), PUBLISHED)) == [
        ["plip", "t1", "16", "base", "-", "60.00 ± 1.00", "-", "-", "50.00 ± 2.00", "-"],
        ["plip", "t1", "16", "whole", "65.00 ± 5.00", "70.50 ± 1.50", "-5.50", "50.00 ± 25.00", "-", "-"],
        ["plip", "t1", "16", "own row", "65.00 ± 5.00", "-", "-", "50.00 ± 25.00", "-", "-"],
        ["plip", "t1", "16", "other model", "-", "80.00", "-", "-", "-", "-"],
    ]
    beside = beside_published(results_of("whole", "own row"), PRESET, PUBLISHED)
    assert beside is not None
    numbers = beside.numbers.set_index("label")
    assert numbers.loc["whole", ["auc_here", "auc_paper", "auc_difference"]].tolist() == [65, 70.5, -5.5]
    assert (
        numbers.loc["other model", "source"] == "arXiv 2505.17982, Table 9" and numbers.loc["own row", "source"] == ""
    )
    assert any("own row" in note and "whole" not in note for note in beside.notes)
    assert any("other model" in note and "Table 9" in note for note in beside.notes)


@pytest.mark.parametrize("other", [{"task": "t9"}, {"shots": 4}, {"extractor": "uni"}])
def test_where_the_paper_has_nothing_its_own_rows_follow(other: dict[str, object]) -> None:
    results = results_of("base", **other)  # type: ignore[arg-type]
    rows = list(cells(results, PUBLISHED))
    assert rows[0][3:] == ["base", "65.00 ± 5.00", "-", "-", "50.00 ± 25.00", "-", "-"]
    expected = [("plip", "base"), ("plip", "whole"), ("plip", "other model"), ("conch", "base")]
    assert [(row[0], row[3]) for row in rows[1:]] == expected
    assert all(row[4] == row[6] == row[9] == "-" for row in rows[1:])
    beside = beside_published(results, PRESET, PUBLISHED)
    assert beside is not None
    place = ", ".join([results.feature_extractor, results.columns[0][0], f"{results.columns[0][1]} shots"])
    assert beside.notes[0].startswith(f"{place}: ")


def test_a_preset_without_numbers_has_none_beside() -> None:
    preset = replace(PRESET, report=replace(PRESET.report, published=[], also=[]))
    assert beside_published(results_of("base"), preset, PUBLISHED) is None


def test_a_number_that_a_run_lacks_has_no_difference() -> None:
    results = results_of("base")
    ((key, setting),) = results.cells.items()
    empty = replace(results, cells={key: replace(setting, runs=())})
    (first, *_) = cells(empty, PUBLISHED)
    assert first[4:7] == ["-", "60.00 ± 1.00", "-"] and not np.isnan(PUBLISHED[0].means["auc"])


# ---- order -----------------------------------------------------------------------------------------------------------


def test_tables_rows_and_columns_are_in_the_papers_order() -> None:
    presets = {
        "b": replace(PRESET, options={"task": ["t2", "t1"], "feature_extractor": ["quilt", "conch"]}),
        "a": PRESET,
    }
    made = [
        replace(results_of("whole", "new", "base"), preset=preset, feature_extractor=extractor)
        for preset, extractor in (
            ("a", "plip"),
            ("b", "aaa"),
            ("b", "conch"),
            ("b", "quilt"),
            (None, "plip"),
            ("old", "x"),
        )
    ]
    columns = [("t0", 4), ("t1", 4), ("t1", 16), ("t2", 4)]
    ordered = in_paper_order([replace(one, columns=columns) for one in made], presets)
    assert [(one.preset, one.feature_extractor) for one in ordered] == [
        ("b", "quilt"), ("b", "conch"), ("b", "aaa"), ("a", "plip"), (None, "plip"), ("old", "x")
    ]  # fmt: skip
    assert [(one.rows, one.columns) for one in ordered[:4]] == [
        (["base", "whole", "new"], [("t2", 4), ("t1", 4), ("t1", 16), ("t0", 4)])
    ] * 4
    assert ordered[-1].rows == ["whole", "new", "base"] and ordered[-1].columns == columns


def test_a_column_that_no_fold_has() -> None:
    preset = replace(PRESET, report=PresetReport(["auc", "kappa"]))
    with expect_faults("preset.column") as faults:
        measures_of(preset)
    assert "kappa" in faults[0].found
    assert [measure.key for measure in measures_of(PRESET)] == ["auc", "acc"]


def test_a_file_of_numbers(tmp_path: Path) -> None:
    file = tmp_path / "published.csv"
    file.write_text("table,feature_extractor,task,shots,label,acc,acc_std,auc\n7,plip,t,16,a,50.0,1.5,\n")
    assert read_published(file) == [PublishedRow("7", ("plip", "t", 16), "a", {"acc": 50.0}, {"acc": 1.5})]
