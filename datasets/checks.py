"""Reads every feature file of a task once before any training, and remembers which were found good."""

import json
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from datasets.bags import read_bag
from datasets.layout import FeatureFolders
from datasets.task import Slide
from utils.errors import Faults, UserError
from utils.files import write_json


def check_root(folders: FeatureFolders) -> None:
    """Raises UserError where the task has no features at all."""
    if not folders.root.is_dir():
        raise UserError(
            f"{folders.root}: no such folder; expected the features of task {folders.task}. Make them with: "
            f"{folders.extract_command()} (or, from existing ones of both scales, {folders.hierarchy_command()})"
        )


def check_features(
    folders: FeatureFolders, slides: Iterable[Slide], feature_dim: int | None, memory: Path | None = None
) -> None:
    """Check the features of some slides; those unchanged since an earlier check are not read again.

    feature_dim: the width that the text tower wants. memory: a JSON file of {file: [size, time, width]} that keeps
    what was found good. Raises UserError with the faults of all slides.
    """
    good = _read_memory(memory) if memory else {}
    check_root(folders)
    faults = Faults()
    unread = []
    for slide in slides:
        stamps = _stamps(folders, slide, feature_dim)
        if not stamps or any(good.get(name) != stamp for name, stamp in stamps.items()):
            unread.append(slide)
    for slide in tqdm(unread, desc="checking features", unit="slide", disable=None, leave=False):
        stamps = _stamps(folders, slide, feature_dim)
        if faults.attempt(read_bag, folders, slide, feature_dim):
            good |= stamps
    if memory and unread:
        write_json(memory, good)
    faults.raise_any()


def _stamps(folders: FeatureFolders, slide: Slide, feature_dim: int | None) -> dict[str, list[int | None]]:
    """What tells whether a slide's files are the same as before; empty where one is missing."""
    stamps: dict[str, list[int | None]] = {}
    for file in (folders.low_file(slide.slide_id), folders.hierarchical_file(slide.slide_id)):
        if not file.is_file():
            return {}
        status = file.stat()
        stamps[str(file.resolve())] = [status.st_size, status.st_mtime_ns, feature_dim]
    return stamps


def _read_memory(memory: Path) -> dict[str, list[int | None]]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
