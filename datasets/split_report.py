"""What splits hold, in tables: of splits just made, and of any split files, which are audited."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.barcodes import is_normal
from datasets.draw_splits import WHOLE
from datasets.splits import (
    MANIFEST,
    PAIRS,
    SPLIT_NAMES,
    Split,
    build_split,
    class_counts,
    read_split_ids,
    shared_patients,
    shared_sites,
    split_files,
)
from datasets.task import NO_LABEL, Slide, read_sites, read_slides
from utils.config import PROJECT
from utils.errors import Fault, Faults, UserError
from utils.files import file_sha256, read_json
from utils.typed import mistakes

MOST_EXAMPLES = 5


@dataclass(frozen=True)
class ListedFold:
    """fold: its number. sha256: of the split file."""

    fold: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What the audit reads of a manifest.json."""

    folds: list[ListedFold]


# ---- auditing --------------------------------------------------------------------------------------------------------


def audit_splits(folder: Path, task: str | None, path: Path | None) -> bool:
    """Print a report on every folder of split files in ``folder`` or below it; whether all are free of faults.

    task: its name; by default a folder is called <task>_<shots>. path: the table of slides; by default
    dataset_csv/<task>.csv in a folder above the splits, or else in the project. Raises UserError where there is none.
    """
    if not folder.is_dir():
        expected = "one that holds splits_<fold>.csv, for --audit"
        raise UserError(Fault("folder.missing", str(folder), "no such folder", expected))
    folders = sorted({file.parent for file in folder.rglob("splits_*.csv") if split_files(file.parent)})
    if not folders:
        found = "found no splits_<fold>.csv in it or below it"
        raise UserError(Fault("split.missing", str(folder), found, expected="split files to audit"))
    faults = Faults()
    sound = [faults.attempt(_report_on, one, task, path) for one in folders]
    if faults.found:
        raise UserError(list(dict.fromkeys(faults.found)))
    return all(one.value for one in sound)


def _report_on(folder: Path, task: str | None, path: Path | None) -> bool:
    folder = folder.resolve()
    task = task or folder.name.rpartition("_")[0]
    shots = folder.name.removeprefix(f"{task}_")
    if path is None:
        name = Path("dataset_csv") / f"{task}.csv"
        path = next((up / name for up in folder.parents if (up / name).is_file()), PROJECT / name)
    class_names, table = read_slides(path)
    slides, sites = list(table.values()), read_sites(path)
    splits, faults = audit_folder(folder, class_names, table, int(shots) if shots.isdecimal() else None)
    normals = class_counts([slide for slide in slides if is_normal(slide.slide_id)], class_names)
    print(f"{folder}\n{size_text(path, slides, sites)}; normal tissue: {counts_text(normals)}\n")
    print(f"{ratios_text(splits, slides, class_names)}\n\n{contents_text(splits, slides, class_names, sites)}\n")
    print(f"{overlaps_text(splits, sites)}\n")
    for fault in faults:
        print(f"fault: {fault}")
    print(f"{len(faults)} faults\n")
    return not faults


def audit_folder(
    folder: Path, class_names: Sequence[str], slides: Mapping[str, Slide], shots: int | None = None
) -> tuple[list[Split], list[Fault]]:
    """The known slides of every fold in a folder, and all its faults: what main.py refuses, shared patients, other than
    ``shots`` training slides a class, a fold left out, a file that is not the one its manifest tells of."""
    faults = Faults()
    files = split_files(folder)
    for fold in sorted(set(range(max(files))) - set(files)):
        faults.add(Fault("split.missing", str(folder), f"no splits_{fold}.csv", expected=f"folds 0 to {max(files)}"))
    splits = []
    for fold, path in files.items():
        if ids := faults.attempt(read_split_ids, path):
            faults.attempt(build_split, path, fold, ids.value, slides, class_names)
            known = {name: [slides[slide] for slide in ids.value[name] if slide in slides] for name in SPLIT_NAMES}
            splits.append(Split(fold, **known))
            faults.found += _other_faults(path, splits[-1], class_names, shots)
    return splits, [*faults.found, *_manifest_faults(folder)]


def _other_faults(path: Path, split: Split, class_names: Sequence[str], shots: int | None) -> Iterator[Fault]:
    shared = {f"{a}/{b}": len(shared_patients(split, a, b)) for a, b in PAIRS}
    if any(shared.values()):
        found = ", ".join(f"{pair} {number}" for pair, number in shared.items())
        yield Fault("split.shared_patients", str(path), f"patients shared between {found}", expected="none")
    for name, number in class_counts(split.train, class_names).items():
        if shots is not None and number != shots:
            found = f"found {number} training slides of class {name!r}"
            yield Fault("split.shots", str(path), found, expected=f"{shots} by the folder's name")


