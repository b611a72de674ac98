"""The reader of tables: CSV files, whose cells stay text, refused where they would be read otherwise than meant."""

import csv
import io
from pathlib import Path

import pandas as pd

from utils.errors import Fault, UserError
from utils.files import read_text
from utils.spreadsheets import unescaped

SAVE_AS = "save it as CSV in UTF-8, with commas"
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(code: str, path: Path) -> pd.DataFrame:
    """A table whose first row is its header: all cells as text without blanks around them. Rows that are all blank
    are left out, and a row that ends early has blanks in its last columns.

    code: of the fault where the file is no such table. Raises UserError as ``read_rows``, and for two columns of one
    name and rows with more cells than the header.
    """
    rows = read_rows(code, path)
    header = rows[0][1]
    others = next((words for sign, words in OTHER_SEPARATORS.items() if len(header) == 1 and sign in header[0]), "")
    if others:
        found = f"its columns are separated by {others} ({header[0][:80]!r})"
        raise UserError(Fault(code, str(path), found, "commas", SAVE_AS))
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        found = f"several columns are called {', '.join(map(repr, repeated))}; found {header}"
        raise UserError(Fault(code, str(path), found, "each name once", "remove or rename the others"))
    width = len(header)
    wide = [(number, cells) for number, cells in rows[1:] if any(cells[width:])]
    if wide:
        number, cells = wide[0]
        found = f"{len(wide)} rows have more cells than the header, first line {number}: {cells}"
        expected = f"{width} cells, of the columns {header}"
        raise UserError(Fault(code, str(path), found, expected, "put cells with commas into quotes"))
    padded = [[*cells, *[""] * (width - len(cells))][:width] for _, cells in rows[1:]]
    return pd.DataFrame(padded, columns=header, dtype=str)


def read_rows(code: str, path: Path, expected: str = "") -> list[tuple[int, list[str]]]:
    """The rows that are not blank: the line where each ends, counted from 1, and its cells, without blanks around
    them.

    code: of the fault where the file is no table. expected: what the table should be, for the fault of an empty one.

    Raises UserError where the path is no file of text in UTF-8 with one row at least, holds NUL, or has a quote that is
    not closed.
    """
    reader = csv.reader(io.StringIO(read_text(code, path, SAVE_AS), newline=""), skipinitialspace=True, strict=True)
    rows = []
    try:
        for cells in reader:
            stripped = [unescaped(cell.strip()) for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        found = f"not a readable CSV (line {reader.line_num}: {error})"
        raise UserError(Fault(code, str(path), found, mend="is a quote not closed?")) from error
    if not rows:
        raise UserError(Fault(code, str(path), "not a readable CSV (it is empty)", expected))
    return rows
