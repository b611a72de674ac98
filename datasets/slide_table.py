"""Tables of slides: classes from folders, patients from the slides' names, magnifications from the slides."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.slides import SUFFIXES, find_slides, level0_magnification
from utils.errors import Faults, UserError
from utils.files import files_below

TCGA_PATIENT = re.compile(r"TCGA-\w{2}-\w{4}")
FEATURES = ".h5"


@dataclass(frozen=True)
class Row:
    """A slide of a table. level0_mag: magnification of its level 0, None where it is unknown."""

    case_id: str
    slide_id: str
    label: str
    level0_mag: float | None = None


def find_classes(folder: Path) -> tuple[dict[str, dict[str, Path]], list[Path]]:
    """{class: {slide_id: file}} by the names of the folders in ``folder``, and the files that stand in none of them.

    A class folder's files are its feature files (.h5), or else its slides, in it or below it. Raises UserError for
    fewer than two class folders, a class folder without files, and a slide that is there twice.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one that holds a folder of slides for each class")
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    if len(classes) < 2:
        raise UserError(f"{folder}: found {len(classes)} folders in it, expected one for each class, at least two")
    faults = Faults()
    found = {entry.name: faults.maybe(_files_of, entry) or {} for entry in classes}
    places: dict[str, Path] = {}
    for files in found.values():
        for slide_id, file in files.items():
            if places.setdefault(slide_id, file) != file:
                faults.add(f"{file}: a slide of this name is in another class too: {places[slide_id]}")
    faults.raise_any()
    loose = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in (*SUFFIXES, FEATURES)]
    return found, loose


def _files_of(folder: Path) -> dict[str, Path]:
    files = files_below(folder)
    features = [file for file in files if file.suffix.lower() == FEATURES]
    slides = [file for file in files if file.suffix.lower() in SUFFIXES]
    if features and slides:
        raise UserError(
            f"{folder}: found {len(features)} feature files ({features[0].name}) and {len(slides)} slides, expected "
            "one kind; move the other away"
        )
    if not features:
        return find_slides(folder)
    found: dict[str, Path] = {}
    faults = Faults()
    for file in features:
        if found.setdefault(file.stem, file) != file:
            faults.add(f"{file}: a feature file of this name is there already: {found[file.stem]}")
    faults.raise_any()
    return found


def patients(slide_ids: Iterable[str], pattern: str | None = None) -> dict[str, str]:
    """The patient of each slide: the first 12 characters of its TCGA barcode, else the group of ``pattern`` in its
    name, else, without a pattern, the slide itself. Raises UserError for names that the pattern finds nothing in."""
    found = {}
    faults = Faults()
    for slide_id in slide_ids:
        if barcode := TCGA_PATIENT.match(slide_id):
            found[slide_id] = barcode[0]
        elif pattern is None:
            found[slide_id] = slide_id
        elif (matched := re.search(pattern, slide_id)) and matched[1]:
            found[slide_id] = matched[1]
        else:
            faults.add(f"{slide_id}: --case-pattern {pattern!r} finds no patient in this name")
    faults.raise_any()
    return found


def magnifications(files: Mapping[str, Path]) -> dict[str, float | None]:
    """Magnification of each slide's level 0, None where its file does not tell. Raises UserError for all files that are
    not readable as slides."""
    faults = Faults()
    found = {slide_id: faults.maybe(level0_magnification, file) for slide_id, file in files.items()}
    faults.raise_any()
    return found


def table_text(rows: Iterable[Row]) -> str:
    """The CSV of some slides, sorted by class and slide."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case_id", "slide_id", "label", "level0_mag"])
    for row in sorted(rows, key=lambda row: (row.label, row.slide_id)):
        level0 = "" if row.level0_mag is None else f"{row.level0_mag:g}"
        writer.writerow([row.case_id, row.slide_id, row.label, level0])
    return text.getvalue()
