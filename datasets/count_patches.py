"""Slides and patches of a task by class (the paper's Table 4), counted from the shapes of its feature files."""

from pathlib import Path

import pandas as pd

from datasets.folders import FeatureFolders
from datasets.task import NO_LABEL, read_slides
from utils.errors import Fault, Faults, UserError
from utils.h5 import read_h5, read_shapes
from utils.words import listed

WITHOUT = "without features"


def count_patches(table: Path, folders: FeatureFolders) -> pd.DataFrame:
    """One row per class and a last row over all: slides, those without features, and patches at both magnifications.

    Patches at the low magnification are the rows of its files, or of the hierarchical ones; at the high one the rows of
    its files or, where the task has no such folder, the real children in the hierarchical files. Features are read of
    hierarchical files without a mask alone, as the authors released them. Of a slide that lacks one of its files no
    patches count. Raises UserError where the table or a feature file cannot be read.
    """
    class_names, slides = read_slides(table)
    low, high = (f"patches {m}x" for m in (folders.low_magnification, folders.high_magnification))
    rows = []
    faults = Faults()
    for slide in slides.values():
        if slide.label != NO_LABEL:
            numbers = faults.attempt(_patches, folders, slide.slide_id)
            found = numbers.value if numbers else None
            low_count, high_count = found or (0, 0)
            rows.append((class_names[slide.label], 1, int(found is None), low_count, high_count, slide.slide_id))
    faults.raise_any()
    by_slide = pd.DataFrame(rows, columns=["class", "slides", WITHOUT, low, high, "slide_id"])
    if lacking := list(by_slide["slide_id"][by_slide[WITHOUT] > 0]):
        print(f"note: {len(lacking)} slides have no features in {folders.root}: {listed(lacking)}")
    counts = by_slide.drop(columns="slide_id").groupby("class").sum().reindex(class_names)
    counts.loc["all"] = counts.sum()
    return counts.rename_axis("class")


def _patches(folders: FeatureFolders, slide_id: str) -> tuple[int, int] | None:
    """A slide's patches at both magnifications; None where its files are missing."""
    low, high, linked = (
        file(slide_id) for file in (folders.low_file, folders.high_file, folders.hierarchical_file)
    )  # fmt: skip
    low_count = next((_rows(file) for file in (low, linked) if file.is_file()), None)
    if folders.has_flat_patches():
        high_count = _rows(high) if high.is_file() else None
    else:
        high_count = _real_children(linked) if linked.is_file() else None
    return None if low_count is None or high_count is None else (low_count, high_count)


def _rows(file: Path) -> int:
    shape = read_shapes(file).get("features", ())
    if not shape:
        raise UserError(Fault("h5.no_data_set", str(file), "no rows of features", "a data set 'features'"))
    return shape[0]


def _real_children(file: Path) -> int:
    """As the mask says; without one, the children whose features are not all zero."""
    if "mask" in read_shapes(file):
        return int(read_h5(file, ("mask",))["mask"].sum())
    return int(read_h5(file, ("features",))["features"].any(axis=-1).sum())


def summary_of_task(table: Path, folders: FeatureFolders) -> tuple[pd.DataFrame, str]:
    """The counts, and the counts as text: 452,664 patches."""
    counts = count_patches(table, folders)
    return counts, counts.map(lambda number: f"{number:,}").to_string()
