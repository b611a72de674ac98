"""Link existing low- and high-magnification features by coordinates: a hierarchical file a slide, ready for main.py."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import add_config_option, add_folder_options, add_option
from utils.config import Config
from utils.errors import Faults, UserError, run_script
from utils.options import at_least

if TYPE_CHECKING:
    from datasets.feature_layouts import Patches, PatchSizes
    from datasets.folders import FeatureFolders
    from datasets.hierarchy import Hierarchy
    from datasets.projection import Projection

MOST_NAMED = 5
COUNTED = (
    "parents", "childless parents", "children", "children linked", "children dropped, parent full",
    "children without parent", "children repeated",
)  # fmt: skip


@dataclass(frozen=True)
class SlideJob:
    """One slide's files; None where there is no such file. level0: magnification, where the table has it. projection:
    of CONCH, where it is asked for."""

    slide_id: str
    low: Path | None
    high: Path | None
    low_coords: Path | None
    high_coords: Path | None
    level0: float | None
    folders: "FeatureFolders"
    options: argparse.Namespace
    projection: "Projection | None"

    @property
    def output(self) -> Path:
        own = self.folders.hierarchical_file(self.slide_id)
        return self.options.output_dir / own.name if self.options.output_dir else own


@dataclass
class SlideReport:
    """What became of a slide. state: done, skipped or failed. warnings: {kind: sentence}."""

    slide_id: str
    state: str
    faults: list[str] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    sizes: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)

    add = partial(add_option, parser)
    add_folder_options(parser)
    add("max-patches", type=at_least(1), default=16, help="children a parent at most (default: 16)")
    add("low-dir", type=Path, help="folder of the parents' features, or one above (default: in the dataset's)")
    add("high-dir", type=Path, help="folder of the children's features, or one above")
    add("output-dir", type=Path, help="folder for the hierarchical files (default: main.py's)")
    add("layout", choices=["auto", "reference", "trident", "clam"], default="auto", help="of the features (auto)")
    add_config_option(
        parser, "dataset_csv", help="table of slides, read for level0_mag (default: dataset_csv/<task>.csv)"
    )
    workers = min(8, os.cpu_count() or 1)
    add("workers", type=at_least(1), default=workers, help=f"processes (default: {workers})")
    add("seed", type=at_least(0), default=1, help="of the choice among more than --max-patches children (default: 1)")
    add("overwrite", action="store_true", help="make files anew that are there already")
    text = "CONCH's pytorch_model.bin: project and normalise CONCH features from before the projection"
    add("project-with", type=Path, help=text)
    options = parser.parse_args(argv)
    if not 0 < options.low_mag < options.high_mag:
        parser.error(f"--low-mag {options.low_mag} --high-mag {options.high_mag}: expected the first to be lower")
    return options


def plan(options: argparse.Namespace) -> list[SlideJob]:
    """Find the features of both scales; a job a slide. Raises UserError where there are none."""
    from conch.image_tower import read_projection
    from datasets.feature_layouts import find_source, read_level0_magnifications
    from datasets.folders import FeatureFolders
    from datasets.projection import load_projection

    root, name, extractor = options.data_root_dir, options.task, options.feature_extractor
    folders = FeatureFolders(root, name, extractor, options.low_mag, options.high_mag)
    faults = Faults()
    low = faults.maybe(find_source, folders, options.low_mag, options.layout, options.low_dir, "--low-dir")
    high = faults.maybe(find_source, folders, options.high_mag, options.layout, options.high_dir, "--high-dir")
    if low and high and low.folder.resolve() == high.folder.resolve():
        faults.add(f"{low.folder}: expected two folders, one for each magnification")
    table = Config(task=name, dataset_csv=options.dataset_csv).csv_path()
    level0: dict[str, float] = {}
    if options.dataset_csv or table.is_file():
        level0 = faults.maybe(read_level0_magnifications, table) or {}
    projection = options.project_with and faults.maybe(load_projection, options.project_with, read_projection)
    faults.raise_any()
    assert low and high
    for scale, source in ((options.low_mag, low), (options.high_mag, high)):
        print(f"{scale}x features: {source.folder} ({source.layout} layout)")
    low_files, high_files = low.files(), high.files()
    job = partial(SlideJob, folders=folders, options=options, projection=projection)
    return [
        job(slide_id, low_files.get(slide_id), high_files.get(slide_id), *coords, level0.get(slide_id))
        for slide_id in sorted(low_files.keys() | high_files.keys())
        for coords in [(low.coords_file(slide_id), high.coords_file(slide_id))]
    ]


def link_slide(job: SlideJob) -> SlideReport:
    """Make one slide's files, unless they are there. Faults are reported, not raised: other slides go on."""
    try:
        return make_files(job)
    except UserError as error:
        return SlideReport(job.slide_id, "failed", list(map(str, error.faults)))
    except OSError as error:
        return SlideReport(job.slide_id, "failed", [f"{job.output}: not written ({error})"])


