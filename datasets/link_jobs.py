"""Which slides have features to link, and where."""

from dataclasses import dataclass, field
from pathlib import Path

from datasets.feature_layouts import AUTO, FeatureLayout, FeatureSource, find_source
from datasets.folders import FeatureFolders
from datasets.link_report import LinkOutcome
from datasets.linked_patches import Linking
from datasets.patches import Patches
from datasets.projection import Projection
from datasets.task import read_level0_magnifications, read_pixel_sizes
from utils.errors import Attempt, Fault, Faults, UserError
from utils.model_types import FLAT
from utils.words import listed


@dataclass(frozen=True)
class LinkOptions:
    """How features are found and linked.

    linking: which child belongs to which parent. low_dir, high_dir: folders of the features of either magnification, or
    one above (default: in the task's). output_dir: of the hierarchical files (default: where main.py reads them).
    layout: a tool's, or whichever is found. overwrite: make files anew. workers: processes.
    """

    linking: Linking = field(default_factory=Linking)
    low_dir: Path | None = None
    high_dir: Path | None = None
    output_dir: Path | None = None
    layout: str = AUTO
    overwrite: bool = False
    workers: int = 1


@dataclass(frozen=True)
class SourceFile:
    """A slide's file of features at one magnification, as a tool wrote it. mpp: microns per level-0 pixel, where the
    table has it."""

    layout: FeatureLayout
    file: Path
    magnification: int
    mpp: float | None = None

    def read(self) -> Patches:
        return self.layout.read(self.file, self.magnification, self.mpp)


@dataclass(frozen=True)
class LinkJob:
    """A slide to link or, without a low file, to copy. level0: magnification of its level 0, where the table has it.
    projection: where it is asked for."""

    slide_id: str
    low: SourceFile | None
    high: SourceFile
    level0: float | None
    folders: FeatureFolders
    options: LinkOptions
    projection: Projection | None

    @property
    def output(self) -> Path:
        """The hierarchical file."""
        own = self.folders.hierarchical_file(self.slide_id)
        return self.options.output_dir / own.name if self.options.output_dir else own


def find_jobs(
    folders: FeatureFolders, table: Path | None, options: LinkOptions, projection: Projection | None
) -> tuple[list[LinkJob], list[LinkOutcome]]:
    """A job for each slide with files of both magnifications, and the outcome of the others, which failed. Where there
    are features of the high magnification alone, a job without low file for each slide.

    table: read for level0_mag and mpp. Raises UserError where there are no features.
    """
    scales = folders.low_magnification, folders.high_magnification
    faults = Faults()
    low, high = _find_sources(folders, options, faults)
    level0 = faults.attempt(read_level0_magnifications, table) if table else Attempt({})
    pixels = faults.attempt(read_pixel_sizes, table) if table else Attempt({})
    faults.raise_any()
    sources = [low, high.value]
    for scale, source in zip(scales, sources, strict=True):
        if source:
            print(f"{scale}x features: {source.folder} ({source.layout.name} layout)")
    files = [source.files() if source else {} for source in sources]
    jobs, alone = [], []
    for slide_id in sorted(files[0].keys() | files[1].keys()):
        low_file, high_file = (
            SourceFile(source.layout, there[slide_id], scale, pixels.value.get(slide_id))
            if source and slide_id in there
            else None
            for source, there, scale in zip(sources, files, scales, strict=True)
        )
        if high_file and (low_file or not low):
            level0_of_slide = level0.value.get(slide_id)
            jobs.append(LinkJob(slide_id, low_file, high_file, level0_of_slide, folders, options, projection))
        elif there := low_file or high_file:
            told = f"no {scales[0] if high_file else scales[1]}x file of this slide"
            fault = Fault("features.one_scale", str(there.file), told, expected="one at each magnification")
            alone.append(LinkOutcome(slide_id, "failed", [fault]))
    return jobs, alone


def _find_sources(
    folders: FeatureFolders, options: LinkOptions, faults: Faults
) -> tuple[FeatureSource | None, Attempt[FeatureSource]]:
    """The features of both magnifications; None where there are no low ones and high ones alone are to be copied."""
    low = Attempt[FeatureSource]()
    missing: UserError | None = None
    high = faults.attempt(_find, folders, folders.high_magnification, options, "--high-dir")
    try:
        taken = high.value if high else None
        low = Attempt(_find(folders, folders.low_magnification, options, "--low-dir", taken))
    except UserError as error:
        missing = error
    if low and high and low.value.folder.resolve() == high.value.folder.resolve():
        told = "found the features of both magnifications in it"
        expected = "two folders, one for each magnification"
        faults.add(Fault("features.same_folder", str(low.value.folder), told, expected))
    if missing and not (high and _is_to_copy(folders, high.value, missing, options)):
        for fault in missing.faults:
            faults.add(fault)
    return (low.value if low else None), high


def _find(
    folders: FeatureFolders, magnification: int, options: LinkOptions, name: str, taken: FeatureSource | None = None
) -> FeatureSource:
    """The features of one magnification: in the folder that is named or, without one, the task's; else in the folder
    that is named for the other magnification. taken: those of the other magnification, which are not meant. Raises
    UserError where they are in neither."""
    given, other = options.low_dir, options.high_dir
    if name == "--high-dir":
        given, other = other, given
    found = Faults()
    source = found.attempt(find_source, folders, magnification, options.layout, given, name)
    if source or given or not other:
        found.raise_any()
        return source.value
    beside = Faults().attempt(find_source, folders, magnification, options.layout, other, name)
    if not beside or (taken and beside.value.folder.resolve() == taken.folder.resolve()):
        found.raise_any()
    return beside.value


def _is_to_copy(folders: FeatureFolders, high: FeatureSource, missing: UserError, options: LinkOptions) -> bool:
    """Whether there are high features alone, and not yet where main.py reads them."""
    own = folders.high_file("slide").parent
    absent = all(fault.code == "features.missing" for fault in missing.faults)
    return absent and not options.low_dir and high.folder.resolve() != own.resolve()


def alone_told(folders: FeatureFolders) -> str:
    """What features of the high magnification alone are good for."""
    return (
        f"the {folders.high_magnification}x features alone are in {folders.high_file('slide').parent}, for the models "
        f"that read one scale ({listed(FLAT, len(FLAT), quote=False)}); the others need {folders.low_magnification}x "
        "features as well"
    )
