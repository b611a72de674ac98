"""Existing features of both magnifications linked by coordinates: a hierarchical file for each slide, and a report."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from datasets.features_model import model_attributes
from datasets.folders import FeatureFolders
from datasets.hierarchy import write_hierarchy
from datasets.link_jobs import LinkJob, LinkOptions, SourceFile, alone_told, find_jobs
from datasets.link_report import COUNTED, LinkOutcome, show_outcomes
from datasets.link_rules import CENTRE
from datasets.linked_patches import LinkedPatches, link_patches
from datasets.patch_sizes import size_from_attributes, stride
from datasets.patches import Patches, read_patches, shape_of_features
from datasets.projection import Projection, projection_attributes
from datasets.repair import backup_kept
from utils import __version__
from utils.errors import Fault, Faults, UserError
from utils.h5 import read_attributes, read_shapes, write_h5
from utils.outputs import check_outputs
from utils.workers import over_slides

NEARLY = 0.01
"""Share of a patch by which neighbours may lie nearer or farther: coordinates are rounded."""
REPLACE = "--overwrite replaces it"


def link_slides(
    folders: FeatureFolders, table: Path | None, options: LinkOptions, projection: Projection | None = None
) -> None:
    """Make the hierarchical file of every slide, and print a report.

    Where there are features of the high magnification alone, they are copied to where main.py reads them. table: the
    table of slides, read for level0_mag and mpp. projection: applied to features from before it. Raises UserError where
    there are no features, and at the end for the slides that failed; the files of others stay.
    """
    jobs, alone = find_jobs(folders, table, options, projection)
    read = [source.file for job in jobs for source in (job.low, job.high) if source]
    check_outputs(f"--output-dir {options.output_dir}", [job.output for job in jobs if job.low], read)
    outcomes = sorted([*alone, *over_slides(link_slide, jobs, options.workers, "linking")], key=lambda o: o.slide_id)
    show_outcomes(outcomes)
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    if faults:
        failed = sum(outcome.state == "failed" for outcome in outcomes)
        print(f"{failed} of {len(outcomes)} slides failed; the files of others stay")
        raise UserError(faults)
    is_linked = jobs[0].low is not None
    print(f"hierarchical files in {jobs[0].output.parent}" if is_linked else f"note: {alone_told(folders)}")


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
    if job.low is None:
        return _copy_alone(job, job.high)
    folders, options = job.folders, job.options
    scales = folders.low_magnification, folders.high_magnification
    low, high = _read([job.low, job.high], job.projection)
    linked = link_patches(low, high, scales, job.level0, job.slide_id, options.linking)
    made = _provenance(job, low, high)
    for patches, target, size, scale in (
        (low, folders.low_file(job.slide_id), linked.sizes.parent, scales[0]),
        (high, folders.high_file(job.slide_id), linked.sizes.child, scales[1]),
    ):
        told_of = {**made, "magnification": scale, "patch_size_level0": size}
        _copy_features(patches, target, told_of, options.overwrite)
    settings = {"low_magnification": scales[0], "high_magnification": scales[1], "seed": options.linking.seed}
    write_hierarchy(job.output, linked.hierarchy, linked.sizes, {**made, **settings})
    return _outcome(job, linked, made.get("projection_warning"))


def _copy_alone(job: LinkJob, source: SourceFile) -> LinkOutcome:
    """Features of the high magnification alone, to where main.py reads them."""
    (high,) = _read([source], job.projection)
    size = size_from_attributes(high)
    made = {**_provenance(job, high, high), "magnification": source.magnification}
    told_of = {**made, "patch_size_level0": size} if size else made
    _copy_features(high, job.folders.high_file(job.slide_id), told_of, job.options.overwrite)
    outcome = LinkOutcome(job.slide_id, "done")
    outcome.counts["children"] = len(high.coords)
    if warning := made.get("projection_warning"):
        outcome.warnings["projection"] = warning
    return outcome


def _read(sources: Sequence[SourceFile], projection: Projection | None) -> list[Patches]:
    """The patches of some files, projected where that is asked for."""
    faults = Faults()
    found = [faults.attempt(source.read) for source in sources]
    faults.raise_any()
    return [projection.of_patches(patches.value) if projection else patches.value for patches in found]


def _is_made(job: LinkJob) -> bool:
    """Whether a slide's files are there. A file cut off is not. Raises UserError where one was made otherwise."""
    own = job.folders.low_file(job.slide_id), job.folders.high_file(job.slide_id)
    if job.low is None:  # _copy_features compares what is there
        return False
    try:
        found, told = read_shapes(job.output), read_attributes(job.output)
        *_, parents, width = shape_of_features(job.low.file)
        projected_by = told.get("projection_sha256")
        width = found["features"][-1] if projected_by else width
    except UserError as error:
        if any(fault.mend for fault in error.faults):  # the file may be whole
            raise
        return False
    except (KeyError, ValueError):
        return False
    linking = job.options.linking
    children = (parents, linking.max_patches)
    expected = {"coords": (*children, 2), "features": (*children, width), "mask": children}
    if found != expected:
        is_there = f"is there, made otherwise: {found}"
        raise UserError(Fault("features.made_otherwise", str(job.output), is_there, str(expected), REPLACE))
    if (rule := told.get("link_rule", CENTRE)) != linking.rule:
        is_there = f"is there, made with --link-rule {rule}"
        raise UserError(Fault("features.made_otherwise", str(job.output), is_there, linking.rule, REPLACE))
    if job.projection and projected_by != job.projection.sha256:
        is_there = f"is there, made without --project-with {job.projection.head.told}"
        raise UserError(Fault("features.made_otherwise", str(job.output), is_there, mend=REPLACE))
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
        **({"low_source": str(low.file)} if job.low else {}),
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


def _outcome(job: LinkJob, linked: LinkedPatches, projection: str | None) -> LinkOutcome:
    low, high, sizes, hierarchy = linked
    outcome = LinkOutcome(job.slide_id, "done")
    outcome.sizes = f"{sizes.parent} by {sizes.parent_from}, {sizes.child} by {sizes.child_from}"
    number = int(hierarchy.mask.sum())
    left_out = hierarchy.dropped, hierarchy.orphans, hierarchy.repeated
    counts = (len(hierarchy.mask), hierarchy.childless, len(high.coords), number, *left_out)
    outcome.counts.update(dict(zip(COUNTED, counts, strict=True)))
    warnings, linking = outcome.warnings, job.options.linking
    if projection:
        warnings["projection"] = projection
    if hierarchy.dropped:
        warnings["full parents"] = (
            f"{hierarchy.crowded} parents have more than --max-patches {linking.max_patches} children; "
            f"{hierarchy.dropped} were left out, by a draw with --seed {linking.seed}"
        )
    if 2 * hierarchy.orphans > len(high.coords):
        warnings["children without parent"] = f"{hierarchy.orphans} of {len(high.coords)} children lie in no parent"
    side, expected = sizes.parent / sizes.child, job.folders.high_magnification / job.folders.low_magnification
    if side != expected:
        warnings["ratio"] = f"a parent is {side:g} children wide; the magnifications say {expected:g}"
    for patches, size, magnification in (
        (low, sizes.parent, job.folders.low_magnification),
        (high, sizes.child, job.folders.high_magnification),
    ):
        step = stride(patches.coords)
        if step and step[1] and abs(step[0] - size) > NEARLY * size:
            told = f"patches at {magnification}x are {size} level-0 pixels wide, but {step[0]} apart"
            warnings["stride"] = f"{warnings['stride']}; {told}" if "stride" in warnings else told
    return outcome
