"""CSV that a spreadsheet shows and does not run: a cell of text that a spreadsheet would take for a formula gets an
apostrophe in front, which the readers of this project take away again."""

import csv
import re
from typing import Any

import pandas as pd

MARK = "'"
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def escaped(cell: Any) -> Any:
    """A cell as it is written: =1+1 -> '=1+1. Numbers, -0.5 as text among them, stay as they are."""
    is_formula = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
    return MARK + cell if is_formula else cell


def unescaped(cell: Any) -> Any:
    """What ``escaped`` was given: '=1+1 -> =1+1."""
    return cell[1:] if isinstance(cell, str) and cell.startswith(MARK) and FORMULA.match(cell) else cell


def csv_text(table: pd.DataFrame, **how: Any) -> str:
    """A table as CSV, with all texts ``escaped``: cells, headings and index. how: as ``DataFrame.to_csv`` takes it."""
    texts = [number for number, kind in enumerate(table.dtypes) if kind.kind not in "biufcmM"]
    safe = table.copy(deep=False)
    for number in texts:
        safe.isetitem(number, table.iloc[:, number].map(escaped))
    safe.columns, safe.index = table.columns.map(escaped), table.index.map(escaped)
    safe.index.name = escaped(table.index.name)
    has_returns = any("\r" in str(cell) for number in texts for cell in safe.iloc[:, number])
    quoting = (
        csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL
    )  # which leaves a \r bare: two rows for a reader
    return str(safe.to_csv(quoting=quoting, **how))


def unescaped_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table that was read from CSV, as it was before ``csv_text``."""
    texts = [number for number, kind in enumerate(table.dtypes) if kind.kind not in "biufcmM"]
    plain = table.copy(deep=False)
    for number in texts:
        plain.isetitem(number, table.iloc[:, number].map(unescaped))
    plain.columns = table.columns.map(unescaped)
    return plain
