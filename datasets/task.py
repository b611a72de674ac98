"""The slides of a task, and the reader of its table of slides. Adding a task needs no code."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from datasets.barcodes import is_barcode, patient_of, site_of
from datasets.numbers import positive_number
from datasets.slide_names import composed, slide_name
from utils.commands import command
from utils.config import Config
from utils.errors import Fault, UserError
from utils.names import check_names
from utils.tables import SAVE_AS, read_csv
from utils.words import listed, quoted

NO_LABEL = -1
MAGNIFICATIONS = "20 or 40, say"
COLUMNS = ("case_id", "slide_id", "label", "site", "level0_mag", "force_magnification", "mpp")
"""What is read of a table, also where the header spells it "Slide ID"."""


@dataclass(frozen=True)
class Slide:
    """label: class index, or -1. case_id: the patient as the table says. level0_mag: magnification of level 0, where
    the table has it."""

    slide_id: str
    case_id: str
    label: int = NO_LABEL
    level0_mag: float | None = field(default=None, compare=False)

    @property
    def patient(self) -> str:
        """The patient that a TCGA barcode names; of another slide the case."""
        return patient_of(self.slide_id) if is_barcode(self.slide_id) else self.case_id


def read_table(path: Path) -> pd.DataFrame:
    """The data set's CSV, all columns as text in Unicode's form NFC, slides as ``slide_name`` names them. A slide
    without case_id is a case of its own.

    Raises UserError where the file is missing or no table, lacks slide_id, has a column of ``COLUMNS`` in two
    spellings, or has a slide twice, without a name, or with a name that no file can have.
    """
    if not path.exists():
        mend = "name it with --dataset_csv, or make it: python create_dataset_csv.py"
        raise UserError(Fault("table.missing", str(path), "the table of slides is not there", mend=mend))
    convert = f"convert it: {command('create_dataset_csv.py', task='NAME', table=path)}"
    table = _with_known_columns(path, read_csv("table.unreadable", path, f"{SAVE_AS}, or {convert}").map(composed))
    if "slide_id" not in table:
        found = f"no column slide_id; found [{listed(table)}]"
        raise UserError(Fault("table.columns", str(path), found, "case_id, slide_id, label", convert))
    table["slide_id"] = table["slide_id"].map(slide_name)
    cases = table["case_id"] if "case_id" in table else table["slide_id"]
    table["case_id"] = cases.where(cases != "", table["slide_id"])
    nameless = int((table["slide_id"] == "").sum())
    if nameless:
        raise UserError(Fault("table.nameless_slide", str(path), f"{nameless} rows have no slide_id"))
    check_names(table["slide_id"], str(path), "slide ids")
    twice = [slide_id for slide_id, count in Counter(table["slide_id"]).items() if count > 1]
    if twice:
        found = f"{len(twice)} slides stand there more than once ({listed(twice)})"
        raise UserError(Fault("table.repeated_slide", str(path), found))
    if table.empty:
        raise UserError(Fault("table.empty", str(path), "no slides"))
    check_names(table["slide_id"], str(path), "slide ids")
    return table


def _with_known_columns(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the spelling of ``COLUMNS``. Raises UserError where a column is there in two spellings."""
    spelt: dict[str, list[str]] = {}
    for name in table:
        known = re.sub(r"[\s-]+", "_", str(name)).casefold()
        if known in COLUMNS:
            spelt.setdefault(known, []).append(str(name))
    for names in spelt.values():
        if len(names) > 1:
            found = f"the columns {' and '.join(map(repr, names))} are spelt alike"
            raise UserError(Fault("table.columns", str(path), found, "one of them", "remove or rename the other"))
    return table.rename(columns={names[0]: known for known, names in spelt.items()})


def read_labels(path: Path) -> list[str]:
    """The labels of a table, sorted; none where it has no column label. Raises UserError as ``read_table``."""
    table = read_table(path)
    return sorted(set(table["label"]) - {""}) if "label" in table else []


