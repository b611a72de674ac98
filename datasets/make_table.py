"""Tables of slides, made: of the Genomic Data Commons, or of a folder that holds a folder of slides for each class."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from datasets import gdc
from datasets.barcodes import SLIDE_TYPES, is_normal, is_whole_patient, patient_of, slide_type_of
from datasets.class_folders import find_classes, patients
from datasets.feature_layouts import slide_id_of
from datasets.numbers import attribute_number
from datasets.slide_names import FEATURES, SUFFIXES
from datasets.slide_search import find_slides
from datasets.slides import doubtful, read_scale_tags, unusual
from utils.errors import Fault, Faults, UserError
from utils.files import files_below, write_text
from utils.h5 import read_attributes
from utils.outputs import check_outputs
from utils.redaction import redacted
from utils.spreadsheets import csv_text
from utils.words import listed


@dataclass(frozen=True)
class TableRow:
    """A slide of a table. level0_mag: magnification of its level 0, None where it is unknown. others: further columns
    that the project reads, by name."""

    case_id: str
    slide_id: str
    label: str
    level0_mag: float | None = None
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TableParts:
    """The rows of a table, the number of slides left out by reason, and, of the GDC, what gdc-client downloads."""

    rows: list[TableRow]
    left_out: Counter[str]
    manifest: str = ""


def make_table(
    parts: TableParts, path: Path, wsi_dir: Path | None = None, manifest: Path | None = None, overwrite: bool = False
) -> None:
    """Write the table of slides to ``path``, and print what is in it.

    wsi_dir: a folder with slides, read for their magnifications. manifest: where to write what gdc-client downloads.
    Raises UserError, before anything is written, where another file is there and ``overwrite`` is not set.
    """
    rows = _with_magnifications(parts.rows, wsi_dir) if wsi_dir else parts.rows
    contents = {path: table_text(rows)} | ({manifest: parts.manifest} if manifest else {})
    print(summary_text(rows, parts.left_out))
    write_new(contents, overwrite)


# ---- the Genomic Data Commons ----------------------------------------------------------------------------------------


def rows_from_gdc(task: str, labels: Sequence[str] | None, slide_types: Collection[str], url: str) -> TableParts:
    """The slides that the GDC lists, without magnification.

    labels: PROJECT=CLASS or PROJECT:DIAGNOSIS=CLASS (default: those of the task). slide_types: those that count, of
    ``SLIDE_TYPES``. url: of the API. Raises UserError where the classes are not known, or a class has no slide.
    """
    texts = labels or gdc.PRESETS.get(task)
    if not texts:
        found = f"no classes are known for it, only for {', '.join(gdc.PRESETS)}"
        raise UserError(
            Fault("option.value", f"--task {task}", found, mend="give them: --labels TCGA-LUAD=LUAD TCGA-LUSC=LUSC")
        )
    classes = gdc.parse_labels(texts)
    projects = sorted({project for project, _ in classes})
    slides = gdc.list_slides(url, projects, gdc.strategies_of(slide_types))
    kept, rows = [], []
    left_out: Counter[str] = Counter()
    for slide in slides:
        label = gdc.label_of(slide, classes)
        kind = slide_type_of(slide.slide_id)
        if kind not in (None, *slide_types):
            left_out[f"{slide.project}, of the type {kind}"] += 1
        elif label is None:
            left_out[f"{slide.project}, diagnosis: {' + '.join(slide.diagnoses) or 'none given'}"] += 1
        else:
            kept.append(slide)
            rows.append(TableRow(slide.case_id, slide.slide_id, label))
    print(f"{redacted(url)}: {len(slides)} slides of {', '.join(projects)}")
    if missing := sorted(set(classes.values()) - {row.label for row in rows}):
        others = "".join(f"\n  {number} of {reason}" for reason, number in left_out.most_common())
        raise UserError(
            Fault(
                "gdc.missing_class",
                url,
                f"no slides of {', '.join(missing)}",
                f"some of each class of --labels {' '.join(texts)}",
                f"other slides found: {others or 'none'}",
            )
        )
    return TableParts(rows, left_out, gdc.manifest_text(kept))


# ---- folders of slides -----------------------------------------------------------------------------------------------


def rows_from_folder(folder: Path, case_pattern: str | None, read_magnifications: bool) -> TableParts:
    """The slides in the folders of their classes; where they are at hand, with their magnifications.

    case_pattern: finds the patient in the name of a slide that has no TCGA barcode. Raises UserError as
    ``find_classes`` and ``patients``.
    """
    classes, loose = find_classes(folder)
    files = {slide_id: file for of_class in classes.values() for slide_id, file in of_class.items()}
    cases = patients(files, case_pattern)
    features = sum(file.suffix.lower() == FEATURES for file in files.values())
    print(f"{folder}: {len(files) - features} slides, {features} feature files")
    levels = magnifications(files) if read_magnifications else {}
    rows = [
        TableRow(cases[slide_id], slide_id, label, levels.get(slide_id))
        for label, of_class in classes.items()
        for slide_id in of_class
    ]
    return TableParts(rows, Counter({f"{folder}, not in the folder of a class": len(loose)} if loose else {}))


# ---- magnifications --------------------------------------------------------------------------------------------------


def magnifications(files: Mapping[str, Path]) -> dict[str, float | None]:
    """Magnification of each slide's level 0, by its slide or feature file, None where the file does not tell.

    Notes name the slides whose tags contradict each other or tell an unusual width of a pixel. Raises UserError for all
    slides that are not readable.
    """
    faults = Faults()
    told = {slide_id: file.suffix.lower() == FEATURES for slide_id, file in files.items()}
    found = {slide_id: faults.attempt(read_scale_tags, file) for slide_id, file in files.items() if not told[slide_id]}
    faults.raise_any()
    tags = {slide_id: attempt.value for slide_id, attempt in found.items()}
    levels = {slide_id: of_slide.magnification() for slide_id, of_slide in tags.items()}
    for note in [*doubtful(levels), *unusual(tags)]:
        print(f"note: {note}")
    values = {slide_id: level0.value if level0 else None for slide_id, level0 in levels.items()}
    return {
        slide_id: level0_of_features(file) if told[slide_id] else values[slide_id] for slide_id, file in files.items()
    }


def level0_of_features(file: Path) -> float | None:
    """Magnification of level 0 as a feature file says it, of this project or of TRIDENT; None where it does not, or is
    not readable, which is told before its features are used."""
    with suppress(UserError):
        return attribute_number(file, read_attributes(file), "level0_magnification")
    return None


def _with_magnifications(rows: Sequence[TableRow], folder: Path) -> list[TableRow]:
    """The rows with the magnifications of those slides that are in a folder, as slides or as feature files."""
    known = {row.slide_id for row in rows}
    below = files_below(folder)
    features = {slide_id_of(file): file for file in below if file.suffix.lower() == FEATURES}
    has_slides = any(file.suffix.lower() in SUFFIXES for file in below)
    found = {**features, **(find_slides(folder) if has_slides or not features else {})}
    files = {slide_id: file for slide_id, file in found.items() if slide_id in known}
    print(f"{folder}: {len(files)} of the slides")
    levels = magnifications(files)
    return [replace(row, level0_mag=levels.get(row.slide_id) or row.level0_mag) for row in rows]


# ---- the table -------------------------------------------------------------------------------------------------------


def table_text(rows: Iterable[TableRow]) -> str:
    """The CSV of some slides, sorted by class and slide."""
    rows = sorted(rows, key=lambda row: (row.label, row.slide_id))
    more = sorted({name for row in rows for name in row.others})
    levels = ["" if row.level0_mag is None else f"{row.level0_mag:g}" for row in rows]
    table = [
        (row.case_id, row.slide_id, row.label, level0, *(row.others.get(name, "") for name in more))
        for row, level0 in zip(rows, levels, strict=True)
    ]
    return csv_text(pd.DataFrame(table, columns=["case_id", "slide_id", "label", "level0_mag", *more]), index=False)


def summary_text(rows: Sequence[TableRow], left_out: Counter[str]) -> str:
    """Slides, patients and magnifications of each class, types of TCGA slides, and what should be looked at."""
    table = pd.DataFrame([vars(row) for row in rows])
    table["level0_mag"] = [f"{row.level0_mag:g}x" if row.level0_mag is not None else "unknown" for row in rows]
    counts = table.groupby("label").agg(slides=("slide_id", "size"), patients=("case_id", "nunique"))
    levels = pd.crosstab(table["label"], table["level0_mag"])
    lines = [counts.join(levels).to_string()]
    lines += [f"left out: {number} slides of {reason}" for reason, number in left_out.most_common()]
    if types := Counter(kind for row in rows if (kind := slide_type_of(row.slide_id))):
        told = ", ".join(f"{types[kind]} {kind} ({text})" for kind, text in SLIDE_TYPES.items() if types[kind])
        lines.append(f"slide types of TCGA: {told}" + ("; --slide-type DX takes one of them" if len(types) > 1 else ""))
    classes: dict[str, set[str]] = {}
    for row in rows:
        patient = patient_of(row.slide_id) if is_whole_patient(row.slide_id) else row.case_id
        classes.setdefault(patient, set()).add(row.label)
    if two := [f"{patient} ({' and '.join(sorted(names))})" for patient, names in classes.items() if len(names) > 1]:
        lines.append(f"note: {len(two)} patients have slides of several classes: {listed(two, quote=False)}")
    if unknown := int((table["level0_mag"] == "unknown").sum()):
        lines.append(
            f"level0_mag: {unknown} slides without it: not at hand (--wsi-dir names their folder), or no tag tells it "
            "(write it into the table, and give that to extract_features.py with --dataset_csv)"
        )
    if normal := sum(is_normal(row.slide_id) for row in rows):
        lines.append(
            f"note: {normal} slides are normal tissue, which has the class of the patient's tumour here; "
            "create_splits.py --exclude_normals leaves them out"
        )
    return "\n".join(lines)


def check_places(table: Path, manifest: Path | None, folders: Iterable[Path | None]) -> None:
    """Raises UserError where the table or the manifest is no file, is a slide in one of the folders, or where the two
    are one file."""
    if manifest is not None and manifest.resolve() == table.resolve():
        raise UserError(Fault("output.same_file", str(table), "would be the table and the manifest"))
    outputs = [table, *([manifest] if manifest else [])]
    read = [
        file
        for folder in folders
        if folder
        for file in files_below(folder)
        if file.suffix.lower() in (*SUFFIXES, FEATURES)
    ]
    check_outputs(f"--output {table}", outputs, read)


def write_new(contents: Mapping[Path, str], overwrite: bool) -> None:
    """Write files. Raises UserError, before any is written, where another is there and ``overwrite`` is not set."""
    same = {path for path, text in contents.items() if path.is_file() and path.read_bytes() == text.encode()}
    others = [path for path in contents if path.exists() and path not in same]
    if others and not overwrite:
        found = "is there with other contents"
        raise UserError([Fault("table.exists", str(path), found, mend="--overwrite replaces it") for path in others])
    for path, text in contents.items():
        if path in same:
            print(f"unchanged: {path}")
        else:
            write_text(path, text)
            print(f"written: {path}")
