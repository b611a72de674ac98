"""Which columns of a table that another tool wrote tell the slide, the patient and the class; two tables joined.

Read are, by the names of their columns, tables of Patho-Bench (case_id, slide_id, a column called as the task, fold_0,
...), STAMP (a table of patients and one of their slides: PATIENT, FILENAME), slideflow and PathBench (slide, patient,
category), TRIDENT (wsi, mpp), CLAM (case_id, slide_id, label), the GDC's sample sheets (File Name, Case ID) and tables
with OncoTreeCode.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from datasets.barcodes import is_whole_patient, patient_of
from datasets.slide_names import composed, slide_name
from utils.errors import Fault, UserError
from utils.tables import ForeignTable
from utils.words import listed

Row = dict[str, str]
"""The cells of a row that count, by ``FIELDS``."""

KEPT = ("site", "force_magnification")
"""Columns that the project's tables may have besides, and that a conversion keeps."""
FIELDS: Mapping[str, Sequence[str]] = {
    "slide": (
        "slideid", "slide", "slidename", "filename", "file", "wsi", "wsiid", "wsiname", "imageid", "image", "imagename",
        "slidepath", "wsipath", "filepath", "path", "slidefile",
    ),
    "case": (
        "caseid", "case", "patient", "patientid", "patientbarcode", "bcrpatientbarcode", "casesubmitterid",
        "casessubmitterid", "submitterid", "subject", "subjectid", "participant", "participantid",
    ),
    "label": ("label", "labels", "class", "category", "oncotreecode", "subtype", "diagnosis", "target"),
    "magnification": ("level0mag", "level0magnification", "magnification", "objectivepower"),
    "microns": ("mpp", "mppx", "micronsperpixel"),
    **{name: (name.replace("_", ""),) for name in KEPT},
}  # fmt: skip
"""Names of columns, without case and signs, in the order in which they count."""
NO_LABEL = re.compile(r"(?:unnamed|index|fold|split|set|partition|dataset)?\d*")
"""Names of columns, without case and signs, that are not taken for the labels unless --label-column says so."""
MISSING = {"", "na", "nan", "n/a", "#n/a", "<na>", "none", "null", "nil", "--", "-", ".", "?"}
"""What stands where a cell has no value, in lower case."""
MOST_CLASSES = 20
"""Of a column that is taken for the labels because no other one is left."""


