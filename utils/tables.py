"""The reader of tables: CSV files, whose cells stay text, refused where they would be read otherwise than meant.

The project's own tables are CSV in UTF-8 with commas, and ``read_csv`` refuses all others: a table is read the same on
every machine. ``read_foreign`` reads what spreadsheets and other tools write, for a script that converts such a table.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.errors import Fault, UserError
from utils.files import UTF8, UTF16, UTF16_MARKS, read_text
from utils.spreadsheets import unescaped

SAVE_AS = "save it as CSV in UTF-8, with commas"
OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
SEPARATORS = {",": "commas", **OTHERS}
WINDOWS = "cp1252"
"""What Windows writes in western Europe and America where it does not write Unicode."""
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?[,;\t|]*\r?\n', re.IGNORECASE)
"""The first line by which Excel is told the separator."""

Rows = list[tuple[int, list[str]]]


@dataclass(frozen=True)
class ForeignTable:
    """A table that another tool wrote. encoding: in Python's words. separator: of the cells."""

    path: Path
    cells: pd.DataFrame
    encoding: str
    separator: str

    @property
    def form(self) -> str:
        """How the file is written, in words, for a note; empty where it is written as the project's tables are."""
        encoding = "" if self.encoding in (UTF8, "ascii") else self.encoding
        separator = "" if self.separator == "," else f"separated by {SEPARATORS.get(self.separator, self.separator)}"
        return ", ".join(filter(None, [encoding, separator]))


def read_csv(code: str, path: Path, mend: str = SAVE_AS) -> pd.DataFrame:
    """A table whose first row is its header: all cells as text without blanks around them. Rows that are all blank
    are left out, and a row that ends early has blanks in its last columns.

    code: of the fault where the file is no such table. mend: what a user does about a table of another form. Raises
    UserError as ``read_rows``, and for two columns of one name and rows with more cells than the header.
    """
    rows = read_rows(code, path, mend=mend)
    header = rows[0][1]
    others = next((words for sign, words in OTHERS.items() if len(header) == 1 and sign in header[0]), "")
    if others:
        found = f"its columns are separated by {others} ({header[0][:80]!r})"
        raise UserError(Fault(code, str(path), found, "commas", mend))
    return _with_header(code, path, rows)


def read_rows(code: str, path: Path, expected: str = "", mend: str = SAVE_AS) -> Rows:
    """The rows that are not blank: the line where each ends, counted from 1, and its cells, without blanks around
    them.

    code: of the fault where the file is no table. expected: what the table should be, for the fault of an empty one.
    mend: what a user does about a file in another encoding.

    Raises UserError where the path is no file of text in UTF-8 with one row at least, holds NUL, or has a quote that is
    not closed.
    """
    return _checked_rows(code, path, read_text(code, path, mend), ",", expected)


def read_foreign(code: str, path: Path, separator: str | None = None) -> ForeignTable:
    """A table as ``read_csv`` gives it, in whatever encoding and with whatever separator it is written.

    code: of the fault where the file is no table. separator: of the cells; by default the sign of ``SEPARATORS`` that
    divides the most rows into as many cells as the header has. Raises UserError as ``read_csv``, and where the file is
    missing.
    """
    if not path.exists():
        raise UserError(Fault("file.missing", str(path), "file not found", "a table"))
    text = _without_comments(read_text(code, path, SAVE_AS, encoding_of))
    told = SEPARATOR_LINE.match(text)
    if told:
        text = "\n" + text[told.end() :]  # the lines keep their numbers
    separator = separator or (told[1] if told else _separator_of(text))
    rows = _checked_rows(code, path, text, separator)
    return ForeignTable(path, _with_header(code, path, rows), encoding_of(path.read_bytes()), separator)


def encoding_of(data: bytes) -> str:
    """The encoding of a text: by its mark, else UTF-16 where it is mostly ASCII with NUL between, else UTF-8 where the
    bytes are that, else cp1252."""
    if data.startswith(UTF16_MARKS):
        return UTF16
    half = max(len(data) // 2, 1)
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(data) % 2 == 0 and data[start::2].count(0) * 2 > half:
            return name
    try:
        data.decode(UTF8)
    except UnicodeDecodeError:
        return WINDOWS
    return UTF8


def _without_comments(text: str) -> str:
    """The text with its first lines blank where they begin with # and are no header: several of them, as cBioPortal
    writes, or one that is divided otherwise than the line after it."""
    lines = re.split(r"(\r\n|\n|\r)", text)  # and their ends
    first = next((place for place in range(0, len(lines), 2) if not lines[place].startswith("#")), 0)
    is_header = first == 2 and any(0 < lines[0].count(sign) == lines[2].count(sign) for sign in SEPARATORS)
    return text if is_header else "".join([*lines[1:first:2], *lines[first:]])


def _separator_of(text: str) -> str:
    fits = {}
    for sign in SEPARATORS:
        try:
            widths = [len(cells) for _, cells in _rows(text, sign)]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            fits[sign] = widths.count(widths[0]), widths[0]
    return max(fits, key=lambda sign: fits[sign], default=",")


def _rows(text: str, separator: str) -> Rows:
    """Raises csv.Error, whose text begins with the line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = []
    try:
        for cells in reader:
            stripped = [unescaped(cell.strip()) for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from error
    return rows


def _checked_rows(code: str, path: Path, text: str, separator: str, expected: str = "") -> Rows:
    try:
        rows = _rows(text, separator)
    except csv.Error as error:
        raise UserError(
            Fault(code, str(path), f"not a readable CSV ({error})", mend="is a quote not closed?")
        ) from error
    if not rows:
        raise UserError(Fault(code, str(path), "not a readable CSV (it is empty)", expected))
    return rows


def _with_header(code: str, path: Path, rows: Rows) -> pd.DataFrame:
    header = rows[0][1]
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
