"""Tables of slides from published lists of labels: Camelyon16's reference.csv, UBC-OCEAN's train.csv.

Camelyon16 publishes training slides whose names tell their class (normal_001.tif, tumor_001.tif) and test slides
(test_001.tif) whose class stands in reference.csv: name, class (Normal or Tumor), type, size, without a header. Its
README says that normal_086 was renamed to tumor_111, that test_049 is a duplicate, and that the annotations of test_114
are not exhaustive; that slide's class stands. So 159 normal, 111 tumor and 129 test slides make the table.

UBC-OCEAN publishes train.csv: image_id, label, image_width, image_height, is_tma. Tissue microarrays (is_tma) are no
whole slides and are left out. Its whole slides were scanned at 20x.
"""

import re
from collections import Counter
from pathlib import Path

from datasets.make_table import TableParts, TableRow
from datasets.slide_names import slide_name
from utils.errors import Fault, UserError
from utils.names import check_names
from utils.tables import read_csv, read_rows
from utils.words import listed

CAMELYON16_CLASSES = {"normal": "NORMAL", "tumor": "TUMOR", "tumour": "TUMOR"}
TRAINING = [f"normal_{n:03}" for n in range(1, 161) if n != 86] + [f"tumor_{n:03}" for n in range(1, 112)]
TEST = [f"test_{n:03}" for n in range(1, 131)]
DUPLICATE, PARTLY_ANNOTATED = "test_049", "test_114"
TEST_NAME = re.compile(r"test_\d{3}")

UBC_COLUMNS = ("image_id", "label", "is_tma")
UBC_CLASSES = ("CC", "EC", "HGSC", "LGSC", "MC")
UBC_MAGNIFICATION = 20.0
IS_TMA = {"true": True, "1": True, "false": False, "0": False}

CODE, MEND = "reference.unreadable", "is it the file that the data set publishes?"
EXPECTED = "Camelyon16's reference.csv (test_001,Tumor,...) or UBC-OCEAN's train.csv (image_id,label,...,is_tma)"


def rows_from_reference(path: Path) -> TableParts:
    """The slides of the data set whose list of labels the file is. Raises UserError where it is none of the two."""
    if not path.exists():
        raise UserError(Fault("file.missing", str(path), "file not found", EXPECTED))
    if {"image_id", "is_tma"} & set(read_rows(CODE, path, EXPECTED)[0][1]):
        return _ubc_ocean(path)
    return _camelyon16(path)


# ---- Camelyon16 ------------------------------------------------------------------------------------------------------


def _camelyon16(path: Path) -> TableParts:
    labels: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    faults = []
    rows = read_rows(CODE, path, EXPECTED)
    if not TEST_NAME.fullmatch(_name(rows[0][1])):
        rows = rows[1:]  # a header
    if not any(TEST_NAME.fullmatch(_name(cells)) for _, cells in rows):
        raise UserError(Fault("reference.form", str(path), "no row of a test slide", EXPECTED, MEND))
    for line, cells in rows:
        name, said = _name(cells), cells[1] if len(cells) > 1 else ""
        label = CAMELYON16_CLASSES.get(said.casefold())
        where = f"{path}, line {line}"
        if name not in TEST:
            faults.append(Fault("reference.slide", where, f"{cells[0]!r}", f"{TEST[0]} to {TEST[-1]}", MEND))
        elif label is None:
            faults.append(Fault("reference.class", where, f"{name} has the class {said!r}", "Normal or Tumor", MEND))
        elif labels.get(name, label) != label:
            faults.append(Fault("reference.repeated", where, f"{name} is {label}, and before {labels[name]}"))
        elif name in labels:
            left_out[f"{name}, which stands there again with the same class"] += 1
        else:
            labels[name] = label
    if faults:
        raise UserError(faults)
    if labels.pop(DUPLICATE, None):
        left_out[f"{DUPLICATE}, which Camelyon16's README calls a duplicate"] += 1
    _note_test_slides(path, labels)
    known = {name: CAMELYON16_CLASSES[name.partition("_")[0]] for name in TRAINING} | labels
    return TableParts([TableRow(name, name, label) for name, label in known.items()], left_out)


def _name(cells: list[str]) -> str:
    """test_001.tif -> test_001"""
    return slide_name(cells[0]).casefold()


def _note_test_slides(path: Path, labels: dict[str, str]) -> None:
    print(f"{path}: {len(labels)} test slides of Camelyon16, beside {len(TRAINING)} training slides by their names")
    print("note: Camelyon16 names no patients, so each slide is a case of its own; normal_086 is tumor_111")
    if missing := [name for name in TEST if name not in labels and name != DUPLICATE]:
        print(f"note: without a row, so not in the table: {listed(missing, quote=False)}")
    if PARTLY_ANNOTATED in labels:
        print(f"note: {PARTLY_ANNOTATED} is not annotated exhaustively; its class stands")


# ---- UBC-OCEAN -------------------------------------------------------------------------------------------------------


def _ubc_ocean(path: Path) -> TableParts:
    table = read_csv(CODE, path)
    if missing := [name for name in UBC_COLUMNS if name not in table]:
        found = f"no column {listed(missing, quote=False)}; found [{listed(table)}]"
        raise UserError(Fault("reference.form", str(path), found, ", ".join(UBC_COLUMNS), MEND))
    check_names(table["image_id"], str(path), "image ids")
    faults = []
    rows: dict[str, TableRow] = {}
    left_out: Counter[str] = Counter()
    for name, label, said in table[list(UBC_COLUMNS)].itertuples(index=False):
        slide_id, is_tma = slide_name(name), IS_TMA.get(said.casefold())
        if is_tma is None:
            faults.append(Fault("reference.tma", f"{path}, {name}", f"is_tma is {said!r}", "True or False", MEND))
        elif label not in UBC_CLASSES:
            expected = ", ".join(UBC_CLASSES)
            faults.append(Fault("reference.class", f"{path}, {name}", f"the label {label!r}", expected, MEND))
        elif slide_id in rows:
            faults.append(Fault("reference.repeated", f"{path}, {name}", "stands there more than once"))
        elif is_tma:
            left_out[f"tissue microarrays (is_tma), {label}"] += 1
        else:
            rows[slide_id] = TableRow(slide_id, slide_id, label, UBC_MAGNIFICATION)
    if not rows and not faults:
        faults.append(Fault("reference.form", str(path), "no whole slides (is_tma False)", EXPECTED, MEND))
    if faults:
        raise UserError(faults)
    print(f"{path}: {len(rows)} whole slides of UBC-OCEAN, {left_out.total()} tissue microarrays left out")
    print("note: UBC-OCEAN names no patients, so each slide is a case of its own")
    return TableParts(list(rows.values()), left_out)
