"""The authors' 4- and 8-shot folds and their tables with real patients, from an older history of their repository.

The commit is no ancestor of the released one, and no checksums of its files are known. So its files are checked by
form: columns, patients, classes, training slides of each class, and folds whose parts share no slide. The names of its
tables, dataset_csv_original/<task>.csv, are taken to be those of the released ones.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from datasets.barcodes import patient_of
from datasets.released import RELEASED
from datasets.slide_names import slide_name
from datasets.splits import MANIFEST, Split, build_split, read_split_ids
from datasets.task import Slide
from utils.download import download
from utils.errors import Fault, Faults, UserError
from utils.tables import read_csv
from utils.whole_files import write_bytes
from utils.words import listed

COMMIT = "e458a93ab9c6cbc6c824c32afcfd7c759620ceb5"
BASE_URL = f"{RELEASED['repository']}/raw/{COMMIT}"
CLASSES = {
    "tcga_brca": ["IDC", "ILC"],
    "tcga_nsclc": ["LUAD", "LUSC"],
    "tcga_rcc": ["CCRCC", "CHRCC", "PRCC"],
}
SHOTS, FOLDS = (4, 8), range(5)
COLUMNS = ("slide_id", "case_id", "project_id", "Diagnosis", "OncoTreeCode", "level0_mag")
MEND = "with internet access run the command again; --base-url names another place of these files"


def table_name(task: str) -> str:
    return f"dataset_csv_original/{task}.csv"


def split_name(task: str, shots: int, fold: int) -> str:
    return f"splits/{task}/{task}_{shots}/splits_{fold}.csv"


def file_names() -> list[str]:
    """The three tables, then 2 x 5 folds of each task."""
    splits = [split_name(task, shots, fold) for task in CLASSES for shots in SHOTS for fold in FOLDS]
    return [*map(table_name, CLASSES), *splits]


def fetch_older_history(output_dir: Path, base_url: str | None = None, overwrite: bool = False) -> None:
    """Fetch all files, check them by form, and write them to their places below ``output_dir``; print what was checked.

    Raises UserError, before anything is written, where the server has no such file, where a file is not of the form,
    and where another file lies in its place and ``overwrite`` is not set.
    """
    with TemporaryDirectory() as folder:
        fetched = Path(folder)
        for name in file_names():
            _fetch(f"{(base_url or BASE_URL).rstrip('/')}/{name}", fetched / name)
        told = check_form(fetched)
        contents = {output_dir / name: (fetched / name).read_bytes() for name in file_names()}
    there = {path for path, content in contents.items() if path.is_file() and path.read_bytes() == content}
    others = [path for path in contents if path.exists() and path not in there]
    own = {path.parent / MANIFEST for path in contents if (path.parent / MANIFEST).exists()}  # of create_splits.py
    if (others or own) and not overwrite:
        mend = "--overwrite replaces it, --output-dir is another place"
        found = "is there, and not of the older history"
        raise UserError([Fault("released.other_file", str(path), found, mend=mend) for path in [*others, *sorted(own)]])
    for path, content in contents.items():
        if path not in there:
            write_bytes(path, content)
    for path in own:
        path.unlink()
    print(f"older history {COMMIT[:7]}: {len(contents) - len(there)} files fetched, {len(there)} there already")
    print("no checksums of these files are known; they were checked by form alone:")
    for line in told:
        print(f"  {line}")


def _fetch(url: str, path: Path) -> None:
    try:
        download(url, path, None, MEND)
    except UserError as error:
        response = getattr(error.__cause__, "response", None)
        if response is None or response.status_code != requests.codes.not_found:
            raise
        found = f"HTTP 404: the server does not serve the commit {COMMIT}, or the commit has no such file"
        mend = (
            "GitHub drops commits that no branch holds; the authors may still have it. --base-url names a copy of its "
            "files; create_splits.py draws 4- and 8-shot folds of your own"
        )
        raise UserError(Fault("released.commit_missing", url, found, mend=mend)) from error


# ---- the form --------------------------------------------------------------------------------------------------------


def check_form(folder: Path) -> list[str]:
    """What each table and each folder of folds holds, in words. Raises UserError with everything that is not of the
    form."""
    faults = Faults()
    told = []
    for task, classes in CLASSES.items():
        slides = faults.attempt(_read_table, folder / table_name(task), classes)
        if not slides:
            continue
        counts = Counter(slide.label for slide in slides.value.values())
        in_classes = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(classes))
        told.append(f"{table_name(task)}: {in_classes}, {counts[-1]} of other codes")
        for shots in SHOTS:
            paths = [folder / split_name(task, shots, fold) for fold in FOLDS]
            found = [faults.attempt(_read_fold, path, fold, slides.value, classes, shots)
                     for fold, path in zip(FOLDS, paths, strict=True)]  # fmt: skip
            if all(found):
                folds = [split.value for split in found]
                if twice := _equal_folds(folds):
                    faults.add(Fault("released.equal_folds", str(paths[0].parent), f"folds {twice} are the same"))
                sizes = "; ".join(" + ".join(str(len(part)) for _, part in split.parts()) for split in folds)
                told.append(f"{paths[0].parent.relative_to(folder)}: train + val + test of each fold: {sizes}")
    faults.raise_any()
    return told


def _read_table(path: Path, classes: list[str]) -> dict[str, Slide]:
    """The slides, with the places of their OncoTree codes in ``classes`` as labels, -1 for other codes."""
    table = read_csv("table.unreadable", path)
    if missing := [name for name in COLUMNS if name not in table]:
        found = f"no column {listed(missing)}; found [{listed(table)}]"
        raise UserError(Fault("table.columns", str(path), found, ", ".join(COLUMNS)))
    numbers: Mapping[str, int] = {name: label for label, name in enumerate(classes)}
    names = table["slide_id"].map(slide_name)
    rows = zip(names, table["case_id"], table["OncoTreeCode"], strict=True)
    slides = {name: Slide(name, case, numbers.get(code, -1)) for name, case, code in rows}
    faults = []
    if len(slides) < len(table):
        twice = sorted(set(names[names.duplicated()]))
        faults.append(Fault("table.repeated_slide", str(path), f"slides stand there more than once ({listed(twice)})"))
    if foreign := [slide.slide_id for slide in slides.values() if slide.case_id != patient_of(slide.slide_id)]:
        found = f"case_id is not the patient of {len(foreign)} slides ({listed(foreign)})"
        faults.append(Fault("table.case", str(path), found, "the first 12 characters of the slide"))
    if lacking := [name for label, name in enumerate(classes) if all(s.label != label for s in slides.values())]:
        faults.append(Fault("table.classes", str(path), f"no slide of {listed(lacking)}", f"OncoTreeCode {classes}"))
    if faults:
        raise UserError(faults)
    return slides


def _read_fold(path: Path, fold: int, slides: Mapping[str, Slide], classes: list[str], shots: int) -> Split:
    """Raises UserError as ``build_split``, and where another number of training slides than ``shots`` is of a class."""
    split = build_split(path, fold, read_split_ids(path), slides, classes)
    if sorted(split.shots()) != [shots] * len(classes):
        found = f"{' + '.join(map(str, split.shots()))} training slides by class"
        raise UserError(Fault("split.shots", str(path), found, f"{shots} of each of {', '.join(classes)}"))
    return split


def _equal_folds(folds: list[Split]) -> str:
    """The numbers of the first two folds that hold the same; empty where there are none."""
    texts: dict[str, int] = {}
    for split in folds:
        if (first := texts.setdefault(split.to_csv(), split.fold)) != split.fold:
            return f"{first} and {split.fold}"
    return ""
