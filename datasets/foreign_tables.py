"""Tables of slides that others made, as the rows of a task's table: what makes no slide is left out and counted."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.barcodes import slide_type_of
from datasets.class_folders import patients
from datasets.foreign_columns import KEPT, GivenColumns, Row, is_missing, joined, rows_of, slide_of
from datasets.make_table import TableParts, TableRow
from datasets.numbers import positive_number
from datasets.slides import magnification_of_pixels
from utils.errors import Fault, Faults, UserError
from utils.names import check_names
from utils.tables import read_foreign
from utils.words import listed, quoted

CODE = "table.unreadable"


@dataclass(frozen=True)
class ForeignOptions:
    """How tables are read.

    columns: those that the user names. separator: of the cells, None where it is to be found. labels: FOUND or
    FOUND=CLASS, the labels that count, and the classes they are; None for all. slide_types: of TCGA slides, those that
    count; None for all. case_pattern: finds the patient in the name of a slide without one.
    """

    columns: GivenColumns = field(default_factory=GivenColumns)
    separator: str | None = None
    labels: Sequence[str] | None = None
    slide_types: Collection[str] | None = None
    case_pattern: str | None = None


def rows_from_tables(paths: Sequence[Path], options: ForeignOptions) -> TableParts:
    """The slides of a table, or of two tables that are joined. Prints what was found in them.

    Raises UserError where a file is no table, a column is not to be found, a slide has two labels or two patients, a
    magnification is no number, and where fewer than two classes are left.
    """
    faults = Faults()
    read = [faults.attempt(read_foreign, CODE, path, options.separator) for path in paths]
    faults.raise_any()
    tables = rows_of([table.value for table in read], options.columns)
    where, rows = next(iter(tables.items()))
    left_out: Counter[str] = Counter()
    if len(tables) > 1:
        rows, left_out = joined(tables)
        where = " and ".join(tables)
    classes = _classes(where, rows, options.labels)
    slides = _each_once(where, _chosen(where, rows, classes, options.slide_types, left_out), left_out)
    if len({row["label"] for row in slides.values()}) < 2:
        reasons = "".join(f"\n  left out: {number} of {reason}" for reason, number in left_out.most_common())
        found = f"the labels are [{listed(sorted({row['label'] for row in slides.values()}))}]{reasons}"
        raise UserError(Fault("table.classes", where, found, "slides of at least two classes"))
    check_names(slides, where, "slide ids")
    return TableParts(_table_rows(where, slides, options.case_pattern), left_out)


def _classes(where: str, rows: Sequence[Row], wanted: Sequence[str] | None) -> dict[str, str]:
    """{label as it is said: its class}. Labels that differ in case or blanks alone are one class, by the spelling that
    most rows have; a note tells them. Raises UserError where a wanted label is none of the table's."""
    spelt: dict[str, Counter[str]] = {}
    for row in rows:
        if not is_missing(row.get("label", "")):
            spelt.setdefault(_folded(row["label"]), Counter())[row["label"]] += 1
    names = {folded: min(said, key=lambda label: (-said[label], label)) for folded, said in spelt.items()}
    for folded, said in spelt.items():
        if len(said) > 1:
            told = ", ".join(f"{label!r} in {number} rows" for label, number in sorted(said.items()))
            print(f"note: {where}: labels that differ in case or blanks alone are one class, {names[folded]!r}: {told}")
    if wanted is not None:
        pairs = [text.rpartition("=") for text in wanted]
        asked = {_folded(found or name): name.strip() for found, _, name in pairs}
        if unknown := [folded for folded in asked if folded not in spelt]:
            found = f"no slide has the label {listed(unknown)}"
            raise UserError(Fault("option.value", "--labels", found, f"some of {listed(sorted(names.values()), 20)}"))
        names = asked
    return {label: names[folded] for folded, said in spelt.items() if folded in names for label in said}


def _folded(label: str) -> str:
    return " ".join(label.split()).casefold()


def _chosen(
    where: str,
    rows: Sequence[Row],
    classes: Mapping[str, str],
    slide_types: Collection[str] | None,
    left_out: Counter[str],
) -> list[Row]:
    """The rows that are slides with a class, of one of the types, with their slides and classes as they are written;
    the others are counted in ``left_out`` by reason."""
    kept = []
    unlabelled: Counter[str] = Counter()
    for row in rows:
        slide_id, said = slide_of(row.get("slide", "")), row.get("label", "")
        kind = slide_type_of(slide_id)
        if not slide_id:
            left_out[f"{where}, in rows that name no slide"] += 1
        elif is_missing(said):
            unlabelled[quoted(said) if said else "blank"] += 1
        elif said not in classes:
            left_out[f"{where}, whose label is {quoted(said)}"] += 1
        elif slide_types is not None and kind not in slide_types:
            left_out[f"{where}, of {f'the type {kind}' if kind else 'no type that their names tell'}"] += 1
        else:
            kept.append({**row, "slide": slide_id, "label": classes[said]})
    if unlabelled:
        told = ", ".join(f"{said} in {number}" for said, number in unlabelled.most_common())
        left_out[f"{where}, without a label ({told})"] = unlabelled.total()
    return kept


def _each_once(where: str, rows: Sequence[Row], left_out: Counter[str]) -> dict[str, Row]:
    """{slide: its row}; rows that say the same of a slide again are counted in ``left_out``. Raises UserError for each
    slide with another class or patient in another row."""
    found: dict[str, Row] = {}
    faults = Faults()
    for row in rows:
        first = found.setdefault(row["slide"], row)
        if first is row:
            continue
        left_out[f"{where}, in rows that name a slide again"] += 1
        for what, name in (("labels", "label"), ("patients", "case")):
            if first.get(name) != row.get(name):
                told = f"{row['slide']} has the {what} {quoted(first.get(name))} and {quoted(row.get(name))}"
                faults.add(Fault("table.repeated_slide", where, told, "one row per slide"))
    faults.raise_any()
    return found


def _table_rows(where: str, slides: Mapping[str, Row], case_pattern: str | None) -> list[TableRow]:
    nameless = [slide_id for slide_id, row in slides.items() if is_missing(row.get("case", ""))]
    by_name = patients(nameless, case_pattern)
    if alone := sum(by_name[slide_id] == slide_id for slide_id in nameless):
        print(
            f"note: {alone} slides have no patient in the table, so each of them is a patient of its own "
            "(--case-column and --case-pattern tell the patients)"
        )
    faults = Faults()
    levels = {slide_id: faults.attempt(_level0, where, slide_id, row) for slide_id, row in slides.items()}
    faults.raise_any()
    return [
        TableRow(
            by_name.get(slide_id) or row["case"],
            slide_id,
            row["label"],
            levels[slide_id].value,
            {name: row[name] for name in KEPT if not is_missing(row.get(name, ""))},
        )
        for slide_id, row in slides.items()
    ]


def _level0(where: str, slide_id: str, row: Row) -> float | None:
    """Magnification of a slide's level 0: as the table says, else by its microns per pixel; None where neither tells.
    Raises UserError where one of them is no number above 0."""
    for name in ("magnification", "microns"):
        text = row.get(name, "")
        if is_missing(text):
            continue
        number = positive_number(text)
        if number is None:
            raise UserError(Fault("table.magnification", where, f"{name} of {slide_id} is {text!r}", "20 or 40, say"))
        return number if name == "magnification" else magnification_of_pixels(number)
    return None