def read_slides(
    path: Path, class_names: list[str] | None = None, labels_optional: bool = False
) -> tuple[list[str], dict[str, Slide]]:
    """Class names and slides of a table.

    class_names: the known classes; by default the sorted labels of the table. A slide with an empty label has none;
    with ``labels_optional`` so has one with a label that is no known class (``other_labels`` lists them). Raises
    UserError as ``read_table``, for fewer than two classes, and for other labels unless ``labels_optional``.
    """
    table = read_table(path)
    labels = table["label"] if "label" in table else pd.Series([""] * len(table))
    found = sorted(set(labels) - {""})
    if class_names is None and len(found) < 2:
        columns = list(read_csv("table.unreadable", path))
        said = f"the labels are [{listed(found)}]" if "label" in table else f"no column label; found {columns}"
        raise UserError(Fault("table.classes", str(path), said, "at least two classes in the column label"))
    spelt: dict[str, list[str]] = {}
    for name in found:
        spelt.setdefault(" ".join(name.split()).casefold(), []).append(name)
    alike = [names for names in spelt.values() if len(names) > 1]
    if class_names is None and alike:
        said = f"the labels {' and '.join(map(repr, alike[0]))} differ in case or blanks alone"
        raise UserError(Fault("table.classes", str(path), said, "one spelling for a class"))
    names = found if class_names is None else class_names
    others = other_labels(table, names)
    if others and not labels_optional:
        told = f"{len(others)} labels that are no class of the model: {labels_told(others)}"
        expected = f"one of [{listed(names)}]"
        mend = (
            "mend the labels in the table (a blank for a slide whose class is not known), or count these slides as "
            "unlabelled with --labels-optional"
        )
        raise UserError(Fault("table.unknown_class", str(path), told, expected, mend))
    index = {composed(name): label for label, name in enumerate(names)}
    level0 = map(positive_number, table.get("level0_mag", [""] * len(table)))
    rows = zip(table["slide_id"], table["case_id"], labels, level0, strict=True)
    slides = [Slide(slide_id, case_id, index.get(label, NO_LABEL), mag) for slide_id, case_id, label, mag in rows]
    return names, {slide.slide_id: slide for slide in slides}


def other_labels(table: pd.DataFrame, class_names: Sequence[str]) -> dict[str, list[str]]:
    """{label: its slides} of the labels in a table (``read_table``) that are neither a class nor blank."""
    known = set(map(composed, class_names))
    others: dict[str, list[str]] = {}
    for slide_id, label in zip(table["slide_id"], table.get("label", [""] * len(table)), strict=True):
        if label and label not in known:
            others.setdefault(label, []).append(slide_id)
    return others


def labels_told(others: Mapping[str, Sequence[str]]) -> str:
    """``other_labels`` in words: each label, how many slides have it, and which."""
    return listed((f"{quoted(label)} of {len(ids)} ({listed(ids)})" for label, ids in others.items()), quote=False)


def read_sites(path: Path) -> dict[str, str]:
    """Tissue source site by slide_id: as a TCGA barcode says, else the table's column ``site``; "" where neither does.
    Raises UserError as ``read_table``."""
    rows = _column(path, "site").items()
    return {slide_id: site_of(slide_id) if is_barcode(slide_id) else site for slide_id, site in rows}


def optional_table(task: str, given: str | None) -> Path | None:
    """The table of slides that is given, else that of the task; None where the task has none."""
    table = Config(task=task, dataset_csv=given).csv_path()
    return table if given or table.is_file() else None


def read_level0_magnifications(path: Path) -> dict[str, float]:
    """{slide_id: magnification of level 0} from the columns level0_mag and force_magnification of the table of slides,
    where they are filled in; the second one counts before the first. Raises UserError as ``read_table``, and where one
    is not a number above 0."""
    return _numbers(path, "level0_mag", MAGNIFICATIONS) | read_forced_magnifications(path)


def read_forced_magnifications(path: Path) -> dict[str, float]:
    """As ``read_level0_magnifications``, from the column force_magnification, which counts before a slide's tags."""
    return _numbers(path, "force_magnification", MAGNIFICATIONS)


def read_pixel_sizes(path: Path) -> dict[str, float]:
    """{slide_id: microns per pixel of level 0} from the column mpp, as ``read_level0_magnifications``."""
    return _numbers(path, "mpp", "microns per pixel of level 0, 0.25 say")


def _numbers(path: Path, name: str, expected: str) -> dict[str, float]:
    """{slide_id: number} of a column, where it is filled in."""
    found = {}
    for slide_id, text in _column(path, name).items():
        number = positive_number(text)
        if text and number is None:
            said = f"{name} of {slide_id} is {text!r}"
            raise UserError(Fault("table.magnification", str(path), said, expected))
        if number is not None:
            found[slide_id] = number
    return found


def _column(path: Path, name: str) -> dict[str, str]:
    """{slide_id: text} of a column that a table may lack."""
    table = read_table(path)
    return dict(zip(table["slide_id"], table.get(name, [""] * len(table)), strict=True))
