"""From slides to features: the slides are found and planned, their patches encoded, and a task's files written."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.extraction_plan import FeatureRecipe, FirstLook, PlanJob, SlidePlan, plan_slide
from datasets.failed_slides import many_inks, refuse, write_failures
from datasets.folders import FeatureFolders
from datasets.given_masks import find_masks, missing_mask
from datasets.slide_features import Encode, SlideFeatures, extract_features, write_slide_features
from datasets.slide_search import search_slides
from datasets.slides import Magnification, doubtful
from datasets.task import read_forced_magnifications, read_level0_magnifications, read_table
from utils.errors import Fault, UserError
from utils.model_identity import ModelIdentity
from utils.reproducibility import choose_device, make_deterministic
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
    of slides that neither tells. force_magnification: that of all slides, whatever their tags tell. min_tissue: least
    share of tissue in a patch. tissue_threshold: of the saturation (default: Otsu's). tissue_mask: a folder of masks
    that say where tissue is (``find_masks``). stain_normalisation: none or macenko.
    batch_size: patches encoded together, about. workers: processes that read slides. device: cpu, cuda, cuda:<n>, or
    CUDA where there is one. precision: fp32, fp16 or bf16 of the encoder (default: fp16 on CUDA, fp32 elsewhere).
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

    Returns the ids of the slides that have features now. Raises UserError where a slide is missing or fails (with
    ``skip_errors`` where all do); the files of slides that were finished before stay.
    """
    jobs, failed = _plan_jobs(folders, wsi_dir, encoder, options)
    number = len(jobs) + len(failed)
    if failed and not options.skip_errors:
        refuse(failed, wsi_dir, number, folders.root)
    looked = dict(
        zip((job.slide_id for job in jobs), over_slides(_look, jobs, options.workers, "finding tissue"), strict=True)
    )
    failed |= {slide_id: found for slide_id, found in looked.items() if isinstance(found, UserError)}
    seen = {slide_id: found for slide_id, found in looked.items() if isinstance(found, FirstLook)}
    _show_notes([*doubtful({slide_id: found.magnification for slide_id, found in seen.items()}),
                 *many_inks({slide_id: found.ink for slide_id, found in seen.items()})])  # fmt: skip
    if failed and not options.skip_errors:
        refuse(failed, wsi_dir, number, folders.root)
    plans = [found.plan for found in seen.values() if found.plan]
    _show_plans(plans, len(seen) - len(plans))
    if plans:
        failed |= _encode_slides(plans, folders, encoder, options)
    if failed:
        _show_failures(failed, number)
        write_failures(failed, folders.root)
    if len(failed) == number:
        found = f"none of {number} slides could be extracted"
        raise UserError(Fault("slide.all_failed", str(wsi_dir), found))
    print(f"features in {folders.root}")
    print(f"to check them: {folders.check_command()}")
    return [job.slide_id for job in jobs if job.slide_id not in failed]


# ---- looking ---------------------------------------------------------------------------------------------------------


def _plan_jobs(
    folders: FeatureFolders, wsi_dir: Path, encoder: PatchEncoder, options: ExtractionOptions
) -> tuple[list[PlanJob], dict[str, UserError]]:
    """A job for each slide, and what is wrong with slides that cannot have one."""
    table = options.dataset_csv
    slides = search_slides(wsi_dir, list(read_table(table)["slide_id"]) if table else None)
    _show_notes(slides.notes)
    failed = {slide_id: UserError(fault) for slide_id, fault in slides.faults.items()}
    masks = find_masks(options.tissue_mask) if options.tissue_mask else None
    if masks is not None:
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
        {"encoder": folders.feature_extractor, **encoder.identity().attributes()},
        options.tissue_threshold,
    )
    drawn = None if options.no_thumbnails else folders.root / "thumbnails"
    jobs = [
        PlanJob(
            slide_id, file, given(slide_id), recipe, folders, drawn and drawn / f"{slide_id}.jpg", options.overwrite,
            forced(slide_id), masks[slide_id] if masks else None,
        )
        for slide_id, file in slides.files.items() if slide_id not in failed
    ]  # fmt: skip
    return jobs, failed


def _told(
    column: Mapping[str, float], name: str, value: float | None, option: str
) -> Callable[[str], Magnification | None]:
    """What the user says of a slide's magnification: the table's column, else the option for all slides."""
    for_all = Magnification(value, option) if value else None
    of_slides = {slide_id: Magnification(number, f"column {name}") for slide_id, number in column.items()}
    return lambda slide_id: of_slides.get(slide_id, for_all)


def _look(job: PlanJob) -> FirstLook | UserError:
    """What the first look at the slide finds, or what is wrong with the slide."""
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


def _show_notes(notes: Sequence[Fault]) -> None:
    for note in notes:
        print(f"note: {note}")


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