def make_files(job: SlideJob) -> SlideReport:
    from datasets.feature_layouts import patch_sizes, read_patches
    from datasets.hierarchy import build_hierarchy, write_hierarchy

    folders = job.folders
    low_mag, high_mag = folders.low_magnification, folders.high_magnification
    for file, other, missing in ((job.low, job.high, low_mag), (job.high, job.low, high_mag)):
        if file is None:
            raise UserError(f"{other}: no {missing}x file of this slide; expected one at each magnification")
    assert job.low and job.high
    if not job.options.overwrite and is_made(job, job.low):
        return SlideReport(job.slide_id, "skipped")
    faults = Faults()
    low = faults.maybe(read_patches, job.low, low_mag, job.low_coords)
    high = faults.maybe(read_patches, job.high, high_mag, job.high_coords)
    faults.raise_any()
    assert low and high
    if low.features.shape[1] != high.features.shape[1]:
        raise UserError(
            f"{low.file}: features are {low.features.shape[1]} wide, those of {high.file} {high.features.shape[1]}; "
            "expected the same encoder"
        )
    if job.projection:
        low, high = job.projection.of_patches(low), job.projection.of_patches(high)
    sizes = patch_sizes(low, high, (low_mag, high_mag), job.level0)
    hierarchy = build_hierarchy(low, high, sizes, job.options.max_patches, job.options.seed, job.slide_id)
    if not hierarchy.mask.any():
        raise UserError(
            f"{high.file}: none of {len(high.coords)} children lies in any of {len(low.coords)} parents of {low.file}; "
            "expected coordinates of the same slide, in level-0 pixels"
        )
    made = provenance(job, low, high)
    for patches, target, size, scale in (
        (low, folders.low_file(job.slide_id), sizes.parent, low_mag),
        (high, folders.high_file(job.slide_id), sizes.child, high_mag),
    ):
        copy_features(patches, target, {**made, "magnification": scale, "patch_size_level0": size}, job)
    settings = {"low_magnification": low_mag, "high_magnification": high_mag, "seed": job.options.seed}
    write_hierarchy(job.output, hierarchy, sizes, {**made, **settings})
    return report_of(job, low, high, sizes, hierarchy, made.get("projection_warning"))


def is_made(job: SlideJob, low_file: Path) -> bool:
    """Whether a slide's files are there. A file cut off is not. Raises UserError where one was made otherwise."""
    import h5py

    own = job.folders.low_file(job.slide_id), job.folders.high_file(job.slide_id)
    try:
        with h5py.File(job.output) as made, h5py.File(low_file) as low:
            found = {name: getattr(made[name], "shape", None) for name in made}
            projected_by = made.attrs.get("projection_sha256")
            *_, parents, width = low["features"].shape
    except (OSError, RuntimeError, KeyError, ValueError):
        return False
    children = (parents, job.options.max_patches)
    expected = {"coords": (*children, 2), "features": (*children, width), "mask": children}
    if found != expected:
        raise UserError(
            f"{job.output}: is there, made otherwise: {found}, expected {expected}; --overwrite replaces it"
        )
    if job.projection and projected_by != job.projection.sha256:
        raise UserError(
            f"{job.output}: is there, made without --project-with {job.projection.file}; --overwrite replaces it"
        )
    return all(file.is_file() for file in own)


