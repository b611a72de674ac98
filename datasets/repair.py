"""Hierarchical files written anew, from the low and high files of the same slides or from their own children."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.consistency import row_owners
from datasets.features_model import model_attributes
from datasets.folders import FeatureFolders
from datasets.hierarchy import Stored, gather_children, read_stored, write_hierarchy
from datasets.link_rules import CENTRE, RELEASED
from datasets.links import Links, find_rows, link, repeated_rows
from datasets.patch_sizes import PatchSizes, patch_sizes
from datasets.patches import Patches, read_patches
from datasets.projection import Projection, projection_attributes
from utils.errors import Fault, UserError
from utils.h5 import write_h5
from utils.whole_files import whole_file

CHILDREN_PER_PARENT = 16  # of a file that is made anew
DEFAULT_SEED = 1  # of a file that tells none


def repair_slide(
    folders: FeatureFolders, slide_id: str, level0: float | None = None, projection: Projection | None = None
) -> None:
    """Write the slide's hierarchical file anew and keep the old one as .bak: from the low and high files or, without a
    high file, from its own children, which stay in their row's parent where they lie in it.

    level0: magnification of level 0, where neither attributes nor coordinates tell the patch sizes. projection: applied
    beforehand to those features that need it; the low and high files are then written anew too. Where it is
    interrupted, another call does what is left.

    Raises UserError, leaving all as it is, where these files are faulty or no child lies in any parent.
    """
    file, high_file = folders.hierarchical_file(slide_id), folders.high_file(slide_id)
    magnifications = folders.low_magnification, folders.high_magnification
    has_high = high_file.is_file()
    stored = _read_if_possible(file) if has_high else _with_all_children(read_stored(file))
    found = (
        read_patches(folders.low_file(slide_id), magnifications[0]),
        stored.children() if stored and not has_high else read_patches(high_file, magnifications[1]),
    )
    low, children = (
        projection.of_patches(patches) if projection and projection.needed_by(patches) else patches for patches in found
    )
    said = dict(stored.attributes) if stored else {}
    seed = said.get("seed", DEFAULT_SEED)
    seed = int(seed) if isinstance(seed, int | np.integer) and seed >= 0 else DEFAULT_SEED
    sizes = patch_sizes(low, children, magnifications, level0)
    rule = _rule(stored, low, children, sizes) if stored else CENTRE
    if stored and not has_high:
        children, links = _kept_links(rule, children, stored, low, sizes)
    else:
        links = link(rule, low.coords, children.coords, sizes)
    slots = stored.real.shape[1] if stored else CHILDREN_PER_PARENT
    hierarchy = gather_children(links, rule, low, children, sizes, slots, seed, slide_id)
    if not hierarchy.mask.any():
        told = f"not repaired, no child would lie in any parent of {low.file}"
        raise UserError(Fault("features.unrelated", str(file), told))
    _write_projected([pair for pair in zip(found, (low, children), strict=True) if pair[1].file != file])
    for name in ("projection_warning", "projection_sha256", "model_family", "model_name", "model_sha256"):
        said.pop(name, None)
    made = {
        **projection_attributes(folders, low, children),
        **model_attributes(low, children),
        "encoder": folders.feature_extractor,
        "low_magnification": magnifications[0],
        "high_magnification": magnifications[1],
        "seed": seed,
        "repaired_from": "low and high files" if has_high else "low file and its own children",
    }
    with backup_kept(file):
        write_hierarchy(file, hierarchy, sizes, {**said, **made})


def _write_projected(pairs: list[tuple[Patches, Patches]]) -> None:
    """Write those patches that were changed, (before, after), to their files; the old files stay as .bak."""
    for before, after in pairs:
        if after is not before:
            with backup_kept(after.file):
                write_h5(after.file, {"features": after.features, "coords": after.coords}, after.attributes)


def _with_all_children(stored: Stored) -> Stored:
    """Rows with features and a place of their own are children, whatever the mask says. Raises UserError where one has
    NaN or infinite values."""
    if stored.mask is not None:
        stored = stored._replace(real=stored.nonzero & (stored.mask | stored.coords.any(-1)))
    if not np.isfinite(stored.children().norms).all():
        told = "not repaired, it has NaN or infinite values"
        raise UserError(Fault("features.values", str(stored.file), told, mend="extract this slide again"))
    return stored


def _rule(stored: Stored, low: Patches, children: Patches, sizes: PatchSizes) -> str:
    """The file's rule; of a file that does not say its rule ``centre`` where both give the same links."""
    if "link_rule" in stored.attributes:
        return stored.rule
    both = [link(rule, low.coords, children.coords, sizes) for rule in (CENTRE, stored.rule)]
    return CENTRE if all(map(np.array_equal, *both)) else stored.rule


def _kept_links(rule: str, children: Patches, stored: Stored, low: Patches, sizes: PatchSizes) -> tuple[Patches, Links]:
    """The children of the file, and their parents: their row's, and those that the rule gives where they lie outside
    their row's. By the rule ``released`` each child is there once, with all its parents."""
    owners, outside = row_owners(stored, low, sizes)
    in_place = Links(np.flatnonzero(~outside), owners[np.nonzero(stored.real)[0][~outside]])
    elsewhere = link(rule, low.coords, children.coords, sizes).without(~outside)
    pairs = np.column_stack([np.concatenate(both) for both in zip(in_place, elsewhere, strict=True)])
    if rule == RELEASED:
        distinct = np.flatnonzero(~repeated_rows(children.coords))
        pairs[:, 0] = find_rows(children.coords[pairs[:, 0]], children.coords[distinct])
        children = replace(children, features=children.features[distinct], coords=children.coords[distinct])
    return children, Links(*np.unique(pairs, axis=0).T)


def _read_if_possible(file: Path) -> Stored | None:
    try:
        return read_stored(file)
    except UserError:
        return None


@contextmanager
def backup_kept(file: Path) -> Iterator[None]:
    """Keep what a file holds, where it is there, while the block replaces it: as <file>.bak, or .bak2 and so on; no
    earlier one is touched. Where the block fails, the file is as it was and the second name goes."""
    if not file.exists():
        yield
        return
    backup = _second_name(file)
    try:
        yield
    except BaseException:
        backup.unlink()
        raise


def _second_name(file: Path) -> Path:
    names = (file.with_name(f"{file.name}.bak{number}") for number in ("", *range(2, 1000)))
    backup = next(name for name in names if not name.exists())
    try:
        os.link(file, backup)
    except OSError:  # a file system without links
        with whole_file(backup) as temporary:
            shutil.copy2(file, temporary)
    return backup
