"""Make the splits of a task: folds with a few training slides a class and no shared patient; or audit existing ones."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import add_option
from utils.config import PROJECT
from utils.errors import Faults, UserError, run_script
from utils.options import at_least

if TYPE_CHECKING:
    from datasets.splits import Split
    from datasets.task import Slide

DEFAULTS: dict[str, Any] = {
    "audit": None, "task": None, "dataset_csv": None, "output_dir": None, "k": 5, "few_shot_num": [4, 8, 16], "seed": 1,
    "group": "patient", "balanced_val": None, "balanced_test": None, "exclude_normals": False, "overwrite": False,
}  # fmt: skip
OPTIONS_OF_AUDIT = {"audit", "task", "dataset_csv"}
MOST_EXAMPLES = 5


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS)

    def add(name: str, text: str, **settings: Any) -> None:
        add_option(parser, name, help=text, **settings)

    positive: dict[str, Any] = {"type": at_least(1), "metavar": "N"}
    add("task", "name of the task; needed but for --audit of folders called <task>_<shots>")
    add("dataset_csv", "CSV of slides and labels (default: dataset_csv/<task>.csv)", type=Path, metavar="FILE")
    add("output_dir", "folder to write <task>_<shots>/ to (default: splits/<task>)", type=Path, metavar="DIR")
    add("few_shot_num", "training slides a class, several at once (default: 4 8 16)", nargs="+", **positive)
    add("k", "folds (default: 5)", **positive)
    add("seed", "of the draw; fold 0 is the same for any --k (default: 1)", type=at_least(0))
    add("group", "what is never divided between splits (default: patient)", choices=["patient", "site", "slide"])
    add("balanced_test", "test on N slides of each class (default: all of the test share)", **positive)
    add("balanced_val", "validate on N slides of each class (default: all of the val share)", **positive)
    add("exclude_normals", "leave out TCGA sample types 10 to 14, normal tissue", action="store_true")
    add("overwrite", "replace splits that are others than would be written", action="store_true")
    add("audit", "only report on the split files in DIR or below it; exit code 1 on faults", type=Path, metavar="DIR")
    given = vars(parser.parse_args(argv))
    if "audit" not in given and "task" not in given:
        parser.error("--task is required")
    if "audit" in given and (others := sorted(given.keys() - OPTIONS_OF_AUDIT)):
        parser.error(f"--audit takes --task and --dataset_csv, found --{', --'.join(others)}")
    return argparse.Namespace(**{**DEFAULTS, **given})


def counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def size_text(path: Path, slides: Sequence["Slide"], sites: Mapping[str, str]) -> str:
    patients = {slide.patient for slide in slides}
    places = {sites[slide.slide_id] for slide in slides} - {""}
    return f"{path}: {len(slides)} slides, {len(patients)} patients, {len(places) or 'no known'} sites"


# ---- making ----------------------------------------------------------------------------------------------------------


def create(options: argparse.Namespace) -> None:
    """Table -> groups -> folds -> for each number of shots a folder of split files and their manifest."""
    from datasets import make_splits
    from datasets.splits import patient_audit
    from datasets.task import NO_LABEL, read_slides
    from utils import __version__
    from utils.files import file_sha256

    path = options.dataset_csv or PROJECT / "dataset_csv" / f"{options.task}.csv"
    class_names, table = read_slides(path)
    sites = make_splits.read_sites(path)
    print(size_text(path, list(table.values()), sites))
    slides = [slide for slide in table.values() if slide.label != NO_LABEL]
    if len(slides) < len(table):
        print(f"left out, without a label: {len(table) - len(slides)}")
    left_out: dict[str, Any] = {"without_label": len(table) - len(slides)}
    normals = make_splits.class_counts([slide for slide in slides if make_splits.is_normal(slide)], class_names)
    if options.exclude_normals:
        print(f"left out, normal tissue: {counts_text(normals)}")
        left_out["normal_tissue"] = normals
        slides = [slide for slide in slides if not make_splits.is_normal(slide)]
    elif any(normals.values()):
        print(f"note: normal tissue among the slides: {counts_text(normals)}; --exclude-normals leaves it out")
    groups = make_splits.group_slides(path, slides, options.group, sites)
    if options.group == "patient" and len(groups) == len(slides):
        print("note: no patient has two slides, so this is the same as --group slide; is case_id the patient?")
    elif options.group != "slide" and (alone := sum(slide.patient == slide.slide_id for slide in slides)):
        print(f"note: {alone} slides without a case_id, each counts as a patient")

    wholes = make_splits.draw_folds(path, groups, class_names, options.k, options.seed)
    balanced = {"val": options.balanced_val, "test": options.balanced_test}
    names = ("k", "seed", "group", "balanced_val", "balanced_test", "exclude_normals")
    folders: dict[Path, dict[str, str]] = {}
    faults = Faults()
    for shots in sorted(set(options.few_shot_num)):
        numbers = {name: number for name, number in {"train": shots, **balanced}.items() if number}
        folds = faults.maybe(make_splits.take_slides, path, wholes, class_names, numbers)
        if folds is None:
            continue
        manifest = {
            "task": options.task,
            "options": {"few_shot_num": shots, **{name: getattr(options, name) for name in names}},
            "dataset_csv": {"file": path.name, "sha256": file_sha256(path)},
            "left_out": left_out,
            "folds": [
                make_splits.describe_fold(whole, fold, class_names, sites)
                for whole, fold in zip(wholes, folds, strict=True)
            ],
            "version": __version__,
        }
        contents = {f"splits_{fold.fold}.csv": fold.to_csv() for fold in folds}
        contents[make_splits.MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        folders[(options.output_dir or PROJECT / "splits" / options.task) / f"{options.task}_{shots}"] = contents
    if faults.found:
        raise UserError(list(dict.fromkeys(faults.found)))
    write_folders(folders, options.overwrite)
    print(f"\n{shares_text(wholes, class_names)}\n")
    if sentence := patient_audit(wholes):
        print(f"warning: {sentence}")
    for folder in folders:
        print(f"written: {folder}")


def write_folders(folders: Mapping[Path, Mapping[str, str]], overwrite: bool) -> None:
    """Write each folder's files, the manifest last. Raises UserError, before anything is written, where a folder holds
    other splits than these and ``overwrite`` is not set; what an interrupted run left is completed."""
    from datasets.make_splits import MANIFEST, split_files
    from utils.files import write_text

    faults, stale = [], []
    for folder, contents in folders.items():
        present = [*split_files(folder).values(), *folder.glob(MANIFEST)] if folder.exists() else []
        other = [file for file in present if file.read_bytes() != contents.get(file.name, "").encode()]
        if other:
            found = ", ".join(file.name for file in other[:3])
            faults.append(f"{folder}: found other splits ({found}), expected none; --overwrite replaces them")
        stale += [file for file in other if file.name not in contents]
    if faults and not overwrite:
        raise UserError(faults)
    for file in stale:
        file.unlink()
    for folder, contents in folders.items():
        for name, text in contents.items():
            write_text(folder / name, text)


def shares_text(folds: Sequence["Split"], class_names: Sequence[str]) -> str:
    """A table of the slides that each class has in the train pool, val and test: fewest and most over the folds."""
    import pandas as pd

    from datasets.make_splits import class_counts

    rows: dict[str, dict[str, str]] = {name: {} for name in class_names}
    for title, part in (("train pool", "train"), ("val", "val"), ("test", "test")):
        counts = [class_counts(getattr(fold, part), class_names) for fold in folds]
        for label, name in enumerate(class_names):
            total = sum(slide.label == label for _, slides in folds[0].parts() for slide in slides)
            found = [count[name] for count in counts]
            shares = range_text([100 * number / total for number in found], "{:.1f}")
            rows[name][title] = f"{range_text(found)} ({shares} %)"
    return pd.DataFrame.from_dict(rows, orient="index").to_string()


def range_text(numbers: Sequence[float], form: str = "{}") -> str:
    """fewest-most, or the one number where all are the same"""
    return "-".join(dict.fromkeys([form.format(min(numbers)), form.format(max(numbers))]))


# ---- auditing --------------------------------------------------------------------------------------------------------


def audit(options: argparse.Namespace) -> bool:
    """Report on every folder of split files; whether all are free of faults."""
    from datasets.make_splits import split_files

    if not options.audit.is_dir():
        raise UserError(f"{options.audit}: no such folder; --audit expects one that holds splits_<fold>.csv")
    folders = sorted({file.parent for file in options.audit.rglob("splits_*.csv") if split_files(file.parent)})
    if not folders:
        raise UserError(f"{options.audit}: found no splits_<fold>.csv in it or below it, expected split files to audit")
    faults = Faults()
    sound = [faults.maybe(audit_one, folder, options.task, options.dataset_csv) for folder in folders]
    if faults.found:
        raise UserError(list(dict.fromkeys(faults.found)))
    return all(sound)


def audit_one(folder: Path, task: str | None, path: Path | None) -> bool:
    """Report on one folder; whether it is free of faults. Without ``task`` the folder is called <task>_<shots>; without
    ``path`` the table is dataset_csv/<task>.csv in a folder above it, or else in the project."""
    from datasets.make_splits import audit_folder, class_counts, is_normal, read_sites
    from datasets.task import read_slides

    folder = folder.resolve()
    task = task or folder.name.rpartition("_")[0]
    shots = folder.name.removeprefix(f"{task}_")
    if path is None:
        name = Path("dataset_csv") / f"{task}.csv"
        path = next((up / name for up in folder.parents if (up / name).is_file()), PROJECT / name)
    class_names, table = read_slides(path)
    slides, sites = list(table.values()), read_sites(path)
    splits, faults = audit_folder(folder, class_names, table, int(shots) if shots.isdecimal() else None)
    normals = class_counts([slide for slide in slides if is_normal(slide)], class_names)
    print(f"{folder}\n{size_text(path, slides, sites)}; normal tissue: {counts_text(normals)}\n")
    print(f"{ratios_text(splits, slides, class_names)}\n\n{contents_text(splits, slides, class_names, sites)}\n")
    print(f"{shared_text(splits, sites)}\n")
    for fault in faults:
        print(f"fault: {fault}")
    print(f"{len(faults)} faults\n")
    return not faults


def unused(split: "Split", slides: Sequence["Slide"]) -> list["Slide"]:
    """The labelled slides that stand in no split."""
    from datasets.task import NO_LABEL

    used = {slide for _, members in split.parts() for slide in members}
    return [slide for slide in slides if slide not in used and slide.label != NO_LABEL]


def ratios_text(splits: Sequence["Split"], slides: Sequence["Slide"], class_names: Sequence[str]) -> str:
    from datasets.make_splits import WHOLE, class_counts

    lines = []
    for split in splits:
        sizes = len(split.train) + len(unused(split, slides)), len(split.val), len(split.test)
        ratio = " : ".join(f"{WHOLE * size / sum(sizes):.2f}" for size in sizes)
        shots = range_text(list(class_counts(split.train, class_names).values()))
        lines.append(f"fold {split.fold}: {shots} shots; train and unused : val : test = {ratio}")
    return "\n".join(lines)


def contents_text(
    splits: Sequence["Split"], slides: Sequence["Slide"], class_names: Sequence[str], sites: Mapping[str, str]
) -> str:
    """A row a split: the slides of each class with their share of the class, patients, sites, normal tissue."""
    import pandas as pd

    from datasets.make_splits import class_counts, is_normal

    totals = class_counts(slides, class_names)
    rows = []
    for split in splits:
        for name, members in [*split.parts(), ("unused", unused(split, slides))]:
            counts = class_counts(members, class_names)
            shares = [f"{count} ({100 * count / totals[name]:.1f} %)" for name, count in counts.items()]
            places = {sites[slide.slide_id] for slide in members} - {""}
            normal = sum(is_normal(slide) for slide in members)
            patients = {slide.patient for slide in members}
            rows.append([split.fold, name, len(members), *shares, len(patients), len(places), normal])
    columns = ["fold", "split", "slides", *class_names, "patients", "sites", "normal tissue"]
    return pd.DataFrame(rows, columns=columns).to_string(index=False)


def shared_text(splits: Sequence["Split"], sites: Mapping[str, str]) -> str:
    """A row a pair of splits: how many patients and sites they share, with examples."""
    import pandas as pd

    from datasets.make_splits import PAIRS, shared_sites
    from datasets.splits import shared_patients

    rows = []
    for split in splits:
        for first, second in PAIRS:
            row: list[Any] = [split.fold, f"{first}/{second}"]
            for found in (shared_patients(split, first, second), shared_sites(split, first, second, sites)):
                examples = sorted(found)[:MOST_EXAMPLES]
                row += [len(found), ", ".join(examples) + (" ..." if len(found) > len(examples) else "")]
            rows.append(row)
    columns = ["fold", "splits", "shared patients", "such as", "shared sites", "such as"]
    return pd.DataFrame(rows, columns=columns).to_string(index=False)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    if options.audit is None:
        create(options)
    elif not audit(options):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(run_script(main))
