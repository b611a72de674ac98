"""Archives of features, as the authors' drive has them."""

import shutil
from pathlib import Path

import numpy as np

from datasets import released as released_files
from tests.support.archive_files import archive_of, write_files

IDS = released_files.RELEASED["feature_archives"]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def features(task: str, extractor: str, above: str = "") -> dict[str, bytes]:
    names = (f"{extractor}_5x", f"hierarchical_{extractor}_5x_20x")
    generator = np.random.default_rng(len(extractor))
    return {f"{above}{name}/{task}-{number}.h5": generator.bytes(400_000) for name in names for number in range(3)}


def packed(tmp_path: Path, task: str, extractor: str, form: str = "zip", above: str | None = None) -> bytes:
    above = f"{task}_{extractor}/" if above is None else above
    folder = write_files(tmp_path / "packed", features(task, extractor, above))
    archive = archive_of(folder, form, tmp_path / "archive").read_bytes()
    shutil.rmtree(folder)
    return archive
