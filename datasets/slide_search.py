"""Slides found in folders: which files are slides, what they are called, and what cannot be a slide, told by name."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from datasets.barcodes import is_barcode
from datasets.dicom_series import is_dicom, slides_of_series
from datasets.foreign_slides import FOREIGN, IMAGE, UNFINISHED
from datasets.slide_names import SUFFIXES, slide_name
from utils.errors import MOST_SHOWN, Fault, UserError
from utils.files import files_below
from utils.names import MOST_BYTES, check_names, name_problem
from utils.words import listed

MOST_NEAR = 3
MOST_COMPARED = 200_000  # pairs of names, some seconds
MADE_OF_IMAGES = (".vms", ".vmu")


@dataclass(frozen=True)
class FoundSlides:
    """files: {slide_id: file}, sorted. faults: {slide_id: what keeps it from being read}, of wanted slides that are not
    there, and of slides that share a name, or whose name no file of theirs could have. notes: on other files."""

    files: dict[str, Path]
    faults: dict[str, Fault] = field(default_factory=dict)
    notes: list[Fault] = field(default_factory=list)


def find_slides(folder: Path, wanted: Collection[str] | None = None) -> dict[str, Path]:
    """{slide_id: file}, as ``search_slides``; the notes are printed. Raises UserError for the faults of single slides
    too."""
    found = search_slides(folder, wanted)
    for note in found.notes:
        print(f"note: {note}")
    if found.faults:
        raise UserError(gathered(found.faults, folder, len(wanted or ())))
    return found.files


def search_slides(folder: Path, wanted: Collection[str] | None = None) -> FoundSlides:
    """All slides in or below a folder, or those ``wanted``. The id is the file's name without its extension
    (``slide_name``), and for a DICOM series one of the names that ``slides_of_series`` gives.

    A wanted TCGA barcode matches a name that has more or fewer fields behind a dot, where only one file has such a
    name. Raises UserError where the folder is missing, and where no slide is there and none is wanted.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        expected = f"a folder with slides ({', '.join(SUFFIXES)})"
        raise UserError(Fault("folder.missing", str(folder), problem, expected))
    below = files_below(folder)
    names, other_dicom = slides_of_series([file for file in below if is_dicom(file)], folder)
    names |= {file: [slide_name(file.name)] for file in below if file.suffix.lower() in SUFFIXES and file not in names
              and not is_dicom(file)}  # fmt: skip
    foreign = _foreign_files(below, {name for found in names.values() for name in found})
    if wanted is None:
        notes = [*_foreign_faults(folder, foreign), *_dicom_notes(folder, other_dicom)]
        if not names:
            expected = f"files such as {', '.join(SUFFIXES)}"
            raise UserError(notes or Fault("slide.missing", str(folder), "no slides in it or below it", expected))
        return _named(_by_id(names), notes)
    holders = _holders(names)
    matched = {slide_id: holders.get(slide_id) or _by_barcode(slide_id, holders) for slide_id in wanted}
    found = _named({slide_id: files for slide_id, files in matched.items() if files})
    lacking = [slide_id for slide_id, files in matched.items() if not files]
    missing = _missing(folder, lacking, foreign, sorted(holders))
    others = [file for file in foreign if slide_name(_ended(file)) not in missing]
    barcodes = [slide_id for slide_id in matched if slide_id not in holders and matched[slide_id]]
    notes = [*_foreign_faults(folder, others), *_barcode_notes(folder, {name: matched[name][0] for name in barcodes})]
    return FoundSlides(found.files, found.faults | missing, notes)


def gathered(faults: Mapping[str, Fault], folder: Path, number: int) -> list[Fault]:
    """The faults of single slides, with all missing slides in one. number: of the slides wanted."""
    missing = {slide_id: fault for slide_id, fault in faults.items() if fault.code == "slide.missing"}
    others = [fault for slide_id, fault in faults.items() if slide_id not in missing]
    if not missing:
        return others
    names = listed(missing, MOST_SHOWN)
    told = f"{len(missing)} of {number} slides of the table are not there ({names})"
    near = [fault.expected for fault in missing.values() if fault.expected]
    return [Fault("slide.missing", str(folder), told, "; ".join(near[:MOST_SHOWN])), *others]


# ---- names -----------------------------------------------------------------------------------------------------------


def by_name(files: Iterable[Path]) -> dict[str, Path]:
    """{name without extension: file}. Raises UserError for names that several files have, and for names that
    ``check_names`` refuses."""
    files = list(files)
    check_names([file.stem for file in files], str(files[0].parent) if files else "", "slides")
    found = _named(_holders({file: [slide_name(file.name)] for file in files}))
    if found.faults:
        raise UserError(list(found.faults.values()))
    return found.files


def _holders(names: Mapping[Path, Sequence[str]]) -> dict[str, list[Path]]:
    """{name: the files that have it}"""
    found: dict[str, list[Path]] = defaultdict(list)
    for file, of_slide in names.items():
        for name in dict.fromkeys(of_slide):
            found[name].append(file)
    return found


def _by_id(names: Mapping[Path, Sequence[str]]) -> dict[str, list[Path]]:
    """{slide_id: its files}: of a file that has several names the first that no other file has."""
    holders = _holders(names)
    chosen = {
        file: [next((name for name in of_slide if len(holders[name]) == 1), of_slide[0])]
        for file, of_slide in names.items()
    }
    return _holders(chosen)


