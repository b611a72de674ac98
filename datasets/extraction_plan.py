"""The first look at a slide, at low resolution: its magnification, its tissue, the patches to be read."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide

from datasets.folders import FeatureFolders
from datasets.patches import PATCH_SIZE
from datasets.slide_readers import ReaderChoice, choose_reader
from datasets.slides import Magnification, ScaleTags, read_area, reading, scale_tags
from datasets.stain import Macenko
from datasets.tissue import PatchGrid, TissueRule, draw_grid, lay_grid
from datasets.unreadable_slides import why_tiff
from utils.errors import Fault, UserError
from utils.files import file_sha256
from utils.h5 import read_attributes
from utils.whole_files import write_bytes

STAIN_SAMPLE = 50  # parents
EARLIER = {"tissue_threshold": "otsu", "tissue_mask_sha256": "", "half_decode": False}
"""What holds for files of earlier versions, which do not say so."""


@dataclass(frozen=True)
class FeatureRecipe:
    """What decides a slide's features, beside the slide. encoder: its name, and which model it is of. tissue_threshold:
    of the saturation; None for Otsu's. half_decode: JPEG tiles are decoded at half their size where that is enough."""

    low_magnification: int
    high_magnification: int
    min_tissue: float
    stain_normalisation: str
    encoder: Mapping[str, Any]
    tissue_threshold: int | None = None
    half_decode: bool = False

    def attributes(self) -> dict[str, Any]:
        """As the files carry them."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "encoder"}
        own["tissue_threshold"] = (
            EARLIER["tissue_threshold"] if self.tissue_threshold is None else self.tissue_threshold
        )
        return {**own, **self.encoder, "patch_size": PATCH_SIZE}


@dataclass(frozen=True)
class SlidePlan:
    """A slide's patches, before any is read at full size. made: says of its files how they are made. reader: what reads
    the patches."""

    slide_id: str
    file: Path
    made: dict[str, Any]
    magnification: Magnification
    grid: PatchGrid
    stain: Macenko | None
    reader: ReaderChoice = field(default_factory=ReaderChoice)


# ---- looking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlanJob:
    """A slide to plan. given: its magnification where no tag tells it; forced: whatever its tags tell. mask: where its
    tissue is, or None. thumbnail: where to draw it, or None. reader: as ``choose_reader`` takes it."""

    slide_id: str
    file: Path
    given: Magnification | None
    recipe: FeatureRecipe
    folders: FeatureFolders
    thumbnail: Path | None
    overwrite: bool = False
    forced: Magnification | None = None
    mask: Path | None = None
    reader: str = "auto"


@dataclass(frozen=True)
class FirstLook:
    """plan: None where the slide's files are there already. ink: its share of the slide's area."""

    magnification: Magnification
    plan: SlidePlan | None = None
    ink: float = 0.0


def plan_slide(job: PlanJob) -> FirstLook:
    """Find the tissue, lay the grid and draw both, unless the slide's files are there already.

    Raises UserError, naming the file, where the slide or its mask is not readable, its magnification not known or too
    low, no patch has tissue enough, files made otherwise are there, or the wanted reader cannot read the slide.
    """
    recipe = job.recipe
    with reading(job.file) as slide:
        magnification = level0_of(scale_tags(slide), job.given, job.forced)
        slide_is = {
            "level0_magnification": magnification.value,
            "slide_bytes": job.file.stat().st_size,
            "tissue_mask_sha256": file_sha256(job.mask) if job.mask else EARLIER["tissue_mask_sha256"],
        }
        made = {**recipe.attributes(), **slide_is}
        if is_made(job.folders, job.slide_id, made, job.overwrite):
            return FirstLook(magnification)
        scales = recipe.low_magnification, recipe.high_magnification
        rule = TissueRule(recipe.min_tissue, recipe.tissue_threshold, job.mask)
        grid, overview = lay_grid(slide, magnification.value, scales, rule)
        if job.thumbnail is not None:
            drawn = io.BytesIO()
            draw_grid(grid, overview).save(drawn, format="JPEG", quality=85)
            write_bytes(job.thumbnail, drawn.getbuffer())
        if not grid.is_child.any():
            found = (
                f"{overview.tissue.mean():.1%} of it is tissue, not enough for a patch of --min-tissue "
                f"{recipe.min_tissue:g} (level 0 has {magnification.value:g}x by {magnification.origin})"
            )
            no_tissue = Fault("slide.no_tissue", "", found, "a stained section", "see its thumbnail")
            raise UserError(why_tiff(job.file) or no_tissue)
        stain = _fit_stains(slide, grid) if recipe.stain_normalisation == "macenko" else None
    reader = choose_reader(job.file, grid, job.reader, recipe.half_decode)
    plan = SlidePlan(job.slide_id, job.file, made, magnification, grid, stain, reader)
    return FirstLook(magnification, plan, float(overview.ink.mean()))


def level0_of(tags: ScaleTags, given: Magnification | None, forced: Magnification | None) -> Magnification:
    """The magnification of level 0: forced by the user, else by the slide's own tags, else given by the user; where one
    of these says otherwise than another, the origin tells. Raises UserError where none tells."""
    tagged = tags.magnification()
    if forced:
        overruled = (
            f", although {tagged.origin} says {tagged.value:g}x" if tagged and tagged.value != forced.value else ""
        )
        return replace(forced, origin=f"{forced.origin}{overruled}")
    if tagged and given and tagged.value != given.value:
        return Magnification(tagged.value, f"{tagged.origin}, although {given.origin} says {given.value:g}x", True)
    if tagged:
        return tagged
    if given:
        return tags.confirm(given)
    mend = "give that of its level 0 with --level0-mag, or in the column level0_mag of --dataset_csv"
    if unusual := tags.unusual():
        raise UserError(Fault("slide.pixel_size", "", unusual, "one of these", mend))
    found = "no tag tells its magnification (objective power, microns per pixel)"
    raise UserError(Fault("slide.magnification", "", found, mend=mend))


def _fit_stains(slide: openslide.OpenSlide, grid: PatchGrid) -> Macenko:
    """From parents evenly spread over the slide, at the low magnification."""
    chosen = np.unique(np.linspace(0, len(grid.parents) - 1, STAIN_SAMPLE).astype(int))
    side = (grid.parent_size, grid.parent_size)
    images = [read_area(slide, (x, y), side, (PATCH_SIZE, PATCH_SIZE)) for x, y in grid.parents[chosen].tolist()]
    return Macenko.fit(np.concatenate([np.asarray(image).reshape(-1, 3) for image in images]))


def is_made(folders: FeatureFolders, slide_id: str, made: Mapping[str, Any], overwrite: bool = False) -> bool:
    """Whether a slide's three files are there. Raises UserError, or with ``overwrite`` says no, where one is damaged or
    was made otherwise."""
    files = folders.low_file(slide_id), folders.high_file(slide_id), folders.hierarchical_file(slide_id)
    there = [file for file in files if file.exists()]
    for file in there:
        try:
            found = read_attributes(file)
        except UserError as error:
            if any(fault.mend for fault in error.faults):  # the file may be whole
                raise
            if overwrite:
                return False
            mend = "delete it, or replace it with --overwrite"
            raise UserError([replace(fault, mend=mend) for fault in error.faults]) from error
        other = [name for name, value in made.items() if found.get(name, EARLIER.get(name)) != value]
        if other and overwrite:
            return False
        if other:
            kinds = [
                f"{name} {found.get(name, EARLIER.get(name, 'not said'))!s:.12}, now {made[name]!s:.12}"
                for name in other[:3]
            ]
            differing = f"is there, made otherwise ({', '.join(kinds)})"
            mend = "--overwrite replaces it, another --data_root_dir keeps it"
            raise UserError(Fault("features.made_otherwise", str(file), differing, mend=mend))
    return len(there) == len(files)
