"""Turn slides into main.py's features: 5x and 20x patches of the tissue, encoded, and linked, in one pass."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utils.config import add_folder_options, add_option, at_least
from utils.errors import UserError, run_script

if TYPE_CHECKING:
    import torch

    from datasets.extraction_plan import SlideJob, SlidePlan
    from datasets.folders import FeatureFolders
    from datasets.slides import Magnification
    from models.vlms import ImageSide

PRECISIONS = ("fp32", "fp16", "bf16")
HIGHEST_MAGNIFICATION = 160

Result = TypeVar("Result")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = partial(add_option, parser)
    add("wsi-dir", type=Path, required=True, help="folder with the slides, searched through")
    add_folder_options(parser)
    add("vlm-path", help="the encoder: Hugging Face CLIP folder, CONCH pytorch_model.bin, open_clip folder, or hub id")
    add("dataset-csv", type=Path, help="table of slides: only those it names; its level0_mag counts where no tag tells")
    add("level0-mag", type=nominal, help="magnification of level 0 of slides that no tag or table tells")
    add("min-tissue", type=share, default=0.1, help="least share of tissue in a patch (default: 0.1)")
    add("stain-normalisation", choices=["none", "macenko"], default="none", help="of each slide's colours (none)")
    add("batch-size", type=at_least(1), default=256, help="patches encoded together, about (default: 256)")
    workers = min(16, os.cpu_count() or 1)
    add("workers", type=at_least(0), default=workers, help=f"processes that read slides (default: {workers})")
    add("device", help="cpu, cuda or cuda:<n> (default: cuda where there is one)")
    add("precision", choices=PRECISIONS, help="of the encoder (default: fp16 on CUDA, fp32 elsewhere)")
    add("no-thumbnails", action="store_true", help="do not draw each slide with its mask and grid")
    add("skip-errors", action="store_true", help="go on with other slides, and list at the end what failed and why")
    add("overwrite", action="store_true", help="replace files that are damaged or were made with other settings")
    return parser.parse_args(argv)


def share(text: str) -> float:
    value = at_least(0, float)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than 1")
    return value


def nominal(text: str) -> float:
    value = at_least(1, float)(text)
    if value > HIGHEST_MAGNIFICATION:
        raise argparse.ArgumentTypeError(f"{text} is no magnification of a slide; expected 20 or 40, say")
    return value


# ---- looking ---------------------------------------------------------------------------------------------------------


def list_slides(options: argparse.Namespace) -> dict[str, tuple[Path, "Magnification | None"]]:
    """{slide_id: (file, magnification as the user says)}: all in the folder, or those that the table names. Raises
    UserError where one is missing."""
    from datasets.feature_layouts import read_level0_magnifications
    from datasets.slides import Magnification, find_slides
    from datasets.task import read_table

    table = options.dataset_csv
    level0 = read_level0_magnifications(table) if table else {}
    files = find_slides(options.wsi_dir, list(read_table(table)["slide_id"]) if table else None)
    given = {slide_id: Magnification(value, "column level0_mag") for slide_id, value in level0.items()}
    default = Magnification(options.level0_mag, "--level0-mag") if options.level0_mag else None
    return {slide_id: (file, given.get(slide_id, default)) for slide_id, file in files.items()}


def look(job: "SlideJob") -> "SlidePlan | list[str] | None":
    """The slide's plan, None where it is finished already, or what is wrong with it."""
    from datasets.extraction_plan import plan_slide

    try:
        return plan_slide(job)
    except UserError as error:
        return list(map(str, error.faults))


# ---- encoding --------------------------------------------------------------------------------------------------------


def batch_encoder(encoder: "ImageSide", device: "torch.device", precision: str) -> Callable[["torch.Tensor"], Any]:
    """uint8 patches on the CPU -> features; a batch too large for the device is a UserError."""
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    encoder = encoder.to(device)

    @torch.inference_mode()
    def encode(patches: torch.Tensor) -> torch.Tensor:
        try:
            with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                return encoder.encode_images(patches.to(device, non_blocking=True))
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{len(patches)} patches do not fit into the memory of {device}; lower --batch-size"
            ) from error

    return encode


def unless_ended(results: Iterator[Result]) -> Iterator[Result]:
    """The same results; a reading process that was ended from outside is a UserError."""
    try:
        yield from results
    except RuntimeError as error:  # PyTorch has no exception of its own for it
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that reads slides was ended from outside, for want of memory perhaps (or of room in /dev/shm); "
            "run again with fewer --workers: what is finished is not repeated"
        ) from error


