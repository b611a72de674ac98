"""Reads every feature file of a task once before any training, and remembers which were found good."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.linalg import vector_norm
from tqdm import tqdm

from datasets.bag_cache import BagCache
from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.projection import has_unit_rows, is_conch, projection_remedy
from datasets.task import Slide
from utils.errors import Fault, Faults, UserError
from utils.files import tensors_sha256
from utils.interface import Bag, BagForm
from utils.sealed import DIGESTS, damaged_fields, write_sealed

MOST_NAMED = 5  # slides of a warning
DIGEST_NAMES = {
    "low_features": "low", "high_features": "high", "child_mask": "mask", "patch_features": "patches",
}  # fmt: skip


def check_root(folders: FeatureFolders, form: BagForm = "hierarchy") -> None:
    """Raises UserError where the task has no features at all, or, of a flat bag, none at the high magnification."""
    if not folders.root.is_dir():
        expected = f"the features of task {folders.task}"
        mend = (
            f"make them with: {folders.extract_command()} (or, from existing ones of both scales, "
            f"{folders.hierarchy_command()})"
        )
        raise UserError(Fault("features.missing", str(folders.root), "no such folder", expected, mend))
    linked, flat = folders.hierarchical_file("x").parent, folders.high_file("x").parent
    if form != "hierarchy" and not folders.has_flat_patches() and not linked.is_dir():
        found, expected = f"no such folder, nor {linked.name}/ beside it", f"the high patches of task {folders.task}"
        mend = f"make them with: {folders.extract_command()}"
        raise UserError(Fault("features.missing", str(flat), found, expected, mend))


def check_features(
    cache: BagCache, slides: Iterable[Slide], checked: Path | None = None, verify: bool = False
) -> dict[str, str]:
    """Check the features of some slides; those unchanged since an earlier check are not read again, others are kept in
    the cache.

    checked: a JSON file that keeps what was found good, and by which size, time and width it is known again. verify:
    read every file all the same, since files may change and keep their size and time. Returns a digest of the contents
    by slide_id. Warns of features that are all zero, and where CONCH's are from before the projection. Raises UserError
    with the faults of all slides.
    """
    folders, feature_dim, form = cache.folders, cache.feature_dim, cache.form
    known = _read_checked(checked) if checked else {}
    check_root(folders, form)
    faults = Faults()
    good: dict[str, dict[str, Any]] = {}
    unread = []
    for slide in slides:
        entry: Any = known.get(_name(folders, slide, form))
        is_whole = isinstance(entry, dict) and entry.keys() >= {"stamp", "sha256", "unit_rows", "zero_rows"}
        if is_whole and not verify and entry["stamp"] == _stamp(folders, slide, feature_dim, form):
            good[slide.slide_id] = entry
        else:
            unread.append(slide)
    for slide in tqdm(unread, desc="checking features", unit="slide", disable=None, leave=False):
        stamp = _stamp(folders, slide, feature_dim, form)
        if bag := faults.attempt(read_bag, folders, slide, feature_dim, form):
            contents = {DIGEST_NAMES[name]: value for name, value in bag.value.features().items()}
            told = {"unit_rows": _is_normalised(bag.value), "zero_rows": _zero_rows(bag.value)}
            entry = {"stamp": stamp, "sha256": tensors_sha256(contents), **told}
            good[slide.slide_id] = known[_name(folders, slide, form)] = entry
            cache.put(bag.value)
    if checked and unread:
        write_sealed(checked, known)
    if empty := sorted(slide_id for slide_id, entry in good.items() if entry["zero_rows"]):
        rows = sum(good[slide_id]["zero_rows"] for slide_id in empty)
        named = ", ".join(empty[:MOST_NAMED]) + (", ..." if len(empty) > MOST_NAMED else "")
        print(
            f"warning: {rows} patches of {len(empty)} slides have features that are all zero, which no encoder gives: "
            f"{named}. {folders.check_command()} names the files"
        )
    longer = sum(not entry["unit_rows"] for entry in good.values())
    if longer and is_conch(folders):
        print(
            f"warning: {longer} of {len(good)} slides have rows that are not of length 1. {projection_remedy(folders)}"
        )
    faults.raise_any()
    return {slide_id: entry["sha256"] for slide_id, entry in good.items()}


def _is_normalised(bag: Bag) -> bool:
    """Whether the features of all patches are of unit length."""
    rows = bag.low_features, bag.patches
    return all(has_unit_rows(vector_norm(features, dim=-1).numpy()) for features in rows)


def _zero_rows(bag: Bag) -> int:
    """How many patches have features that are all zero."""
    return sum(int((~features.any(-1)).sum()) for features in (bag.low_features, bag.patches))


def _name(folders: FeatureFolders, slide: Slide, form: BagForm) -> str:
    """What the file of checked features knows a slide by."""
    return f"{form} {folders.files(slide.slide_id, form)[0].resolve()}"


def _stamp(folders: FeatureFolders, slide: Slide, feature_dim: int | None, form: BagForm) -> list[int | None]:
    """What tells whether a slide's files are the same as before."""
    stamp: list[int | None] = [feature_dim]
    for file in folders.files(slide.slide_id, form):
        status = file.stat() if file.is_file() else None
        stamp += [status.st_size, status.st_mtime_ns] if status else [None, None]
    return stamp


def _read_checked(checked: Path) -> dict[str, Any]:
    """What the file keeps, without what was damaged; nothing of a file without digests."""
    try:
        known = json.loads(checked.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict) or DIGESTS not in known:
        return {}
    damaged = {DIGESTS, *damaged_fields(known)} if isinstance(known[DIGESTS], dict) else set(known)
    return {name: entry for name, entry in known.items() if name not in damaged}
