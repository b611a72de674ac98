"""A task: slides with labels, and the descriptions of their classes. Adding one needs no code."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from datasets.descriptions import Descriptions
from datasets.folders import FeatureFolders
from utils.errors import UserError

NO_LABEL = -1


@dataclass(frozen=True)
class Slide:
    """label: class index, or -1. case_id: the patient as the table says."""

    slide_id: str
    case_id: str
    label: int = NO_LABEL

    @property
    def patient(self) -> str:
        """TCGA slides carry the patient in the first 12 characters of their name; otherwise the case."""
        return self.slide_id[:12] if self.slide_id.startswith("TCGA-") else self.case_id


@dataclass(frozen=True)
class Task:
    """class_names: sorted labels; a label is an index into them. slides: by slide_id, in the order of the table."""

    name: str
    class_names: list[str]
    slides: dict[str, Slide]
    descriptions: Descriptions
    folders: FeatureFolders


def read_table(path: Path) -> pd.DataFrame:
    """The data set's CSV, all columns as text; a slide without case_id is a case of its own. Raises UserError where
    the file is missing, lacks slide_id, or has a slide twice."""
    if not path.is_file():
        raise UserError(
            f"{path}: the table of slides is not there; name it with --dataset_csv, or make it: "
            "python create_dataset_csv.py"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable CSV ({error})") from error
    table.columns = table.columns.str.strip()
    table = table.apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)].reset_index(drop=True)  # spreadsheets leave blank rows
    if "slide_id" not in table:
        raise UserError(f"{path}: no column slide_id; found {list(table)}, expected case_id, slide_id, label")
    cases = table["case_id"] if "case_id" in table else table["slide_id"]
    table["case_id"] = cases.where(cases != "", table["slide_id"])
    nameless = int((table["slide_id"] == "").sum())
    if nameless:
        raise UserError(f"{path}: {nameless} rows have no slide_id")
    twice = [slide_id for slide_id, count in Counter(table["slide_id"]).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} slides stand there more than once ({', '.join(twice[:3])})")
    if table.empty:
        raise UserError(f"{path}: no slides")
    return table


def read_labels(path: Path) -> list[str]:
    """The labels of a table, sorted; none where it has no column label. Raises UserError as ``read_table``."""
    table = read_table(path)
    return sorted(set(table["label"]) - {""}) if "label" in table else []


def read_slides(path: Path, class_names: list[str] | None = None) -> tuple[list[str], dict[str, Slide]]:
    """Class names and slides of a table.

    class_names: the known classes; by default the sorted labels of the table. A slide with an empty label has none.
    Raises UserError as ``read_table``, for fewer than two classes, and for a label not among ``class_names``.
    """
    table = read_table(path)
    labels = table["label"] if "label" in table else pd.Series([""] * len(table))
    found = sorted(set(labels) - {""})
    if class_names is None and len(found) < 2:
        raise UserError(f"{path}: the labels are {found}, expected at least two classes in the column label")
    names = found if class_names is None else class_names
    unknown = [label for label in found if label not in names]
    if unknown:
        raise UserError(f"{path}: unknown class {unknown[0]!r}; expected one of {names}")
    index = {name: label for label, name in enumerate(names)}
    rows = zip(table["slide_id"], table["case_id"], labels, strict=True)
    slides = [Slide(slide_id, case_id, index.get(label, NO_LABEL)) for slide_id, case_id, label in rows]
    return names, {slide.slide_id: slide for slide in slides}
