"""Folds: which slides train, validate and test; and an audit of the patients they share."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.task import NO_LABEL, Slide
from utils.errors import UserError

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The slides of one fold."""

    fold: int
    train: list[Slide]
    val: list[Slide]
    test: list[Slide]

    def parts(self) -> Iterator[tuple[str, list[Slide]]]:
        """("train", slides), ("val", ...), ("test", ...)"""
        return ((name, getattr(self, name)) for name in SPLIT_NAMES)

    def shots(self) -> list[int]:
        """Training slides of each class."""
        return list(Counter(slide.label for slide in self.train).values())

    def to_csv(self) -> str:
        """The split in the form it is read in."""
        columns = {name: pd.Series([slide.slide_id for slide in slides], dtype=str) for name, slides in self.parts()}
        return pd.DataFrame(columns).fillna("").to_csv()


def read_split_ids(path: Path, command: str = "python create_splits.py") -> dict[str, list[str]]:
    """Slide ids of train, val and test from splits_<fold>.csv: an index column, then one column a split, padded with
    blanks. ``command`` is named where the file is missing. Raises UserError where the file or a column is missing."""
    if not path.is_file():
        raise UserError(f"{path}: no such split file; name the folder with --split_dir, or make the splits: {command}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable CSV ({error})") from error
    absent = [name for name in SPLIT_NAMES if name not in table]
    if absent:
        raise UserError(f"{path}: no column {absent[0]!r}; found {list(table)}, expected an index, train, val, test")
    return {name: [slide_id.strip() for slide_id in table[name] if slide_id.strip()] for name in SPLIT_NAMES}


def build_split(
    path: Path, fold: int, ids: Mapping[str, list[str]], slides: Mapping[str, Slide], class_names: Sequence[str]
) -> Split:
    """The fold that a split file's ids describe. Raises UserError with every fault: a slide that is unknown, without a
    label or there twice, a split that lacks a class."""
    faults = list(_split_faults(path, ids, slides, class_names))
    if faults:
        raise UserError(faults)
    return Split(fold, **{name: [slides[slide_id] for slide_id in ids[name]] for name in SPLIT_NAMES})


def _split_faults(
    path: Path, ids: Mapping[str, list[str]], slides: Mapping[str, Slide], class_names: Sequence[str]
) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for name, members in ids.items():
        for slide_id in members:
            places.setdefault(slide_id, []).append(name)
    for slide_id, names in places.items():
        if len(names) > 1:
            yield f"{path}: slide {slide_id} stands in {' and '.join(names)}, expected in one split, once"
    unknown = [slide_id for slide_id in places if slide_id not in slides]
    if unknown:
        as_text = "; are they numbers? Save the columns as text" if any(i.endswith(".0") for i in unknown) else ""
        yield f"{path}: {len(unknown)} slides are not in the table of slides ({', '.join(unknown[:3])}){as_text}"
    unlabelled = [slide_id for slide_id in places if slide_id in slides and slides[slide_id].label == NO_LABEL]
    if unlabelled:
        yield f"{path}: {len(unlabelled)} slides have no label in the table of slides ({', '.join(unlabelled[:3])})"
    for name, members in ids.items():
        if not set(members) <= set(slides):
            continue
        labels = {slides[slide_id].label for slide_id in members if slide_id in slides}
        absent = [class_name for label, class_name in enumerate(class_names) if label not in labels]
        if absent:
            yield f"{path}: no slide of class {absent[0]!r} in {name}, expected slides of {list(class_names)}"


def shared_patients(split: Split, first: str, second: str) -> set[str]:
    """The patients who have slides in both splits of a fold."""
    return {slide.patient for slide in getattr(split, first)} & {slide.patient for slide in getattr(split, second)}


def patient_audit(splits: Sequence[Split]) -> str | None:
    """One sentence on patients with slides in two splits of a fold, or None where there are none."""
    found = []
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        counts = [len(shared_patients(split, first, second)) for split in splits]
        if any(counts):
            found.append(f"{first} and {second} share {', '.join(map(str, counts))}")
    if not found:
        return None
    folds = ", ".join(str(split.fold) for split in splits)
    return (
        f"patients with slides in two splits, in fold {folds}: {'; '.join(found)}. Scores on such slides are too good; "
        "python create_splits.py --group patient makes splits without them"
    )


def take_share(split: Split, share: float, seed: int) -> Split:
    """The fold with a share of each class's training slides (at least one), drawn with ``seed``."""
    generator = np.random.default_rng(seed % 2**32)
    chosen: set[str] = set()
    for label in sorted({slide.label for slide in split.train}):
        members = [slide.slide_id for slide in split.train if slide.label == label]
        number = max(1, round(share * len(members)))
        chosen.update(generator.permutation(members)[:number].tolist())
    return replace(split, train=[slide for slide in split.train if slide.slide_id in chosen])


def take_few(split: Split, number: int) -> Split:
    """The fold with at most ``number`` slides a class in every split."""

    def first(slides: list[Slide]) -> list[Slide]:
        taken: dict[int, int] = {}
        few = []
        for slide in slides:
            taken[slide.label] = taken.get(slide.label, 0) + 1
            if taken[slide.label] <= number:
                few.append(slide)
        return few

    return replace(split, train=first(split.train), val=first(split.val), test=first(split.test))