@dataclass(frozen=True)
class GivenColumns:
    """The columns that the user names; None where the known names are sought."""

    slide: str | None = None
    label: str | None = None
    case: str | None = None


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value."""
    return cell.casefold() in MISSING


def slide_of(cell: str) -> str:
    """The name of a slide, of a file or a path, which may be one of Windows: sub\\S1.svs -> S1."""
    return "" if is_missing(cell) else slide_name(re.split(r"[/\\]", cell)[-1])


def rows_of(tables: Sequence[ForeignTable], given: GivenColumns) -> dict[str, list[Row]]:
    """{name of the table: its rows}, the table of slides first, and a second table for ``joined``; prints which columns
    are taken. Raises UserError where a column is not to be found."""
    found = [{field: _column(table, field, given) for field in FIELDS} for table in tables]
    for field in ("slide", "case", "label"):
        if (field == "slide" or getattr(given, field)) and not any(columns[field] for columns in found):
            raise _no_column(tables, field, given)
    if len(tables) > 1:  # each may call the patients otherwise
        for table, columns in zip(tables, found, strict=True):
            columns["case"] = columns["case"] or _column(table, "case", GivenColumns())
    if not found[0]["slide"]:
        tables, found = tables[::-1], found[::-1]
    if not any(columns["label"] for columns in found):
        place, name = _the_one_left(tables, found, given)
        found[place]["label"] = name
    for other in found[1:]:
        if found[0]["label"]:
            other["label"] = None
        has_cases = found[0]["case"] or any(
            is_whole_patient(slide_of(cell)) for cell in tables[0].cells[found[0]["slide"]]
        )
        if not other["slide"] and not (other["case"] and has_cases):
            raise _no_column(tables, "case", given)
    for table, columns in zip(tables, found, strict=True):
        told = [f"{field} from {name!r}" for field, name in columns.items() if name]
        form = f" ({table.form})" if table.form else ""
        print(f"{table.path}{form}: {len(table.cells)} rows; {', '.join(told)}")
    return {str(table.path): _read(table, columns) for table, columns in zip(tables, found, strict=True)}


def _read(table: ForeignTable, columns: Mapping[str, str | None]) -> list[Row]:
    named = {field: name for field, name in columns.items() if name}
    rows = table.cells[list(named.values())].to_numpy().tolist()
    return [dict(zip(named, map(composed, cells), strict=True)) for cells in rows]


def _plain(name: object) -> str:
    return re.sub(r"[\W_]+", "", composed(str(name))).casefold()


def _column(table: ForeignTable, field: str, given: GivenColumns) -> str | None:
    """The column of a field: the one that the user names, or the known name that counts first; None where the table
    has none."""
    names = list(map(str, table.cells))
    said = getattr(given, field, None)
    if said is not None:
        same = [name for name in names if composed(name) == composed(said)]
        return next(iter(same or [name for name in names if _plain(name) == _plain(said)]), None)
    known = [name for one in FIELDS[field] for name in names if _plain(name) == one]
    return next(iter(known), None)


def _the_one_left(
    tables: Sequence[ForeignTable], found: Sequence[Mapping[str, str | None]], given: GivenColumns
) -> tuple[int, str]:
    """The place of the table, and its column, that can be the labels alone: the only one that is not another field's
    and has a few different values. Raises UserError where there are none or several."""
    left = [
        (place, str(name), values)
        for place, (table, columns) in enumerate(zip(tables, found, strict=True))
        for name in table.cells
        if name not in columns.values() and not NO_LABEL.fullmatch(_plain(name))
        if 2 <= len(values := _classes(table.cells[name])) <= min(MOST_CLASSES, max(2, len(table.cells) // 2))
    ]
    if len(left) == 1:
        return left[0][:2]
    raise _no_column(tables, "label", given, [f"{name!r} ({listed(values)})" for _, name, values in left])


def _classes(cells: Iterable[str]) -> list[str]:
    return sorted({cell for cell in cells if not is_missing(cell)})


def _no_column(
    tables: Sequence[ForeignTable], field: str, given: GivenColumns, candidates: Sequence[str] = ()
) -> UserError:
    what = {"slide": "of slides", "label": "of labels", "case": "of patients in both tables"}[field]
    said = getattr(given, field)
    columns = "; ".join(f"{table.path.name}: {listed(table.cells, 20)}" for table in tables)
    found = f"no column {said!r}" if said else f"no column {what} that is known by its name"
    several = f"; it may be {' or '.join(candidates)}" if candidates else ""
    where = ", ".join(str(table.path) for table in tables)
    mend = f"name it: --{field}-column NAME" + (
        "" if len(tables) > 1 or field != "label" else ", or give a second table"
    )
    return UserError(Fault("table.columns", where, f"{found}; found {columns}{several}", f"a column {what}", mend))


def joined(tables: Mapping[str, Sequence[Row]]) -> tuple[list[Row], Counter[str]]:
    """The slides of the first table with what the second says of them, by the slide where both have it, else by the
    patient; and how many are left out, by reason: of those that the second lacks, or gives several labels.

    Raises UserError where the second has none of them.
    """
    (name, rows), (other, others) = tables.items()
    what, key_of = ("slides", _slide_key) if others and "slide" in others[0] else ("patients", _case_key)
    by_key: dict[str, list[Row]] = {}
    for row in others:
        by_key.setdefault(key_of(row), []).append(row)
    kept = []
    left_out: Counter[str] = Counter()
    for row in rows:
        partners = by_key.get(key_of(row), [])
        labels = _classes(partner.get("label", "") for partner in partners)
        if not partners:
            left_out[f"{name}, which {other} lacks"] += 1
        elif len(labels) > 1:
            left_out[f"{name}, to which {other} gives several labels ({listed(labels)})"] += 1
        else:
            of_others = {**partners[0], **({"label": labels[0]} if labels else {})}
            kept.append({**of_others, **{field: cell for field, cell in row.items() if not is_missing(cell)}})
    if rows and not any(key_of(row) in by_key for row in rows):
        found = (
            f"none of its {what} ({listed(dict.fromkeys(map(key_of, rows)), 3)}) is in {other} ({listed(by_key, 3)})"
        )
        raise UserError(Fault("table.unjoined", name, found, f"the same {what} in both tables"))
    return kept, left_out


def _slide_key(row: Row) -> str:
    return slide_of(row["slide"])


def _case_key(row: Row) -> str:
    """The patient that a barcode names, in the column of patients or else of slides; of others the column's cell."""
    case = row.get("case") or slide_of(row.get("slide", ""))
    return patient_of(case) if is_whole_patient(case) else row.get("case", "")