def copy_features(patches: "Patches", target: Path, attributes: dict[str, Any], job: SlideJob) -> None:
    """Write features that lie elsewhere, or in another form, to where main.py reads them; rows keep their order.
    Raises UserError where other features are there already."""
    import numpy as np

    from datasets.consistency import keep_backup
    from datasets.feature_layouts import read_patches
    from utils.h5 import write_h5

    if target.resolve() == patches.file.resolve():
        if patches.as_is:
            return
        keep_backup(target)
    elif target.exists() and not job.options.overwrite:
        there = read_patches(target, attributes["magnification"])
        if np.array_equal(there.features, patches.features) and np.array_equal(there.coords, patches.coords):
            return
        raise UserError(f"{target}: is there, and differs from {patches.file}; --overwrite replaces it")
    write_h5(target, {"features": patches.features, "coords": patches.coords}, attributes)


def provenance(job: SlideJob, low: "Patches", high: "Patches") -> dict[str, Any]:
    """Attributes that say how a slide's files were made."""
    from datasets.projection import projection_attributes
    from utils import __version__

    made = {
        "encoder": job.folders.feature_extractor,
        "low_source": str(low.file),
        "high_source": str(high.file),
        "version": __version__,
        **projection_attributes(job.folders, low, high),
    }
    optional = {
        "simulated": low.attributes.get("simulated"),
        "level0_magnification": low.attributes.get("level0_magnification", job.level0),
    }
    return {**made, **{name: value for name, value in optional.items() if value is not None}}


def report_of(
    job: SlideJob, low: "Patches", high: "Patches", sizes: "PatchSizes", hierarchy: "Hierarchy", projection: str | None
) -> SlideReport:
    from datasets.feature_layouts import stride

    report = SlideReport(job.slide_id, "done")
    report.sizes = f"{sizes.parent} by {sizes.parent_from}, {sizes.child} by {sizes.child_from}"
    linked = int(hierarchy.mask.sum())
    left_out = hierarchy.dropped, hierarchy.orphans, hierarchy.repeated
    counts = (len(hierarchy.mask), hierarchy.childless, len(high.coords), linked, *left_out)
    report.counts.update(dict(zip(COUNTED, counts, strict=True)))
    warnings = report.warnings
    if projection:
        warnings["projection"] = projection
    if hierarchy.dropped:
        warnings["full parents"] = (
            f"{hierarchy.crowded} parents have more than --max-patches {job.options.max_patches} children; "
            f"{hierarchy.dropped} were left out, by a draw with --seed {job.options.seed}"
        )
    if 2 * hierarchy.orphans > len(high.coords):
        warnings["children without parent"] = f"{hierarchy.orphans} of {len(high.coords)} children lie in no parent"
    side, expected = sizes.parent / sizes.child, job.folders.high_magnification / job.folders.low_magnification
    if side != expected:
        warnings["ratio"] = f"a parent is {side:g} children wide; the magnifications say {expected:g}"
    for patches, size in ((low, sizes.parent), (high, sizes.child)):
        step = stride(patches.coords)
        if step and step[1] and step[0] != size:
            warnings["stride"] = f"{patches.file.name}: patches are {size} level-0 pixels wide, but {step[0]} apart"
    return report


def show(reports: list[SlideReport]) -> None:
    """Print the summary table and what should be looked at."""
    states = Counter(report.state for report in reports)
    totals = sum((report.counts for report in reports), Counter[str]())
    rows = {f"slides {state}": states[state] for state in ("done", "skipped", "failed")}
    for name, number in {**rows, **{name: totals[name] for name in COUNTED}}.items():
        print(f"{name:<30} {number:>10,}")
    for sizes, number in Counter(report.sizes for report in reports if report.sizes).most_common():
        print(f"patch sizes in level-0 pixels: {sizes} ({number} slides)")
    for kind in dict.fromkeys(kind for report in reports for kind in report.warnings):
        warned = [report for report in reports if kind in report.warnings]
        print(f"warning: {kind}: {len(warned)} slides")
        for report in warned[:MOST_NAMED]:
            print(f"  {report.slide_id}: {report.warnings[kind]}")
        if len(warned) > MOST_NAMED:
            print(f"  ... and {len(warned) - MOST_NAMED} more")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from utils.workers import over_slides

    jobs = plan(options)
    reports = over_slides(link_slide, jobs, options.workers, "linking")
    show(reports)
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        failed = sum(report.state == "failed" for report in reports)
        raise UserError("\n  - ".join([f"{failed} of {len(reports)} slides failed; the files of others stay", *faults]))
    print(f"hierarchical files in {jobs[0].output.parent}")


if __name__ == "__main__":
    sys.exit(run_script(main))
