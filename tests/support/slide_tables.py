"""Tables of slides, as tests read them."""

import csv
from pathlib import Path


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))