def encode_slides(
    plans: Sequence["SlidePlan"], folders: "FeatureFolders", encoder: "ImageSide", options: argparse.Namespace
) -> dict[str, str]:
    """Extract and write; {slide_id: what was wrong} of slides that could not be read. Without --skip-errors the first
    such slide raises a UserError."""
    from tqdm import tqdm

    from datasets.slide_features import SlideFeatures, extract_features, write_slide
    from utils.reproducibility import choose_device

    device = choose_device(options.device)
    precision = options.precision or ("fp16" if device.type == "cuda" else "fp32")
    encode = batch_encoder(encoder, device, precision)
    failed: dict[str, str] = {}
    started = time.monotonic()
    with tqdm(total=sum(plan.grid.num_patches for plan in plans), desc="encoding", unit="patch", disable=None) as bar:
        results = extract_features(
            plans, encode, encoder.output_dim, options.batch_size, options.workers, device.type == "cuda", bar.update
        )
        for number, result in enumerate(unless_ended(results), 1):
            if isinstance(result, SlideFeatures):
                write_slide(folders, result, precision)
            else:
                plan, fault = result
                failed[plan.slide_id] = fault
                if not options.skip_errors:
                    raise UserError(f"{fault}; --skip-errors goes on with the other slides")
            bar.set_postfix_str(f"{number}/{len(plans)} slides, {number / (time.monotonic() - started):.3g} slides/s")
    seconds, patches = (
        time.monotonic() - started,
        sum(plan.grid.num_patches for plan in plans if plan.slide_id not in failed),
    )
    print(
        f"encoded {patches:,} patches in {seconds:.0f} s on {device}, {precision} ({patches / seconds:.0f} patches/s)"
    )
    return failed


# ---- reporting -------------------------------------------------------------------------------------------------------


def show_plans(plans: Sequence["SlidePlan"], finished: int) -> None:
    parents = sum(len(plan.grid.parents) for plan in plans)
    children = sum(plan.grid.num_patches for plan in plans) - parents
    print(f"{len(plans)} slides to extract, {finished} are there already; {parents:,} parents, {children:,} children")
    for (value, origin), number in Counter(
        (p.magnification.value, p.magnification.origin) for p in plans
    ).most_common():
        print(f"  {number} slides: level 0 has {value:g}x by {origin}")


def show_failures(failed: dict[str, str], total: int) -> None:
    print(f"failed: {len(failed)} of {total} slides")
    width = max(map(len, failed), default=0)
    for slide_id, fault in failed.items():
        print(f"  {slide_id:<{width}}  {fault}")
    print("main.py refuses slides without features: take their rows out of the table, and make the splits anew")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.extraction_plan import Settings, SlideJob, SlidePlan
    from datasets.folders import FeatureFolders
    from models.vlms import load_image_side
    from utils.workers import over_slides

    root, name, extractor = options.dataset_root_path, options.dataset_name, options.feature_extractor_name
    folders = FeatureFolders(root, name, extractor, options.low_mag, options.high_mag)
    slides = list_slides(options)
    encoder = load_image_side(extractor, options.vlm_path)
    made = {
        "encoder": extractor,
        "encoder_sha256": encoder.fingerprint(),
        "projected": encoder.projected,
        "normalised": encoder.normalised,
    }
    settings = Settings(options.low_mag, options.high_mag, options.min_tissue, options.stain_normalisation, made)
    drawn = None if options.no_thumbnails else folders.root / "thumbnails"
    jobs = [
        SlideJob(slide_id, file, given, settings, folders, drawn and drawn / f"{slide_id}.jpg", options.overwrite)
        for slide_id, (file, given) in slides.items()
    ]
    looked = over_slides(look, jobs, options.workers, "finding tissue")
    failed = {
        job.slide_id: "; ".join(found) for job, found in zip(jobs, looked, strict=True) if isinstance(found, list)
    }
    if failed and not options.skip_errors:
        print("--skip-errors goes on with the other slides", file=sys.stderr)
        raise UserError(list(failed.values()))
    plans = [found for found in looked if isinstance(found, SlidePlan)]
    show_plans(plans, sum(found is None for found in looked))
    if plans:
        failed |= encode_slides(plans, folders, encoder, options)
    if failed:
        show_failures(failed, len(jobs))
    if len(failed) == len(jobs):
        raise UserError(f"{options.wsi_dir}: none of {len(jobs)} slides could be extracted")
    print(f"features in {folders.root}")
    print(f"to check them: {folders.check_command()}")


if __name__ == "__main__":
    sys.exit(run_script(main))
