"""Folds: which slides train, validate and test; their files; and the patients and sites that their parts share."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.task import NO_LABEL, Slide
from utils.errors import Fault, UserError
from utils.words import listed

SPLIT_NAMES = ("train", "val", "test")
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
SPLIT_FILE = re.compile(r"splits_(\d+)\.csv")
MANIFEST = "manifest.json"
CREATE_SPLITS = "python create_splits.py"


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
        return str(pd.DataFrame(columns).fillna("").to_csv())


def split_files(folder: Path) -> dict[int, Path]:
    """splits_<fold>.csv of a folder by fold, in order."""
    found = {int(match[1]): file for file in folder.iterdir() if (match := SPLIT_FILE.fullmatch(file.name))}
    return dict(sorted(found.items()))


def read_split_ids(path: Path, command: str = CREATE_SPLITS) -> dict[str, list[str]]:
    """Slide ids of train, val and test from splits_<fold>.csv: an index column, then one column a split, padded with
    blanks. ``command`` is named where the file is missing. Raises UserError where the file or a column is missing."""
    if not path.is_file():
        mend = f"name the folder with --split_dir, or make the splits: {command}"
        raise UserError(Fault("split.missing", str(path), "no such split file", mend=mend))
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(Fault("split.unreadable", str(path), f"not a readable CSV ({error})")) from error
    absent = [name for name in SPLIT_NAMES if name not in table]
    if absent:
        found = f"no column {listed(absent)}; found [{listed(table)}]"
        raise UserError(Fault("split.columns", str(path), found, expected="an index, train, val, test"))
    return {name: [slide_id.strip() for slide_id in table[name] if slide_id.strip()] for name in SPLIT_NAMES}


def build_split(
    path: Path,
    fold: int,
    ids: Mapping[str, list[str]],
    slides: Mapping[str, Slide],
    class_names: Sequence[str],
    command: str = CREATE_SPLITS,
) -> Split:
    """The fold that a split file's ids describe. command: what makes the task's splits. Raises UserError with every
    fault: a slide that is unknown, without a label or there twice, a split that lacks a class."""
    faults = [*_split_faults(path, ids, slides), *_class_faults(path, ids, slides, class_names, command)]
    if faults:
        raise UserError(faults)
    return Split(fold, **{name: [slides[slide_id] for slide_id in ids[name]] for name in SPLIT_NAMES})


def _split_faults(path: Path, ids: Mapping[str, list[str]], slides: Mapping[str, Slide]) -> Iterator[Fault]:
    places: dict[str, list[str]] = {}
    for name, members in ids.items():
        for slide_id in members:
            places.setdefault(slide_id, []).append(name)
    for slide_id, names in places.items():
        if len(names) > 1:
            found = f"slide {slide_id} stands in {' and '.join(names)}"
            yield Fault("split.repeated_slide", str(path), found, expected="it in one split, once")
    unknown = [slide_id for slide_id in places if slide_id not in slides]
    if unknown:
        as_text = "are they numbers? Save the columns as text" if any(i.endswith(".0") for i in unknown) else ""
        found = f"{len(unknown)} slides are not in the table of slides ({listed(unknown)})"
        yield Fault("split.unknown_slide", str(path), found, mend=as_text)
    unlabelled = [slide_id for slide_id in places if slide_id in slides and slides[slide_id].label == NO_LABEL]
    if unlabelled:
        found = f"{len(unlabelled)} slides have no label in the table of slides ({listed(unlabelled)})"
        yield Fault("split.unlabelled_slide", str(path), found)


def _class_faults(
    path: Path,
    ids: Mapping[str, list[str]],
    slides: Mapping[str, Slide],
    class_names: Sequence[str],
    command: str,
) -> Iterator[Fault]:
    """A fault for each split whose slides are known and lack classes: which, and how many slides the table has of
    them."""
    available = class_counts(list(slides.values()), class_names)
    for name, members in ids.items():
        if not set(members) <= set(slides):
            continue
        found = class_counts([slides[slide_id] for slide_id in members], class_names)
        absent = [class_name for class_name, number in found.items() if number == 0]
        if not absent:
            continue
        counts = {class_name: available[class_name] for class_name in absent}
        has = listed((f"{number} of {class_name!r}" for class_name, number in counts.items()), quote=False)
        told = f"no slide of class {listed(absent)} in {name}"
        if min(counts.values()) >= len(SPLIT_NAMES):
            mend = f"the table has {has}: put slides of each class into {name}, or make the splits: {command}"
        else:
            mend = (
                f"the table has {has}, and train, val and test need slides of each class: label more of them in the "
                f"table, or leave a label that is no class blank there; then make the splits: {command}"
            )
        if name == "test":
            mend += "; a cohort that lacks a class is for predict.py, once the model is trained"
        yield Fault("split.missing_class", str(path), told, f"slides of [{listed(class_names)}]", mend)


# ---- what a fold holds -----------------------------------------------------------------------------------------------


def class_counts(slides: Sequence[Slide], class_names: Sequence[str]) -> dict[str, int]:
    """{class: number of its slides}"""
    return {name: sum(slide.label == label for slide in slides) for label, name in enumerate(class_names)}


def shared_patients(split: Split, first: str, second: str) -> set[str]:
    """The patients who have slides in both splits of a fold."""
    return {slide.patient for slide in getattr(split, first)} & {slide.patient for slide in getattr(split, second)}


def shared_sites(split: Split, first: str, second: str, sites: Mapping[str, str]) -> set[str]:
    """The known sites that have slides in both splits of a fold. sites: by slide_id, "" where not known."""
    found = [{sites[slide.slide_id] for slide in getattr(split, name)} for name in (first, second)]
    return (found[0] & found[1]) - {""}


def patient_audit(splits: Sequence[Split]) -> Fault | None:
    """What to know of patients with slides in two splits of a fold, or None where there are none."""
    found = []
    for first, second in PAIRS:
        counts = [len(shared_patients(split, first, second)) for split in splits]
        if any(counts):
            found.append(f"{first} and {second} share {', '.join(map(str, counts))}")
    if not found:
        return None
    folds, pairs = ", ".join(str(split.fold) for split in splits), "; ".join(found)
    told = f"patients with slides in two splits, in fold {folds}: {pairs}. Scores on such slides are too good"
    mend = "python create_splits.py --group patient makes splits without them"
    return Fault("split.shared_patients", "", told, mend=mend)


# ---- fewer slides ----------------------------------------------------------------------------------------------------


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
