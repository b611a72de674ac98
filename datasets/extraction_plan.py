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
from datasets.slides import Magnification, read_area, reading, tagged_magnification
from datasets.stain import Macenko
from datasets.tissue import PatchGrid, draw_grid, lay_grid
from utils.errors import Fault, UserError
from utils.h5 import read_attributes
from utils.whole_files import write_bytes

STAIN_SAMPLE = 50  # parents
WHEN_ON = ("half_decode",)
"""Attributes that files do not carry where the option is off, as files of earlier versions."""


@dataclass(frozen=True)
class FeatureRecipe:
    """What decides a slide's features, beside the slide. encoder: its name, and which model it is of. half_decode: JPEG
    tiles are decoded at half their size where that is enough."""

    low_magnification: int
    high_magnification: int
    min_tissue: float
    stain_normalisation: str
    encoder: Mapping[str, Any]
    half_decode: bool = False

    def attributes(self) -> dict[str, Any]:
        """As the files carry them; those of ``WHEN_ON`` only where they are set."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "encoder"}
        said = {name: value for name, value in own.items() if value or name not in WHEN_ON}
        return {**said, **self.encoder, "patch_size": PATCH_SIZE}


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
    """A slide to plan. given: its magnification where no tag tells it. thumbnail: where to draw it, or None. reader: as
    ``choose_reader`` takes it."""

    slide_id: str
    file: Path
    given: Magnification | None
    recipe: FeatureRecipe
    folders: FeatureFolders
    thumbnail: Path | None
    overwrite: bool = False
    reader: str = "auto"


def plan_slide(job: PlanJob) -> SlidePlan | None:
    """Find the tissue, lay the grid and draw both; None where the slide's files are there already.

    Raises UserError, naming the file, where the slide is not readable, its magnification not known or too low, no patch
    has tissue enough, files made otherwise are there, or the wanted reader cannot read the slide.
    """
    recipe = job.recipe
    with reading(job.file) as slide:
        magnification = _choose(tagged_magnification(slide), job.given)
        if magnification is None:
            found = "no tag tells its magnification (objective power, microns per pixel)"
            mend = "give that of its level 0 with --level0-mag, or in the column level0_mag of --dataset_csv"
            raise UserError(Fault("slide.magnification", "", found, mend=mend))
        slide_is = {"level0_magnification": magnification.value, "slide_bytes": job.file.stat().st_size}
        made = {**recipe.attributes(), **slide_is}
        if is_made(job.folders, job.slide_id, made, job.overwrite):
            return None
        scales = recipe.low_magnification, recipe.high_magnification
        grid, overview = lay_grid(slide, magnification.value, scales, recipe.min_tissue)
        if job.thumbnail is not None:
            drawn = io.BytesIO()
            draw_grid(grid, overview).save(drawn, format="JPEG", quality=85)
            write_bytes(job.thumbnail, drawn.getbuffer())
        if not grid.is_child.any():
            found = (
                f"{overview.tissue.mean():.1%} of it is tissue, not enough for a patch of --min-tissue "
                f"{recipe.min_tissue:g} (level 0 has {magnification.value:g}x by {magnification.origin})"
            )
            raise UserError(Fault("slide.no_tissue", "", found, "a stained section", "see its thumbnail"))
        stain = _fit_stains(slide, grid) if recipe.stain_normalisation == "macenko" else None
    reader = choose_reader(job.file, grid, job.reader, recipe.half_decode)
    return SlidePlan(job.slide_id, job.file, made, magnification, grid, stain, reader)


def _choose(tagged: Magnification | None, given: Magnification | None) -> Magnification | None:
    """The slide's own tag, else what the user says; a tag says where the user says otherwise."""
    if tagged and given and tagged.value != given.value:
        return Magnification(tagged.value, f"{tagged.origin}, although {given.origin} says {given.value:g}x")
    return tagged or given


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
        other = [name for name, value in made.items() if name not in found or found[name] != value]
        other += [name for name in WHEN_ON if name in found and name not in made]
        if other and overwrite:
            return False
        if other:
            kinds = [
                f"{name} {found.get(name, 'not said')!s:.12}, now {made.get(name, 'off')!s:.12}" for name in other[:3]
            ]
            differing = f"is there, made otherwise ({', '.join(kinds)})"
            mend = "--overwrite replaces it, another --data_root_dir keeps it"
            raise UserError(Fault("features.made_otherwise", str(file), differing, mend=mend))
    return len(there) == len(files)
