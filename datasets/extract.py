"""From slides to features: the slides are found and planned, their patches encoded, and a task's files written."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from datasets.encoding import (
    Encoded,
    EncoderSource,
    Recipe,
    encode_here,
    encode_on,
    look,
    look_on,
)
from datasets.extraction_plan import FeatureRecipe, FirstLook, PlanJob, SlidePlan
from datasets.extraction_report import show_failures, show_notes, show_plans
from datasets.failed_slides import many_inks, refuse, write_failures
from datasets.folders import FeatureFolders
from datasets.given_masks import find_masks, missing_mask
from datasets.slide_features import Pace
from datasets.slide_search import search_slides
from datasets.slides import Magnification, doubtful
from datasets.task import read_forced_magnifications, read_level0_magnifications, read_table
from utils.errors import Fault, UserError
from utils.model_identity import ModelIdentity
from utils.options import Shard
from utils.ray_cluster import joined
from utils.workers import over_slides


@dataclass(frozen=True)
class ExtractionOptions:
    """How slides are extracted.

    dataset_csv: a table that names the slides wanted, and the magnification where no tag tells it. level0_mag: that
    of slides that neither tells. force_magnification: that of all slides, whatever their tags tell. min_tissue: least
    share of tissue in a patch. tissue_threshold: of the saturation (default: Otsu's). tissue_mask: a folder of masks
    that say where tissue is (``find_masks``). stain_normalisation: none or macenko. reader: auto, tiles or openslide.
    half_decode: decode JPEG tiles at half their size where that is enough.
    batch_size: patches encoded together, about. workers: processes that read slides. device: cpu, cuda, cuda:<n>, or
    CUDA where there is one. precision: fp32, fp16 or bf16 of the encoder (default: fp16 on CUDA, fp32 elsewhere).
    shard: the part of the slides that this process extracts. address: of a Ray cluster whose nodes share this machine's
    folders; gpus_per_worker: GPUs of each of its processes, or part of one (default: one where it has any).
    no_thumbnails: do not draw each slide with its mask and grid. skip_errors: go on with other slides where one fails.
    overwrite: replace files that are damaged or were made with other options.
    """

    dataset_csv: Path | None = None
    level0_mag: float | None = None
    force_magnification: float | None = None
    min_tissue: float = 0.1
    tissue_threshold: int | None = None
    tissue_mask: Path | None = None
    stain_normalisation: str = "none"
    reader: str = "auto"
    half_decode: bool = False
    batch_size: int = 256
    workers: int = min(16, os.cpu_count() or 1)
    device: str | None = None
    precision: str | None = None
    no_thumbnails: bool = False
    skip_errors: bool = False
    overwrite: bool = False
    shard: Shard | None = None
    address: str | None = None
    gpus_per_worker: float | None = None


def extract_slides(
    folders: FeatureFolders, wsi_dir: Path, source: EncoderSource, options: ExtractionOptions
) -> list[str]:
    """Write the features of all slides in or below a folder, unless they are there, and print a report.

    Returns the ids of the slides that have features now, of the shard if one is asked for. Raises UserError where
    options contradict, where a slide is missing or fails (with ``skip_errors`` where all do), and where no cluster
    answers at ``address``; the files of slides that were finished before stay.
    """
    if options.half_decode and options.reader == "openslide":
        raise UserError(Fault("option.value", "--half-decode --reader openslide", "OpenSlide decodes at full size"))
    work = _plan_jobs(folders, wsi_dir, source.encoder.identity(), options)
    if options.shard:
        total, work = len(work.jobs), replace(work, jobs=options.shard.part(work.jobs))
        print(f"shard {options.shard}: {len(work.jobs)} of {total} slides")
    if work.failed and not options.skip_errors:
        refuse(work.failed, wsi_dir, work.number, folders.root)
    recipe = Recipe(folders, Path.cwd(), options.batch_size, options.workers, options.device, options.precision)
    if not options.address:
        looked = over_slides(look, work.jobs, options.workers, "finding tissue")
        return _finish(work, looked, lambda plans, pace: encode_here(plans, source.encoder, recipe, pace), options)
    with joined(options.address, mend="without --address this machine extracts alone") as cluster:
        looked = look_on(cluster, work.jobs)
        return _finish(
            work, looked,
            lambda plans, pace: encode_on(cluster, plans, source, recipe, options.gpus_per_worker, pace),
            options,
        )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A job for each slide in ``wsi_dir``, and what is wrong with slides that cannot have one."""

    wsi_dir: Path
    folders: FeatureFolders
    jobs: list[PlanJob]
    failed: dict[str, UserError]

    @property
    def number(self) -> int:
        """Of all slides."""
        return len(self.jobs) + len(self.failed)


def _finish(
    work: Work,
    looked: Sequence[FirstLook | UserError],
    encode: Callable[[Sequence[SlidePlan], Pace], Iterator[Encoded]],
    options: ExtractionOptions,
) -> list[str]:
    """``extract_slides`` once all slides are looked at. Returns and raises as it does."""
    seen: dict[str, FirstLook] = {}
    failed = dict(work.failed)
    for job, found in zip(work.jobs, looked, strict=True):
        if isinstance(found, UserError):
            failed[job.slide_id] = found
        else:
            seen[job.slide_id] = found
    show_notes(doubtful({slide_id: found.magnification for slide_id, found in seen.items()}))
    show_notes(many_inks({slide_id: found.ink for slide_id, found in seen.items()}))
    if failed and not options.skip_errors:
        refuse(failed, work.wsi_dir, work.number, work.folders.root)
    plans = [found.plan for found in seen.values() if found.plan]
    show_plans(plans, len(seen) - len(plans))
    if plans:
        failed |= _encode_slides(plans, partial(encode, plans), options.skip_errors)
    if failed:
        show_failures(failed, work.number)
        write_failures(failed, work.folders.root)
    if failed and len(failed) == work.number:
        found_none = f"none of {work.number} slides could be extracted"
        raise UserError(Fault("slide.all_failed", str(work.wsi_dir), found_none))
    if work.jobs:
        print(f"features in {work.folders.root}")
        print(f"to check them: {work.folders.check_command()}")
    return [job.slide_id for job in work.jobs if job.slide_id not in failed]


# ---- looking ---------------------------------------------------------------------------------------------------------


def _plan_jobs(folders: FeatureFolders, wsi_dir: Path, model: ModelIdentity, options: ExtractionOptions) -> Work:
    """The slides that are there and wanted."""
    table = options.dataset_csv
    slides = search_slides(wsi_dir, list(read_table(table)["slide_id"]) if table else None)
    show_notes(slides.notes)
    failed = {slide_id: UserError(fault) for slide_id, fault in slides.faults.items()}
    masks = find_masks(options.tissue_mask) if options.tissue_mask else None
    if options.tissue_mask and masks is not None:
        without = [slide_id for slide_id in slides.files if slide_id not in masks]
        failed |= {slide_id: UserError(missing_mask(options.tissue_mask, slide_id)) for slide_id in without}
    given = _told(read_level0_magnifications(table) if table else {}, "level0_mag", options.level0_mag, "--level0-mag")
    forced = _told(
        read_forced_magnifications(table) if table else {},
        "force_magnification", options.force_magnification, "--force-magnification",
    )  # fmt: skip
    recipe = FeatureRecipe(
        folders.low_magnification,
        folders.high_magnification,
        options.min_tissue,
        options.stain_normalisation,
        {"encoder": folders.feature_extractor, **model.attributes()},
        options.tissue_threshold,
        options.half_decode,
    )
    drawn = None if options.no_thumbnails else folders.root / "thumbnails"
    jobs = [
        PlanJob(
            slide_id, file, given(slide_id), recipe, folders, drawn and drawn / f"{slide_id}.jpg", options.overwrite,
            forced(slide_id), masks[slide_id] if masks else None, options.reader,
        )
        for slide_id, file in slides.files.items() if slide_id not in failed
    ]  # fmt: skip
    return Work(wsi_dir, folders, jobs, failed)


def _told(
    column: Mapping[str, float], name: str, value: float | None, option: str
) -> Callable[[str], Magnification | None]:
    """What the user says of a slide's magnification: the table's column, else the option for all slides."""
    for_all = Magnification(value, option) if value else None
    of_slides = {slide_id: Magnification(number, f"column {name}") for slide_id, number in column.items()}
    return lambda slide_id: of_slides.get(slide_id, for_all)


# ---- encoding --------------------------------------------------------------------------------------------------------


class ShownPace(Pace):
    """A pace with a progress bar."""

    def __init__(self, bar: "tqdm[NoReturn]"):
        super().__init__()
        self.bar, self.started = bar, time.monotonic()

    def add(self, more: Pace) -> None:
        super().add(more)
        self.bar.update(more.patches)

    def show_slides(self, done: int, total: int) -> None:
        rate = done / (time.monotonic() - self.started)
        self.bar.set_postfix_str(f"{done}/{total} slides, {rate:.3g} slides/s; {self.told()}")


def _encode_slides(
    plans: Sequence[SlidePlan], encode: Callable[[Pace], Iterator[Encoded]], skip_errors: bool
) -> dict[str, UserError]:
    """Extract and write; {slide_id: what was wrong} of slides that could not be read. Without ``skip_errors`` the first
    such slide raises a UserError."""
    failed: dict[str, UserError] = {}
    with tqdm(total=sum(plan.grid.num_patches for plan in plans), desc="encoding", unit="patch", disable=None) as bar:
        pace = ShownPace(bar)
        for number, (plan, fault) in enumerate(encode(pace), 1):
            if fault and not skip_errors:
                raise UserError(replace(fault, mend="--skip-errors goes on with the other slides"))
            if fault:
                failed[plan.slide_id] = UserError(fault)
            pace.show_slides(number, len(plans))
    seconds = time.monotonic() - pace.started
    patches = sum(plan.grid.num_patches for plan in plans if plan.slide_id not in failed)
    print(
        f"encoded {patches:,} patches in {seconds:.0f} s on {pace.device} ({patches / seconds:.0f} patches/s; "
        f"{pace.told()})"
    )
    return failed
