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
from utils.errors import Faults, UserError
from utils.files import tensors_sha256, write_json
from utils.interface import Bag, BagForm

DIGEST_NAMES = {
    "low_features": "low", "high_features": "high", "child_mask": "mask", "patch_features": "patches",
}  # fmt: skip


def check_root(folders: FeatureFolders, form: BagForm = "hierarchy") -> None:
    """Raises UserError where the task has no features at all, or, of a flat bag, none at the high magnification."""
    if not folders.root.is_dir():
        raise UserError(
            f"{folders.root}: no such folder; expected the features of task {folders.task}. Make them with: "
            f"{folders.extract_command()} (or, from existing ones of both scales, {folders.hierarchy_command()})"
        )
    linked, flat = folders.hierarchical_file("x").parent, folders.high_file("x").parent
    if form != "hierarchy" and not folders.has_flat_patches() and not linked.is_dir():
        raise UserError(
            f"{flat}: no such folder, nor {linked.name}/ beside it; expected the high patches of task {folders.task}. "
            f"Make them with: {folders.extract_command()}"
        )


def check_features(cache: BagCache, slides: Iterable[Slide], memory: Path | None = None) -> dict[str, str]:
    """Check the features of some slides; those unchanged since an earlier check are not read again, others are kept in
    the cache.

    memory: a JSON file that keeps what was found good, and by which size, time and width it is known again. Returns a
    digest of the contents by slide_id. Warns where CONCH's features are from before the projection. Raises UserError
    with the faults of all slides.
    """
    folders, feature_dim, form = cache.folders, cache.feature_dim, cache.form
    known = _read_memory(memory) if memory else {}
    check_root(folders, form)
    faults = Faults()
    good: dict[str, dict[str, Any]] = {}
    unread = []
    for slide in slides:
        entry: Any = known.get(_name(folders, slide, form))
        is_whole = isinstance(entry, dict) and entry.keys() >= {"stamp", "sha256", "unit_rows"}
        if is_whole and entry["stamp"] == _stamp(folders, slide, feature_dim, form):
            good[slide.slide_id] = entry
        else:
            unread.append(slide)
    for slide in tqdm(unread, desc="checking features", unit="slide", disable=None, leave=False):
        stamp = _stamp(folders, slide, feature_dim, form)
        if bag := faults.maybe(read_bag, folders, slide, feature_dim, form):
            contents = {DIGEST_NAMES[name]: value for name, value in bag.features().items()}
            entry = {"stamp": stamp, "sha256": tensors_sha256(contents), "unit_rows": _is_normalised(bag)}
            good[slide.slide_id] = known[_name(folders, slide, form)] = entry
            cache.put(bag)
    if memory and unread:
        write_json(memory, known)
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


def _name(folders: FeatureFolders, slide: Slide, form: BagForm) -> str:
    """What the memory knows a slide by."""
    return f"{form} {folders.files(slide.slide_id, form)[0].resolve()}"


def _stamp(folders: FeatureFolders, slide: Slide, feature_dim: int | None, form: BagForm) -> list[int | None]:
    """What tells whether a slide's files are the same as before."""
    stamp: list[int | None] = [feature_dim]
    for file in folders.files(slide.slide_id, form):
        status = file.stat() if file.is_file() else None
        stamp += [status.st_size, status.st_mtime_ns] if status else [None, None]
    return stamp


def _read_memory(memory: Path) -> dict[str, Any]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
