"""Tables of slides, as tests read them, and tables of other forms that create_dataset_csv.py converts."""

import csv
from pathlib import Path

Rows = list[tuple[str, str, str, str]]  # case, slide, label, magnification
PLAIN: Rows = [("p0", "s0", "A", ""), ("p1", "s1", "B", "")]


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def converting(folder: Path, files: dict[str, str | bytes], *more: str) -> list[str]:
    """Write the files; the options of create_dataset_csv.py that convert them, in their order."""
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    tables = [str(folder / name) for name in files]
    return ["--task", "t", "--table", *tables, "--output", str(folder / "made.csv"), *more]


def rows_of(folder: Path) -> Rows:
    names = ("case_id", "slide_id", "label", "level0_mag")
    return [tuple(row[name] for name in names) for row in csv_rows(folder / "made.csv")]  # type: ignore[misc]
