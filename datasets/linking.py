"""Existing features of both magnifications linked by coordinates: a hierarchical file for each slide, and a report."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.feature_layouts import AUTO, FeatureLayout, find_source
from datasets.features_model import model_attributes
from datasets.folders import FeatureFolders
from datasets.hierarchy import Hierarchy, build_hierarchy, write_hierarchy
from datasets.link_report import COUNTED, LinkOutcome, show_outcomes
from datasets.patch_sizes import PatchSizes, patch_sizes, stride
from datasets.patches import Patches, read_patches
from datasets.projection import Projection, projection_attributes
from datasets.repair import backup_kept
from datasets.task import read_level0_magnifications
from utils import __version__
from utils.errors import Fault, Faults, UserError
from utils.h5 import read_attributes, read_shapes, write_h5
from utils.outputs import check_outputs
from utils.workers import over_slides

REPLACE = "--overwrite replaces it"


@dataclass(frozen=True)
class LinkOptions:
    """How features are found and linked.

    max_patches: children of a parent at most. low_dir, high_dir: folders of the features of either magnification, or
    one above (default: in the task's). output_dir: of the hierarchical files (default: where main.py reads them).
    layout: a tool's, or whichever is found. seed: of the choice among more than ``max_patches`` children. overwrite:
    make files anew. workers: processes.
    """

    max_patches: int = 16
    low_dir: Path | None = None
    high_dir: Path | None = None
    output_dir: Path | None = None
    layout: str = AUTO
    seed: int = 1
    overwrite: bool = False
    workers: int = 1


@dataclass(frozen=True)
class SourceFile:
    """A slide's file of features at one magnification, as a tool wrote it."""

    layout: FeatureLayout
    file: Path
    magnification: int

    def read(self) -> Patches:
        return self.layout.read(self.file, self.magnification)


@dataclass(frozen=True)
class LinkJob:
    """A slide to link. level0: magnification of its level 0, where the table has it. projection: where it is asked
    for."""

    slide_id: str
    low: SourceFile
    high: SourceFile
    level0: float | None
    folders: FeatureFolders
    options: LinkOptions
    projection: Projection | None

    @property
    def output(self) -> Path:
        own = self.folders.hierarchical_file(self.slide_id)
        return self.options.output_dir / own.name if self.options.output_dir else own


def link_slides(
    folders: FeatureFolders, table: Path | None, options: LinkOptions, projection: Projection | None = None
) -> None:
    """Make the hierarchical file of every slide, and print a report.

    table: the table of slides, read for level0_mag. projection: applied to features from before it. Raises
    UserError where there are no features, and at the end for the slides that failed; the files of others stay.
    """
    jobs, alone = _find_jobs(folders, table, options, projection)
    outcomes = sorted([*alone, *over_slides(link_slide, jobs, options.workers, "linking")], key=lambda o: o.slide_id)
    show_outcomes(outcomes)
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    if faults:
        failed = sum(outcome.state == "failed" for outcome in outcomes)
        print(f"{failed} of {len(outcomes)} slides failed; the files of others stay")
        raise UserError(faults)
    print(f"hierarchical files in {jobs[0].output.parent}")


# ---- finding ---------------------------------------------------------------------------------------------------------


def _find_jobs(
    folders: FeatureFolders, table: Path | None, options: LinkOptions, projection: Projection | None
) -> tuple[list[LinkJob], list[LinkOutcome]]:
    """A job for each slide with files of both magnifications, and the outcome of the others, which failed."""
    scales = folders.low_magnification, folders.high_magnification
    faults = Faults()
    found = [
        faults.attempt(find_source, folders, scale, options.layout, given, name)
        for scale, given, name in zip(
            scales, (options.low_dir, options.high_dir), ("--low-dir", "--high-dir"), strict=True
        )
    ]
    if all(found) and found[0].value.folder.resolve() == found[1].value.folder.resolve():
        told = "found the features of both magnifications in it"
        expected = "two folders, one for each magnification"
        faults.add(Fault("features.same_folder", str(found[0].value.folder), told, expected))
    level0 = faults.attempt(read_level0_magnifications, table) if table else None
    faults.raise_any()
    sources = [source.value for source in found]
    for scale, source in zip(scales, sources, strict=True):
        print(f"{scale}x features: {source.folder} ({source.layout.name} layout)")
    low_files, high_files = (source.files() for source in sources)
    magnifications = level0.value if level0 else {}
    jobs, alone = [], []
    for slide_id in sorted(low_files.keys() | high_files.keys()):
        low, high = (
            SourceFile(source.layout, files[slide_id], scale) if slide_id in files else None
            for source, files, scale in zip(sources, (low_files, high_files), scales, strict=True)
        )
        if low and high:
            jobs.append(LinkJob(slide_id, low, high, magnifications.get(slide_id), folders, options, projection))
        elif there := low or high:
            told = f"no {scales[0] if high else scales[1]}x file of this slide"
            fault = Fault("features.one_scale", str(there.file), told, expected="one at each magnification")
            alone.append(LinkOutcome(slide_id, "failed", [fault]))
    read = [source.file for job in jobs for source in (job.low, job.high)]
    check_outputs(f"--output-dir {options.output_dir}", [job.output for job in jobs], read)
    return jobs, alone


# ---- linking ---------------------------------------------------------------------------------------------------------


def link_slide(job: LinkJob) -> LinkOutcome:
    """Make one slide's files, unless they are there. Faults are reported, not raised: other slides go on."""
    try:
        if not job.options.overwrite and _is_made(job):
            return LinkOutcome(job.slide_id, "skipped")
        return _make_files(job)
    except UserError as error:
        return LinkOutcome(job.slide_id, "failed", error.faults)


def _make_files(job: LinkJob) -> LinkOutcome:
    folders, options = job.folders, job.options
    scales = folders.low_magnification, folders.high_magnification
    low, high = _read_both(job)
    sizes = patch_sizes(low, high, scales, job.level0)
    hierarchy = build_hierarchy(low, high, sizes, options.max_patches, options.seed, job.slide_id)
    if not hierarchy.mask.any():
        told = f"none of {len(high.coords)} children lies in any of {len(low.coords)} parents of {low.file}"
        expected = "coordinates of the same slide, in level-0 pixels"
        raise UserError(Fault("features.unrelated", str(high.file), told, expected))
    made = _provenance(job, low, high)
    for patches, target, size, scale in (
        (low, folders.low_file(job.slide_id), sizes.parent, scales[0]),
        (high, folders.high_file(job.slide_id), sizes.child, scales[1]),
    ):
        told_of = {**made, "magnification": scale, "patch_size_level0": size}
        _copy_features(patches, target, told_of, options.overwrite)
    settings = {"low_magnification": scales[0], "high_magnification": scales[1], "seed": options.seed}
    write_hierarchy(job.output, hierarchy, sizes, {**made, **settings})
    return _outcome(job, low, high, sizes, hierarchy, made.get("projection_warning"))


def _read_both(job: LinkJob) -> tuple[Patches, Patches]:
    """The patches of both magnifications, projected where that is asked for."""
    faults = Faults()
    found = faults.attempt(job.low.read), faults.attempt(job.high.read)
    faults.raise_any()
    low, high = (patches.value for patches in found)
    if job.projection:
        low, high = job.projection.of_patches(low), job.projection.of_patches(high)
    if low.features.shape[1] != high.features.shape[1]:
        told = f"features are {low.features.shape[1]} wide, those of {high.file} {high.features.shape[1]}"
        raise UserError(Fault("features.width", str(low.file), told, expected="the same encoder"))
    return low, high


def _is_made(job: LinkJob) -> bool:
    """Whether a slide's files are there. A file cut off is not. Raises UserError where one was made otherwise."""
    own = job.folders.low_file(job.slide_id), job.folders.high_file(job.slide_id)
    try:
        found, projected_by = read_shapes(job.output), read_attributes(job.output).get("projection_sha256")
        *_, parents, width = read_shapes(job.low.file)["features"]
        width = found["features"][-1] if projected_by else width
    except UserError as error:
        if any(fault.mend for fault in error.faults):  # the file may be whole
            raise
        return False
    except (KeyError, ValueError):
        return False
    children = (parents, job.options.max_patches)
    expected = {"coords": (*children, 2), "features": (*children, width), "mask": children}
    if found != expected:
        told = f"is there, made otherwise: {found}"
        raise UserError(Fault("features.made_otherwise", str(job.output), told, str(expected), REPLACE))
    if job.projection and projected_by != job.projection.sha256:
        told = f"is there, made without --project-with {job.projection.head.told}"
        raise UserError(Fault("features.made_otherwise", str(job.output), told, mend=REPLACE))
    return all(file.is_file() for file in own)


def _copy_features(patches: Patches, target: Path, attributes: dict[str, Any], overwrite: bool) -> None:
    """Write features that lie elsewhere, or in another form, to where main.py reads them; rows keep their order.
    Raises UserError where other features are there already."""
    is_same = target.resolve() == patches.file.resolve()
    if is_same:
        if patches.as_is:
            return
    elif target.exists() and not overwrite:
        there = read_patches(target, attributes["magnification"])
        if np.array_equal(there.features, patches.features) and np.array_equal(there.coords, patches.coords):
            return
        told = f"is there, and differs from {patches.file}"
        raise UserError(Fault("features.made_otherwise", str(target), told, mend=REPLACE))
    with backup_kept(target) if is_same else nullcontext():
        write_h5(target, {"features": patches.features, "coords": patches.coords}, attributes)


def _provenance(job: LinkJob, low: Patches, high: Patches) -> dict[str, Any]:
    """Attributes that say how a slide's files were made."""
    made = {
        "encoder": job.folders.feature_extractor,
        "low_source": str(low.file),
        "high_source": str(high.file),
        "version": __version__,
        **projection_attributes(job.folders, low, high),
        **model_attributes(low, high),
    }
    optional = {
        "simulated": low.attributes.get("simulated"),
        "level0_magnification": low.attributes.get("level0_magnification", job.level0),
    }
    return {**made, **{name: value for name, value in optional.items() if value is not None}}


def _outcome(
    job: LinkJob, low: Patches, high: Patches, sizes: PatchSizes, hierarchy: Hierarchy, projection: str | None
) -> LinkOutcome:
    outcome = LinkOutcome(job.slide_id, "done")
    outcome.sizes = f"{sizes.parent} by {sizes.parent_from}, {sizes.child} by {sizes.child_from}"
    linked = int(hierarchy.mask.sum())
    left_out = hierarchy.dropped, hierarchy.orphans, hierarchy.repeated
    counts = (len(hierarchy.mask), hierarchy.childless, len(high.coords), linked, *left_out)
    outcome.counts.update(dict(zip(COUNTED, counts, strict=True)))
    warnings = outcome.warnings
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
    return outcome
