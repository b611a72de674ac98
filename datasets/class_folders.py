"""Slides in folders that are called as their classes, and the patients that the names of slides tell."""

import re
from collections.abc import Iterable
from pathlib import Path

from datasets.barcodes import is_whole_patient, patient_of
from datasets.feature_layouts import TridentLayout, holds_coordinates
from datasets.slide_names import FEATURES, SUFFIXES, slide_name
from datasets.slide_search import by_name, find_slides
from utils.commands import options_text
from utils.errors import Fault, Faults, UserError
from utils.files import files_below
from utils.words import listed

NO_CLASSES = {
    "UUIDs, one for each file, as gdc-client names them": re.compile(
        r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
    ),
    "the barcodes of patients": re.compile(r"TCGA-\w{2}-\w{4}(?:-.*)?"),
    "magnifications, as TRIDENT lays features out": TridentLayout.job_folder,
}
"""Names of folders that are no classes, by what they are."""
COPIES = re.compile(r"(?:.*_)?\d+x(?:_.*)?|features_.*")
"""Folders of one job, each of which has a file of every slide: plip_20x, 5x_256px_0px_overlap, features_plip."""


def find_classes(folder: Path) -> tuple[dict[str, dict[str, Path]], list[Path]]:
    """{class: {slide_id: file}} by the names of the folders in ``folder``, and the files that stand in none of them.

    A class folder's files are its feature files (.h5), or else its slides, in it or below it. Raises UserError for
    folders whose names are no classes, fewer than two class folders, a class folder without files, and a slide that is
    there twice.
    """
    if not folder.is_dir():
        expected = "one that holds a folder of slides for each class"
        raise UserError(Fault("folder.missing", str(folder), "no such folder", expected))
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    _refuse_other_folders(folder, [entry.name for entry in classes])
    if len(classes) < 2:
        found, expected = f"found {len(classes)} folders in it", "one for each class, at least two"
        raise UserError(Fault("slide.few_classes", str(folder), found, expected))
    faults = Faults()
    by_class = {entry.name: faults.attempt(_files_of, entry) for entry in classes}
    places: dict[str, Path] = {}
    for files in by_class.values():
        for slide_id, file in files.value.items() if files else ():
            if places.setdefault(slide_id, file) != file:
                told = f"a slide of this name is in another class too: {places[slide_id]}"
                faults.add(Fault("slide.repeated", str(file), told))
    faults.raise_any()
    loose = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in (*SUFFIXES, FEATURES)]
    return {name: files.value for name, files in by_class.items()}, loose


def _refuse_other_folders(folder: Path, names: list[str]) -> None:
    for what, form in NO_CLASSES.items():
        if found := [name for name in names if form.fullmatch(name)]:
            told = f"{len(found)} of {len(names)} folders in it are called by {what} ({listed(found)})"
            mend = (
                "take the classes from the GDC or from a table, and the magnifications from here: --gdc or --table "
                f"FILE with {options_text({'wsi-dir': folder})}"
            )
            raise UserError(Fault("slide.no_classes", str(folder), told, "a folder of slides for each class", mend))


def _files_of(folder: Path) -> dict[str, Path]:
    files = files_below(folder)
    features = [file for file in files if file.suffix.lower() == FEATURES and not holds_coordinates(file)]
    slides = [file for file in files if file.suffix.lower() in SUFFIXES]
    if features and slides:
        found = f"found {len(features)} feature files ({features[0].name}) and {len(slides)} slides"
        raise UserError(Fault("slide.two_kinds", str(folder), found, "one kind", "move the other away"))
    return by_name(_one_of_each(folder, features)) if features else find_slides(folder)


def _one_of_each(folder: Path, features: list[Path]) -> list[Path]:
    """The feature files without the copies of a slide that a job has at another magnification or of another encoder."""
    copies: dict[str, list[Path]] = {}
    for file in features:
        copies.setdefault(slide_name(file.name), []).append(file)
    kept = []
    for files in copies.values():
        places = {file.parent for file in files if any(map(COPIES.fullmatch, file.relative_to(folder).parts[:-1]))}
        kept += files[:1] if len(places) == len(files) else files
    return kept


def patients(slide_ids: Iterable[str], pattern: str | None = None) -> dict[str, str]:
    """The patient of each slide: as its TCGA barcode says, else the group of ``pattern`` in its name, else, without a
    pattern, the slide itself. Raises UserError for names that the pattern finds nothing in."""
    found = {}
    faults = Faults()
    for slide_id in slide_ids:
        if is_whole_patient(slide_id):
            found[slide_id] = patient_of(slide_id)
        elif pattern is None:
            found[slide_id] = slide_id
        elif (matched := re.search(pattern, slide_id)) and matched[1]:
            found[slide_id] = matched[1]
        else:
            told = f"--case-pattern {pattern!r} finds no patient in this name"
            faults.add(Fault("slide.no_patient", slide_id, told))
    faults.raise_any()
    return found
