"""Slides in DICOM: the files of a series are one slide, which OpenSlide opens by any of them."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from utils.names import name_problem

SUFFIX = ".dcm"
MARK, MARK_AT = b"DICM", 128
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
LAST_READ = 0x00400512  # Container Identifier


class Instance(NamedTuple):
    """What one DICOM file says. series: its unique identifier. container: the slide's identifier in the laboratory."""

    series: str
    container: str


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its name, or, where a name has no extension but digits, as archives write, by its
    first bytes."""
    suffix = file.suffix.lower()
    if suffix == SUFFIX or (suffix and not suffix[1:].isdigit()):
        return suffix == SUFFIX
    with suppress(OSError), file.open("rb") as opened:
        opened.seek(MARK_AT)
        return opened.read(len(MARK)) == MARK
    return False


def read_instance(file: Path) -> Instance | None:
    """Read the head of a DICOM file; None where it is not readable, or no image of a whole slide."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    names = "SOPClassUID", "SeriesInstanceUID", "ContainerIdentifier"
    try:
        with file.open("rb") as opened:
            found = read_partial(
                opened, stop_when=lambda tag, *_: tag > LAST_READ, specific_tags=[Tag(name) for name in names]
            )
        kind, series, container = (str(found.get(name) or "").strip() for name in names)
    except Exception:  # on damaged files pydicom raises errors of any kind
        return None
    return Instance(series, container) if kind == WHOLE_SLIDE and series else None


def slides_of_series(files: Iterable[Path], top: Path) -> tuple[dict[Path, list[str]], list[Path]]:
    """{a slide's largest file: its names} of the DICOM files in or below ``top``, and the files that are of no slide.

    A slide's names: of its folder, where the folder is not ``top`` and holds no other series; of its container; of the
    series. The first one is its id, unless another slide has the same.
    """
    series: dict[tuple[Path, str], list[tuple[Path, str]]] = defaultdict(list)
    others = []
    for file in files:
        if instance := read_instance(file):
            series[file.parent, instance.series].append((file, instance.container))
        else:
            others.append(file)
    alone = [folder for folder in {folder for folder, _ in series} if sum(one == folder for one, _ in series) == 1]
    found = {}
    for (folder, uid), members in series.items():
        containers = {container for _, container in members} - {""}
        names = [folder.name] * (folder in alone and folder != top) + sorted(containers) * (len(containers) == 1)
        largest = max((file for file, _ in members), key=lambda file: file.stat().st_size)
        found[largest] = [name for name in (*names, uid) if name_problem(name) is None]
    return found, others
