"""By what rules a run's splits were made, as far as the split files tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.barcodes import is_barcode, is_normal
from datasets.splits import PAIRS, Split, read_split_ids, shared_patients, shared_sites
from datasets.task import Slide, read_sites, read_slides
from utils.errors import Faults


@dataclass(frozen=True)
class RunSplits:
    """The folds of a run. sites: by slide_id, "" where not known; table: whether the table of slides was there, which
    tells patients and sites where the slides' names do not."""

    folds: dict[int, Split]
    sites: dict[str, str]
    has_table: bool

    def slides(self) -> set[Slide]:
        return {slide for split in self.folds.values() for _, members in split.parts() for slide in members}


def read_run_splits(files: Mapping[int, Path], table: Path) -> RunSplits:
    """Read splits_<fold>.csv of a run by fold. A slide that the table does not have, or that has no table, is a patient
    of its own, unless its name is a TCGA barcode. Raises UserError with the faults of all files."""
    faults = Faults()
    has_table = table.is_file()
    slides: dict[str, Slide] = {}
    sites: dict[str, str] = {}
    if has_table and (found := faults.attempt(read_slides, table)):
        slides, sites = found.value[1], read_sites(table)
    ids = {fold: faults.attempt(read_split_ids, file) for fold, file in files.items()}
    faults.raise_any()
    folds = {
        fold: Split(fold, **{name: [slides.get(i, Slide(i, i)) for i in part] for name, part in members.value.items()})
        for fold, members in ids.items()
    }
    names = {slide.slide_id for split in folds.values() for _, part in split.parts() for slide in part}
    return RunSplits(folds, {name: sites.get(name, "") for name in names}, has_table)


def evaluation_track(run: RunSplits, released: bool) -> str:
    """The name of the track. released: whether the split files are the authors' by their checksums."""
    splits = list(run.folds.values())
    shared = set().union(*(shared_patients(split, a, b) for split in splits for a, b in PAIRS))
    sharing = f"patients shared between parts: {len(shared)}"
    if released:
        return f"released splits ({sharing})"
    slides = run.slides()
    barcodes = all(is_barcode(slide.slide_id) for slide in slides)
    if not (barcodes or run.has_table):
        return "slides only (patients not known: no table of slides)"
    if shared:
        return f"slides only ({sharing})"
    track = "patient-grouped"
    if all(run.sites.values()) and not any(shared_sites(split, a, b, run.sites) for split in splits for a, b in PAIRS):
        track += " and site-disjoint"
    if barcodes and not any(is_normal(slide.slide_id) for slide in slides):
        track += ", without normals"
    if len({slide.patient for slide in slides}) == len(slides):
        track += " (each slide a patient of its own: is case_id the patient?)"
    return track
