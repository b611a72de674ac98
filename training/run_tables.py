"""The tables of a fold, read and checked: what is wrong with them themselves, whatever the fold's result tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import Fault, UserError
from utils.names import check_names
from utils.tables import read_csv
from utils.words import listed

TOLERANCE = 1e-6
MOST_COLUMNS = 12  # in a message
PREDICTION_TEXTS = ["split", "slide_id", "label", "prediction"]
CASE = "case_id"
"""The patient of a slide: the last column, which tables of earlier versions lack."""


def arrays(predictions: pd.DataFrame, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) as class indices, and probabilities (N, K), of a table of predictions."""
    labels = pd.Index(class_names).get_indexer(predictions["label"])
    return labels, predictions[_probability_columns(class_names)].to_numpy(np.float64)


def _probability_columns(class_names: Sequence[str]) -> list[str]:
    return [f"prob_{name}" for name in class_names]


@dataclass(frozen=True)
class TableFile:
    """A table that may be damaged, and what mends it."""

    file: Path
    mend: str

    def error(self, code: str, found: str, expected: str = "") -> UserError:
        return UserError(Fault(code, str(self.file), found, expected, self.mend))


def read_table(source: TableFile) -> pd.DataFrame:
    """The cells as text. Raises UserError where the file is not there or no table."""
    if not source.file.exists():
        raise source.error("run.missing_file", "file not found, though the fold is finished")
    try:
        return read_csv("run.unreadable_table", source.file)
    except UserError as error:
        raise source.error("run.unreadable_table", f"not a readable table ({error.faults[0].found})") from error


def as_numbers(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Make columns of the table float64. Returns those that are not there, or whose cells are no numbers, and why."""
    wrong = []
    for name in columns:
        try:
            table[name] = table[name].astype(np.float64)
        except KeyError:
            wrong.append(name)
        except ValueError as error:
            wrong.append(f"{name} ({error})")
    return wrong


def check_slides(table: pd.DataFrame, class_names: Sequence[str], source: TableFile) -> None:
    """The columns, the names of splits and classes, and each slide once in its split."""
    wanted = [*PREDICTION_TEXTS, *_probability_columns(class_names)]
    if list(table) not in (wanted, [*wanted, CASE]):
        raise source.error(
            "predictions.columns", f"found the columns {listed(table, MOST_COLUMNS)}", listed(wanted, MOST_COLUMNS)
        )
    for column, known in (("split", ["val", "test"]), ("label", class_names), ("prediction", class_names)):
        if unknown := sorted(set(table[column].astype(str)) - set(known)):
            raise source.error("predictions.unknown", f"found {column} {listed(unknown)}", listed(known))
    check_names(table["slide_id"], str(source.file), "slide ids")
    if set(table["split"]) != {"val", "test"} or table.duplicated(["split", "slide_id"]).any():
        raise source.error("predictions.slides", "found a part without slides, or slides that are there twice")


def check_probabilities(table: pd.DataFrame, class_names: Sequence[str], source: TableFile) -> None:
    """Make the probabilities of the table numbers, and check that those of each slide add up to 1."""
    columns = _probability_columns(class_names)
    if wrong := as_numbers(table, columns):
        found = f"found probabilities that are no numbers in {', '.join(wrong)}"
        raise source.error("predictions.no_numbers", found)
    shares = table[columns].to_numpy()
    if not np.allclose(shares.sum(axis=1), 1, rtol=0, atol=TOLERANCE) or (shares < 0).any():
        raise source.error("predictions.sum", "found probabilities that do not add up to 1")
