"""Names of slides: as tables, splits and files write them."""

import unicodedata
from pathlib import Path

from datasets.foreign_slides import FOREIGN

FORMATS = {
    "aperio": (".svs", ".tif"),
    "argos": (".avs",),
    "dicom": (".dcm",),
    "generic-tiff": (".tif", ".tiff"),
    "hamamatsu": (".ndpi", ".vms", ".vmu"),
    "huron": (".tif",),
    "leica": (".scn",),
    "mirax": (".mrxs",),
    "philips": (".tiff",),
    "sakura": (".svslide",),
    "trestle": (".tif",),
    "ventana": (".bif", ".tif"),
    "zeiss": (".czi",),
}
"""{vendor: suffixes} of the formats that the pinned OpenSlide reads (https://openslide.org/formats/)."""
SUFFIXES = tuple(sorted({suffix for suffixes in FORMATS.values() for suffix in suffixes}))
FEATURES = ".h5"


def composed(text: str) -> str:
    """Text in Unicode's form NFC, in which names are compared; file systems and spreadsheets give either form."""
    return unicodedata.normalize("NFC", text)


def slide_name(text: str) -> str:
    """A slide's name without the extension of a slide or of a feature file, in Unicode's form NFC: S1.svs -> S1."""
    name = composed(text)
    while (suffix := Path(name).suffix.lower()) and suffix in (*SUFFIXES, *FOREIGN, FEATURES, ".pt"):
        name = name[: -len(suffix)]
    return name


def file_of(folder: Path, name: str) -> Path:
    """A slide's feature file. One that is there under another spelling of the name is taken: decomposed Unicode (NFD),
    or with the extension of the slide."""
    file = folder / f"{name}{FEATURES}"
    if file.exists():
        return file
    forms = dict.fromkeys([name, unicodedata.normalize("NFD", name)])
    others = (folder / f"{form}{suffix}{FEATURES}" for form in forms for suffix in ("", *SUFFIXES))
    return next((other for other in others if other.exists()), file)
