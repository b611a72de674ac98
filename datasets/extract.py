"""From slides to features: the slides are found and planned, their patches encoded, and a task's files written."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.extraction_plan import FeatureRecipe, PlanJob, SlidePlan, plan_slide
from datasets.folders import FeatureFolders
from datasets.slide_features import Encode, SlideFeatures, extract_features, write_slide_features
from datasets.slides import Magnification, find_slides
from datasets.task import read_level0_magnifications, read_table
from utils.errors import MOST_SHOWN, Fault, UserError
from utils.model_identity import ModelIdentity
from utils.reproducibility import choose_device, make_deterministic
from utils.words import listed
from utils.workers import over_slides

Result = TypeVar("Result")


class PatchEncoder(Protocol):
    """A frozen image encoder: uint8 patches (N, 3, H, W) on its device -> float32 features (N, D).

    output_dim: D. identity: what feature files carry, for texts of another model to be refused.
    """

    output_dim: int

    def to(self, device: torch.device, /) -> Self: ...

    def identity(self) -> ModelIdentity: ...

    def encode_images(self, images: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class ExtractionOptions:
    """How slides are extracted.

    dataset_csv: a table that names the slides wanted, and the magnification where no tag tells it. level0_mag: that
    of slides that neither tells. min_tissue: least share of tissue in a patch. stain_normalisation: none or macenko.
    reader: auto, tiles or openslide. half_decode: decode JPEG tiles at half their size where that is enough.
    batch_size: patches encoded together, about. workers: processes that read slides. device: cpu, cuda, cuda:<n>, or
    CUDA where there is one. precision: fp32, fp16 or bf16 of the encoder (default: fp16 on CUDA, fp32 elsewhere).
    no_thumbnails: do not draw each slide with its mask and grid. skip_errors: go on with other slides where one fails.
    overwrite: replace files that are damaged or were made with other options.
    """

    dataset_csv: Path | None = None
    level0_mag: float | None = None
    min_tissue: float = 0.1
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


def extract_slides(
    folders: FeatureFolders, wsi_dir: Path, encoder: PatchEncoder, options: ExtractionOptions
) -> list[str]:
    """Write the features of all slides in or below a folder, unless they are there, and print a report.

    Returns the ids of the slides that have features now. Raises UserError where options contradict, and where a
    slide is missing or fails (with ``skip_errors`` where all do); the files of slides that were finished before stay.
    """
    if options.half_decode and options.reader == "openslide":
        raise UserError(Fault("option.value", "--half-decode --reader openslide", "OpenSlide decodes at full size"))
    jobs = _plan_jobs(folders, wsi_dir, encoder, options)
    looked = over_slides(_look, jobs, options.workers, "finding tissue")
    failed = {job.slide_id: found for job, found in zip(jobs, looked, strict=True) if isinstance(found, UserError)}
    if failed and not options.skip_errors:
        print("--skip-errors goes on with the other slides", file=sys.stderr)
        raise UserError(list(dict.fromkeys(fault for error in failed.values() for fault in error.faults)))
    plans = [found for found in looked if isinstance(found, SlidePlan)]
    _show_plans(plans, sum(found is None for found in looked))
    if plans:
        failed |= _encode_slides(plans, folders, encoder, options)
    if failed:
        _show_failures(failed, len(jobs))
    if len(failed) == len(jobs):
        found = f"none of {len(jobs)} slides could be extracted"
        raise UserError(Fault("slide.all_failed", str(wsi_dir), found))
    print(f"features in {folders.root}")
    print(f"to check them: {folders.check_command()}")
    return [job.slide_id for job in jobs if job.slide_id not in failed]


# ---- looking ---------------------------------------------------------------------------------------------------------


def _plan_jobs(
    folders: FeatureFolders, wsi_dir: Path, encoder: PatchEncoder, options: ExtractionOptions
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
        {"encoder": folders.feature_extractor, **encoder.identity().attributes()},
        options.half_decode,
    )
    drawn = None if options.no_thumbnails else folders.root / "thumbnails"
    return [
        PlanJob(
            slide_id, file, given.get(slide_id, default), recipe, folders, drawn and drawn / f"{slide_id}.jpg",
            options.overwrite, options.reader,
        )
        for slide_id, file in files.items()
    ]  # fmt: skip


def _look(job: PlanJob) -> SlidePlan | UserError | None:
    """The slide's plan, None where it is finished already, or what is wrong with it."""
    try:
        return plan_slide(job)
    except UserError as error:
        return UserError(error.faults)