def _named(ids: Mapping[str, Sequence[Path]], notes: Sequence[Fault] = ()) -> FoundSlides:
    faults = {}
    for slide_id, files in ids.items():
        if len(files) > 1:
            others = listed([files[0], *files[2:]], quote=False)
            found = f"a slide of this name is there already: {others}"
            faults[slide_id] = Fault("slide.repeated", str(files[1]), found)
        elif problem := name_problem(slide_id):
            expected = f"a name of at most {MOST_BYTES} bytes, for features are named after slides"
            faults[slide_id] = Fault("name.unusable", str(files[0]), f"its name {problem}", expected, "rename it")
    found_files = {slide_id: files[0] for slide_id, files in sorted(ids.items()) if slide_id not in faults}
    return FoundSlides(found_files, faults, list(notes))


def _by_barcode(slide_id: str, holders: Mapping[str, list[Path]]) -> list[Path]:
    """The one file whose name and the wanted barcode differ by what stands behind a dot, or none."""
    if not is_barcode(slide_id):
        return []
    fitting = [name for name in holders if name.startswith(f"{slide_id}.") or slide_id.startswith(f"{name}.")]
    return holders[fitting[0]] if len(fitting) == 1 else []


def _barcode_notes(folder: Path, matched: Mapping[str, Path]) -> list[Fault]:
    if not matched:
        return []
    pairs = listed((f"{slide_id} is {file.name}" for slide_id, file in matched.items()), quote=False)
    return [Fault("slide.barcode_matched", str(folder), f"{len(matched)} slides are matched by barcode: {pairs}")]


def _missing(folder: Path, wanted: Sequence[str], foreign: Sequence[Path], names: Sequence[str]) -> dict[str, Fault]:
    """{slide_id: fault} of wanted slides that are not there: what there is in place of each."""
    faults = {}
    unread = {slide_name(_ended(file)): file for file in foreign}
    shown = names if len(wanted) * len(names) <= MOST_COMPARED else []
    folded = {name.casefold(): name for name in names}
    for slide_id in wanted:
        if slide_id in unread:
            faults[slide_id] = _foreign_faults(folder, [unread[slide_id]])[0]
            continue
        alike = [name for name in names if name.startswith(slide_id) or slide_id.startswith(name)]
        other_case = [folded[slide_id.casefold()]] if slide_id.casefold() in folded else []
        near = (other_case + alike + get_close_matches(slide_id, shown, MOST_NEAR))[:MOST_NEAR]
        expected = f"{slide_id!r} may be {listed(dict.fromkeys(near))}" if near else ""
        faults[slide_id] = Fault("slide.missing", str(folder), f"{slide_id!r} is not there", expected)
    return faults


# ---- other files -----------------------------------------------------------------------------------------------------


def _ended(file: Path) -> str:
    """A file's name, without what a download that has not ended has behind it."""
    return file.stem if _is_unfinished(file) else file.name


def _is_unfinished(file: Path) -> bool:
    return file.suffix.lower() in UNFINISHED and Path(file.stem).suffix.lower() in (*SUFFIXES, *FOREIGN)


def _foreign_files(below: Sequence[Path], there: Collection[str]) -> list[Path]:
    """The files of formats that OpenSlide does not read and downloads that have not ended, of slides that are not
    ``there``; not the images that a Hamamatsu slide is made of."""
    made_of_images = {file.parent for file in below if file.suffix.lower() in MADE_OF_IMAGES}
    return [
        file
        for file in below
        if (_is_unfinished(file) or file.suffix.lower() in FOREIGN)
        and slide_name(_ended(file)) not in there
        and not (file.suffix.lower() in IMAGE.suffixes and file.parent in made_of_images)
    ]


def _foreign_faults(folder: Path, files: Sequence[Path]) -> list[Fault]:
    """One fault for each format, and one for downloads that have not ended."""
    unfinished = [file for file in files if _is_unfinished(file)]
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file not in unfinished:
            kinds[file.suffix.lower()].append(file)
    faults = []
    for suffix, of_kind in sorted(kinds.items()):
        names = listed((file.name for file in of_kind), quote=False)
        found = f"{len(of_kind)} {suffix} files ({FOREIGN[suffix].what}), which OpenSlide does not read: {names}"
        mend = f"make slides of them: {FOREIGN[suffix].how(of_kind[0])}"
        faults.append(Fault("slide.foreign_format", str(folder), found, f"{', '.join(SUFFIXES)}", mend))
    if unfinished:
        names = listed((file.name for file in unfinished), quote=False)
        mend = "download them again (gdc-client download -m MANIFEST goes on with its own)"
        found = f"{len(unfinished)} downloads have not ended: {names}"
        faults.append(Fault("slide.unfinished", str(folder), found, "whole files", mend))
    return faults


def _dicom_notes(folder: Path, files: Sequence[Path]) -> list[Fault]:
    if not files:
        return []
    names = listed((file.name for file in files), quote=False)
    found = f"{len(files)} DICOM files are not readable, or of no whole slide: {names}"
    return [Fault("slide.other_dicom", str(folder), found, "VL Whole Slide Microscopy Images")]
