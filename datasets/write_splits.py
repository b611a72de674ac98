"""The split files of a task: drawn, described by a manifest, and written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.barcodes import is_normal
from datasets.draw_splits import draw_folds, group_slides, official_test, take_slides
from datasets.split_report import counts_text, shares_text, size_text
from datasets.splits import (
    MANIFEST,
    PAIRS,
    Split,
    class_counts,
    patient_audit,
    shared_patients,
    shared_sites,
    split_files,
)
from datasets.task import NO_LABEL, Slide, read_sites, read_slides
from utils import __version__
from utils.errors import Fault, UserError
from utils.files import file_sha256, text_sha256, write_text
from utils.outputs import check_outputs
from utils.words import listed


@dataclass(frozen=True)
class SplitOptions:
    """How splits are made.

    few_shot_num: training slides of a class, several numbers at once. k: folds. seed: of the draw. group: patient, site
    or slide, what is never divided. balanced_val, balanced_test: slides of each class, or all of them. exclude_normals:
    leave out normal tissue. test_slides: regular expression of the names of a given test set. overwrite: replace other
    splits.
    """

    few_shot_num: Sequence[int] = (4, 8, 16)
    k: int = 5
    seed: int = 1
    group: str = "patient"
    balanced_val: int | None = None
    balanced_test: int | None = None
    exclude_normals: bool = False
    test_slides: str | None = None
    overwrite: bool = False

    def of_shots(self, shots: int) -> dict[str, Any]:
        """As a manifest records them."""
        names = ("k", "seed", "group", "balanced_val", "balanced_test", "exclude_normals")
        given = {"test_slides": self.test_slides} if self.test_slides else {}
        return {"few_shot_num": shots, **{name: getattr(self, name) for name in names}, **given}


def make_split_files(task: str, path: Path, output_dir: Path, options: SplitOptions) -> None:
    """Table -> groups -> folds -> for each number of shots a folder ``<task>_<shots>`` of split files and a manifest.

    path: the table of slides. Prints what is left out, what should be looked at, what is written, and which numbers of
    shots are not, because a class has too few slides. Raises UserError, before anything is written, where no number of
    shots is possible, and for every folder with other splits.
    """
    class_names, table = read_slides(path)
    sites = read_sites(path)
    print(size_text(path, list(table.values()), sites))
    slides, left_out = _choose_slides(list(table.values()), class_names, options.exclude_normals)
    groups = group_slides(path, slides, options.group, sites)
    _note_groups(slides, groups, options.group)
    tests: list[list[Slide]] = []
    if options.test_slides:
        groups, tests = official_test(path, groups, options.test_slides, class_names)
        print(
            f"test set, the same in every fold: {sum(map(len, tests))} slides whose names match {options.test_slides}"
        )
    wholes = draw_folds(path, groups, class_names, options.k, options.seed, tests)
    balanced = {"val": options.balanced_val, "test": options.balanced_test}
    folders: dict[Path, dict[str, str]] = {}
    impossible: dict[int, list[Fault]] = {}
    for shots in sorted(set(options.few_shot_num)):
        numbers = {name: number for name, number in {"train": shots, **balanced}.items() if number}
        try:
            folds = take_slides(path, wholes, class_names, numbers)
        except UserError as error:
            impossible[shots] = error.faults
            continue
        manifest = {
            "task": task,
            "options": options.of_shots(shots),
            "dataset_csv": {"file": path.name, "sha256": file_sha256(path)},
            "left_out": left_out,
            "folds": [describe_fold(*pair, class_names, sites) for pair in zip(wholes, folds, strict=True)],
            "version": __version__,
        }
        texts = {f"splits_{fold.fold}.csv": fold.to_csv() for fold in folds}
        texts[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        folders[output_dir / f"{task}_{shots}"] = texts
    if not folders:
        raise UserError(list(dict.fromkeys(fault for faults in impossible.values() for fault in faults)))
    written = [folder / name for folder, texts in folders.items() for name in texts]
    check_outputs(f"--output_dir {output_dir}", written, [path])
    write_folders(folders, options.overwrite)
    print(f"\n{shares_text(wholes, class_names)}\n")
    if sentence := patient_audit(wholes):
        print(f"warning: {sentence}")
    for folder in folders:
        print(f"written: {folder}")
    for shots, faults in impossible.items():
        print("".join([f"warning: not written, {shots} shots:", *(f"\n  {fault}" for fault in faults)]))


def _choose_slides(
    table: Sequence[Slide], class_names: Sequence[str], exclude_normals: bool
) -> tuple[list[Slide], dict[str, Any]]:
    """The slides to divide, and how many are left out by reason."""
    slides = [slide for slide in table if slide.label != NO_LABEL]
    left_out: dict[str, Any] = {"without_label": len(table) - len(slides)}
    if len(slides) < len(table):
        print(f"left out, without a label: {len(table) - len(slides)}")
    normals = class_counts([slide for slide in slides if is_normal(slide.slide_id)], class_names)
    counts = counts_text(normals)
    if exclude_normals:
        print(f"left out, normal tissue: {counts}")
        left_out["normal_tissue"] = normals
        slides = [slide for slide in slides if not is_normal(slide.slide_id)]
    elif any(normals.values()):
        print(f"note: normal tissue among the slides: {counts}; --exclude_normals leaves it out")
    return slides, left_out


def _note_groups(slides: Sequence[Slide], groups: Sequence[Sequence[Slide]], group: str) -> None:
    if group == "patient" and len(groups) == len(slides):
        print("note: no patient has two slides, so this is the same as --group slide; is case_id the patient?")
    elif group != "slide" and (alone := sum(slide.patient == slide.slide_id for slide in slides)):
        print(f"note: {alone} slides without a case_id, each counts as a patient")


def describe_fold(pool: Split, split: Split, class_names: Sequence[str], sites: Mapping[str, str]) -> dict[str, Any]:
    """A fold's entry in the manifest: the file's sha256, slides by split and class (the pool that train was drawn from
    too), and how many patients and sites each pair of splits shares."""
    parts = {"train_pool": pool.train, **dict(split.parts())}
    return {
        "fold": split.fold,
        "sha256": text_sha256(split.to_csv()),
        "slides": {name: class_counts(slides, class_names) for name, slides in parts.items()},
        "shared_patients": {f"{a}/{b}": len(shared_patients(split, a, b)) for a, b in PAIRS},
        "shared_sites": {f"{a}/{b}": len(shared_sites(split, a, b, sites)) for a, b in PAIRS},
    }


def write_folders(folders: Mapping[Path, Mapping[str, str]], overwrite: bool) -> None:
    """Write each folder's files, the manifest last. Raises UserError, before anything is written, where a folder holds
    other splits than these and ``overwrite`` is not set; what an interrupted run left is completed."""
    faults, stale = [], []
    for folder, contents in folders.items():
        present = [*split_files(folder).values(), *folder.glob(MANIFEST)] if folder.exists() else []
        other = [file for file in present if file.read_bytes() != contents.get(file.name, "").encode()]
        if other:
            found = f"found other splits ({listed(file.name for file in other)})"
            faults.append(Fault("split.exists", str(folder), found, "none", "--overwrite replaces them"))
        stale += [file for file in other if file.name not in contents]
    if faults and not overwrite:
        raise UserError(faults)
    for folder, contents in folders.items():
        for name, text in contents.items():
            write_text(folder / name, text)
    for file in stale:
        file.unlink()
