"""From slides to features: the slides are found and planned, their patches encoded, and a task's files written."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from datasets.extraction_plan import FeatureRecipe, PlanJob, SlidePlan
from datasets.folders import FeatureFolders
from datasets.slide_features import Pace
from datasets.slides import Magnification, find_slides
from datasets.task import read_level0_magnifications, read_table
from utils.errors import Fault, UserError
from utils.model_identity import ModelIdentity
from utils.options import Shard
from utils.ray_cluster import joined
from utils.workers import over_slides


@dataclass(frozen=True)
class ExtractionOptions:
    """How slides are extracted.

    dataset_csv: a table that names the slides wanted, and the magnification where no tag tells it. level0_mag: that
    of slides that neither tells. min_tissue: least share of tissue in a patch. stain_normalisation: none or macenko.
    batch_size: patches encoded together, about. workers: processes that read slides. device: cpu, cuda, cuda:<n>, or
    CUDA where there is one. precision: fp32, fp16 or bf16 of the encoder (default: fp16 on CUDA, fp32 elsewhere).
    shard: the part of the slides that this process extracts. address: of a Ray cluster whose nodes share this machine's
    folders; gpus_per_worker: GPUs of each of its processes, or part of one (default: one where it has any).
    no_thumbnails: do not draw each slide with its mask and grid. skip_errors: go on with other slides where one fails.
    overwrite: replace files that are damaged or were made with other options.
    """

    dataset_csv: Path | None = None
    level0_mag: float | None = None
    min_tissue: float = 0.1
    stain_normalisation: str = "none"
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

    Returns the ids of the slides that have features now, of the shard if one is asked for. Raises UserError where a
    slide is missing or fails (with ``skip_errors`` where all do), and where no cluster answers at ``address``; the
    files of slides that were finished before stay.
    """
    jobs = _plan_jobs(folders, wsi_dir, source.encoder.identity(), options)
    if options.shard:
        total, jobs = len(jobs), options.shard.part(jobs)
        print(f"shard {options.shard}: {len(jobs)} of {total} slides")
    recipe = Recipe(folders, Path.cwd(), options.batch_size, options.workers, options.device, options.precision)
    if not options.address:
        looked = over_slides(look, jobs, options.workers, "finding tissue")
        return _finish(jobs, looked, lambda plans, pace: encode_here(plans, source.encoder, recipe, pace), options)
    with joined(options.address, mend="without --address this machine extracts alone") as cluster:
        looked = look_on(cluster, jobs)
        return _finish(
            jobs, looked,
            lambda plans, pace: encode_on(cluster, plans, source, recipe, options.gpus_per_worker, pace),
            options,
        )  # fmt: skip


def _finish(
    jobs: Sequence[PlanJob],
    looked: Sequence[SlidePlan | UserError | None],
    encode: Callable[[Sequence[SlidePlan], Pace], Iterator[Encoded]],
    options: ExtractionOptions,
) -> list[str]:
    """``extract_slides`` once all slides are looked at. Returns and raises as it does."""
    failed = {job.slide_id: found for job, found in zip(jobs, looked, strict=True) if isinstance(found, UserError)}
    if failed and not options.skip_errors:
        print("--skip-errors goes on with the other slides", file=sys.stderr)
        raise UserError(list(dict.fromkeys(fault for error in failed.values() for fault in error.faults)))
    plans = [found for found in looked if isinstance(found, SlidePlan)]
    _show_plans(plans, sum(found is None for found in looked))
    if plans:
        failed |= _encode_slides(plans, partial(encode, plans), options.skip_errors)
    if failed:
        _show_failures(failed, len(jobs))
    if jobs and len(failed) == len(jobs):
        found = f"none of {len(jobs)} slides could be extracted"
        raise UserError(Fault("slide.all_failed", str(jobs[0].file.parent), found))
    if jobs:
        print(f"features in {jobs[0].folders.root}")
        print(f"to check them: {jobs[0].folders.check_command()}")
    return [job.slide_id for job in jobs if job.slide_id not in failed]


# ---- looking ---------------------------------------------------------------------------------------------------------


def _plan_jobs(
    folders: FeatureFolders, wsi_dir: Path, model: ModelIdentity, options: ExtractionOptions
) -> list[PlanJob]:
    """A job for each slide. Raises UserError where one that the table names is missing."""
    table = options.dataset_csv
    level0 = read_level0_magnifications(table) if table else {}
    files = find_slides(wsi_dir, list(read_table(table)["slide_id"]) if table else None)
    given = {slide_id: Magnification(value, "column level0_mag") for slide_id, value in level0.items()}
    default = Magnification(options.level0_mag, "--level0-mag") if options.level0_mag else None
    recipe = FeatureRecipe(
        folders.low_magnification,
        folders.high_magnification,
        options.min_tissue,
        options.stain_normalisation,
        {"encoder": folders.feature_extractor, **model.attributes()},
    )
    drawn = None if options.no_thumbnails else folders.root / "thumbnails"
    return [
        PlanJob(
            slide_id, file, given.get(slide_id, default), recipe, folders, drawn and drawn / f"{slide_id}.jpg",
            options.overwrite,
        )
        for slide_id, file in files.items()
    ]  # fmt: skip


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


# ---- reporting -------------------------------------------------------------------------------------------------------


def _show_plans(plans: Sequence[SlidePlan], finished: int) -> None:
    parents = sum(len(plan.grid.parents) for plan in plans)
    children = sum(plan.grid.num_patches for plan in plans) - parents
    print(f"{len(plans)} slides to extract, {finished} are there already; {parents:,} parents, {children:,} children")
    found = Counter((plan.magnification.value, plan.magnification.origin) for plan in plans)
    for (value, origin), number in found.most_common():
        print(f"  {number} slides: level 0 has {value:g}x by {origin}")


def _show_failures(failed: dict[str, UserError], total: int) -> None:
    print(f"failed: {len(failed)} of {total} slides")
    width = max(map(len, failed), default=0)
    for slide_id, error in failed.items():
        print(f"  {slide_id:<{width}}  {'; '.join(map(str, error.faults))}")
    print("main.py refuses slides without features: take their rows out of the table, and make the splits anew")