# ---- encoding --------------------------------------------------------------------------------------------------------


def _encode_slides(
    plans: Sequence[SlidePlan], folders: FeatureFolders, encoder: PatchEncoder, options: ExtractionOptions
) -> dict[str, UserError]:
    """Extract and write; {slide_id: what was wrong} of slides that could not be read. Without ``skip_errors`` the first
    such slide raises a UserError."""
    make_deterministic()
    device = choose_device(options.device)
    precision = options.precision or ("fp16" if device.type == "cuda" else "fp32")
    encode = _batch_encoder(encoder, device, precision)
    failed: dict[str, UserError] = {}
    started = time.monotonic()
    with tqdm(total=sum(plan.grid.num_patches for plan in plans), desc="encoding", unit="patch", disable=None) as bar:
        results = extract_features(
            plans, encode, encoder.output_dim, options.batch_size, options.workers, device.type == "cuda", bar.update
        )
        for number, result in enumerate(_unless_ended(results), 1):
            if isinstance(result, SlideFeatures):
                write_slide_features(folders, result, precision)
            else:
                plan, found = result
                if not options.skip_errors:
                    raise UserError(replace(found, mend="--skip-errors goes on with the other slides"))
                failed[plan.slide_id] = UserError(found)
            bar.set_postfix_str(f"{number}/{len(plans)} slides, {number / (time.monotonic() - started):.3g} slides/s")
    seconds = time.monotonic() - started
    patches = sum(plan.grid.num_patches for plan in plans if plan.slide_id not in failed)
    print(
        f"encoded {patches:,} patches in {seconds:.0f} s on {device}, {precision} ({patches / seconds:.0f} patches/s)"
    )
    return failed


def _batch_encoder(encoder: PatchEncoder, device: torch.device, precision: str) -> Encode:
    """uint8 patches on the CPU -> features; a batch too large for the device is a UserError."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    encoder = encoder.to(device)

    @torch.inference_mode()
    def encode(patches: Tensor) -> Tensor:
        try:
            with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                return encoder.encode_images(patches.to(device, non_blocking=True))
        except torch.OutOfMemoryError as error:
            found = f"{len(patches)} patches do not fit into the memory of {device}"
            raise UserError(Fault("device.memory", "--batch-size", found, mend="lower --batch-size")) from error

    return encode


def _unless_ended(results: Iterator[Result]) -> Iterator[Result]:
    """The same results; a reading process that was ended from outside is a UserError."""
    try:
        yield from results
    except RuntimeError as error:  # PyTorch has no exception of its own for it
        if "DataLoader worker" not in str(error):
            raise
        found = (
            "a process that reads slides was ended from outside, for want of memory perhaps (or of room in /dev/shm)"
        )
        mend = "run again with fewer --workers: what is finished is not repeated"
        raise UserError(Fault("worker.ended", "", found, mend=mend)) from error


# ---- reporting -------------------------------------------------------------------------------------------------------


def _show_plans(plans: Sequence[SlidePlan], finished: int) -> None:
    parents = sum(len(plan.grid.parents) for plan in plans)
    children = sum(plan.grid.num_patches for plan in plans) - parents
    print(f"{len(plans)} slides to extract, {finished} are there already; {parents:,} parents, {children:,} children")
    found = Counter((plan.magnification.value, plan.magnification.origin) for plan in plans)
    for (value, origin), number in found.most_common():
        print(f"  {number} slides: level 0 has {value:g}x by {origin}")
    notes: dict[tuple[bool, str], list[str]] = {}
    for plan in plans:
        if plan.reader.note:
            notes.setdefault((plan.reader.by_tiles, plan.reader.note), []).append(plan.slide_id)
    for (by_tiles, note), names in notes.items():
        way = "their tiles, as --reader asks" if by_tiles else "OpenSlide"
        print(f"  {len(names)} slides are read by {way} ({note}): {listed(names, MOST_SHOWN)}")


def _show_failures(failed: dict[str, UserError], total: int) -> None:
    print(f"failed: {len(failed)} of {total} slides")
    width = max(map(len, failed), default=0)
    for slide_id, error in failed.items():
        print(f"  {slide_id:<{width}}  {'; '.join(map(str, error.faults))}")
    print("main.py refuses slides without features: take their rows out of the table, and make the splits anew")
