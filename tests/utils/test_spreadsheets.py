"""Cells that a spreadsheet would run are written as text, and read back as they were."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.spreadsheets import csv_text, escaped, unescaped, unescaped_table

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''@x", "-", "=", "-0.5x"]
PLAIN = ["-0.5", "+3", "-1e-05", ".5", "slide-1", "a=b", "'quoted'", "", "TCGA-05", "it's", "3+4"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_behind_an_apostrophe(text: str) -> None:
    assert escaped(text) == "'" + text
    assert unescaped("'" + text) == text


@pytest.mark.parametrize("cell", [*PLAIN, -0.5, 3, None, float("inf")])
def test_other_cells_stay_as_they_are(cell: object) -> None:
    assert escaped(cell) is cell
    assert unescaped(cell) is cell


@given(st.text(alphabet="'=+-@\t\r\n01.eEa ,\"＝", max_size=6))
def test_every_text_is_read_back(text: str) -> None:
    assert unescaped(escaped(text)) == text


def test_cells_headings_and_index_of_a_table() -> None:
    table = pd.DataFrame({"=name": FORMULAS, "score": [-0.5] * len(FORMULAS)}, index=pd.Index(FORMULAS, name="@id"))
    text = csv_text(table)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["'@id", "'=name", "score"]
    assert [row[0] for row in rows[1:]] == [row[1] for row in rows[1:]] == ["'" + cell for cell in FORMULAS]
    assert {row[2] for row in rows[1:]} == {"-0.5"}
    read = unescaped_table(pd.read_csv(io.StringIO(text, newline=""), dtype={"'=name": str, "'@id": str}))
    assert read["=name"].tolist() == read["@id"].tolist() == FORMULAS


def test_a_table_without_such_cells_is_what_pandas_writes() -> None:
    table = pd.DataFrame({"a": ["x", None], "b": [1.25, -3], "c": [True, False]})
    assert csv_text(table) == table.to_csv()
    assert csv_text(table, index=False) == table.to_csv(index=False)