def _manifest_faults(folder: Path) -> Iterator[Fault]:
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        content = read_json(path, "manifest.unreadable")
    except UserError as error:
        yield from error.faults
        return
    if wrong := mistakes(Manifest, content):
        yield Fault("manifest.unreadable", str(path), f"not a manifest of create_splits.py ({wrong[0]})")
        return
    expected = {record["fold"]: record["sha256"] for record in content["folds"]}
    found = {fold: file_sha256(file) for fold, file in split_files(folder).items()}
    for fold in sorted(expected | found):
        if found.get(fold) != expected.get(fold):
            file, told = folder / f"splits_{fold}.csv", f"not the file that {MANIFEST} tells of"
            yield Fault("manifest.other_file", str(file), told, mend="make the splits anew")


# ---- texts -----------------------------------------------------------------------------------------------------------


def counts_text(counts: Mapping[str, int]) -> str:
    """LUAD 3, LUSC 4"""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def range_text(numbers: Sequence[float], form: str = "{}") -> str:
    """fewest-most, or the one number where all are the same"""
    return "-".join(dict.fromkeys([form.format(min(numbers)), form.format(max(numbers))]))


def size_text(path: Path, slides: Sequence[Slide], sites: Mapping[str, str]) -> str:
    """How many slides, patients and sites a table has."""
    patients = {slide.patient for slide in slides}
    places = {sites[slide.slide_id] for slide in slides} - {""}
    return f"{path}: {len(slides)} slides, {len(patients)} patients, {len(places) or 'no known'} sites"


def shares_text(folds: Sequence[Split], class_names: Sequence[str]) -> str:
    """A table of the slides that each class has in the train pool, val and test: fewest and most over the folds."""
    rows: dict[str, dict[str, str]] = {name: {} for name in class_names}
    for title, part in (("train pool", "train"), ("val", "val"), ("test", "test")):
        counts = [class_counts(getattr(fold, part), class_names) for fold in folds]
        for label, name in enumerate(class_names):
            total = sum(slide.label == label for _, slides in folds[0].parts() for slide in slides)
            found = [count[name] for count in counts]
            shares = range_text([100 * number / total for number in found], "{:.1f}")
            rows[name][title] = f"{range_text(found)} ({shares} %)"
    return str(pd.DataFrame.from_dict(rows, orient="index").to_string())


def ratios_text(splits: Sequence[Split], slides: Sequence[Slide], class_names: Sequence[str]) -> str:
    """One row per fold: shots, and how the slides are divided."""
    lines = []
    for split in splits:
        sizes = len(split.train) + len(unused(split, slides)), len(split.val), len(split.test)
        ratio = " : ".join(f"{WHOLE * size / sum(sizes):.2f}" for size in sizes)
        shots = range_text(list(class_counts(split.train, class_names).values()))
        lines.append(f"fold {split.fold}: {shots} shots; train and unused : val : test = {ratio}")
    return "\n".join(lines)


def unused(split: Split, slides: Sequence[Slide]) -> list[Slide]:
    """The labelled slides that stand in no split."""
    used = {slide for _, members in split.parts() for slide in members}
    return [slide for slide in slides if slide not in used and slide.label != NO_LABEL]


def contents_text(
    splits: Sequence[Split], slides: Sequence[Slide], class_names: Sequence[str], sites: Mapping[str, str]
) -> str:
    """One row per split: the slides of each class with their share of the class, patients, sites, normal tissue."""
    totals = class_counts(slides, class_names)
    rows = []
    for split in splits:
        for name, members in [*split.parts(), ("unused", unused(split, slides))]:
            counts = class_counts(members, class_names)
            shares = [f"{count} ({100 * count / totals[name]:.1f} %)" for name, count in counts.items()]
            places = {sites[slide.slide_id] for slide in members} - {""}
            normal = sum(is_normal(slide.slide_id) for slide in members)
            patients = {slide.patient for slide in members}
            rows.append([split.fold, name, len(members), *shares, len(patients), len(places), normal])
    columns = ["fold", "split", "slides", *class_names, "patients", "sites", "normal tissue"]
    return str(pd.DataFrame(rows, columns=columns).to_string(index=False))


def overlaps_text(splits: Sequence[Split], sites: Mapping[str, str]) -> str:
    """One row per pair of splits: how many patients and sites they share, with examples."""
    rows = []
    for split in splits:
        for first, second in PAIRS:
            row: list[Any] = [split.fold, f"{first}/{second}"]
            for found in (shared_patients(split, first, second), shared_sites(split, first, second, sites)):
                examples = sorted(found)[:MOST_EXAMPLES]
                row += [len(found), ", ".join(examples) + (" ..." if len(found) > len(examples) else "")]
            rows.append(row)
    columns = ["fold", "splits", "shared patients", "such as", "shared sites", "such as"]
    return str(pd.DataFrame(rows, columns=columns).to_string(index=False))
