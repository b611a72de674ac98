"""Make a task's table of slides, from the Genomic Data Commons or from a folder of slides for each class."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import add_config_option, add_option
from utils.config import Config
from utils.errors import UserError, run_script
from utils.options import folder_name

if TYPE_CHECKING:
    from datasets.slide_table import Row

GDC_URL = "https://api.gdc.cancer.gov"
GDC_OPTIONS = {"labels": None, "slide_type": "diagnostic", "gdc_url": GDC_URL, "manifest": None}
FOLDER_OPTIONS = {"case_pattern": None}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = partial(add_option, parser)
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS}
    add_config_option(parser, "task", required=True, type=folder_name, help="name of the task")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gdc", action="store_true", help="list the slides of TCGA and other projects at the GDC")
    add_option(
        source, "slides-dir", type=Path, metavar="DIR", help="folder that holds a folder of slides, or of .h5 feature "
        "files, for each class, with its name"
    )  # fmt: skip
    add(
        "labels", nargs="+", metavar="PROJECT=CLASS", **hidden, help="with --gdc: classes of projects, or of "
        "diagnoses: 'PROJECT:DIAGNOSIS=CLASS' (default: those of the tasks tcga_nsclc, tcga_rcc, tcga_brca)"
    )  # fmt: skip
    add("slide-type", choices=["diagnostic", "tissue", "both"], **hidden, help="with --gdc (default: diagnostic)")
    add("gdc-url", metavar="URL", **hidden, help=f"with --gdc: where its API is (default: {GDC_URL})")
    add("manifest", type=Path, metavar="FILE", **hidden, help="with --gdc: also write what gdc-client downloads")
    add(
        "case-pattern", type=one_group, metavar="REGEX", **hidden, help="with --slides-dir: finds the patient in the "
        "name of a slide that has no TCGA barcode, in its one group (default: each slide is a patient of its own)"
    )  # fmt: skip
    add(
        "wsi-dir",
        aliases=(),
        type=Path,
        metavar="DIR",
        help="folder with slides, in it or below it, read for level0_mag",
    )
    add("output", type=Path, metavar="FILE", help="the table (default: dataset_csv/<task>.csv)")
    add("overwrite", action="store_true", help="replace a table or manifest that is another than would be written")
    given = vars(parser.parse_args(argv))
    foreign, name = (FOLDER_OPTIONS, "--slides-dir") if given["gdc"] else (GDC_OPTIONS, "--gdc")
    if others := sorted(given.keys() & foreign.keys()):
        parser.error(f"--{', --'.join(others).replace('_', '-')}: only with {name}")
    return argparse.Namespace(**{**GDC_OPTIONS, **FOLDER_OPTIONS, **given})


def one_group(pattern: str) -> str:
    """An argparse type: a regular expression with one group."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{pattern!r} is no regular expression ({error})") from error
    if groups != 1:
        raise argparse.ArgumentTypeError(f"{pattern!r} has {groups} groups, expected one, the patient: '^([^_]+)_'")
    return pattern


def from_gdc(options: argparse.Namespace) -> tuple[list["Row"], Counter[str], str]:
    """Rows without magnification, the number of slides left out by reason, and the manifest."""
    from datasets import gdc
    from datasets.slide_table import Row

    texts = options.labels or gdc.PRESETS.get(options.task)
    if not texts:
        raise UserError(
            f"--task {options.task}: no classes are known for it, only for {', '.join(gdc.PRESETS)}; "
            "give them: --labels TCGA-LUAD=LUAD TCGA-LUSC=LUSC"
        )
    labels = gdc.parse_labels(texts)
    projects = sorted({project for project, _ in labels})
    slides = gdc.list_slides(options.gdc_url, projects, gdc.STRATEGIES[options.slide_type])
    kept, rows = [], []
    left_out: Counter[str] = Counter()
    for slide in slides:
        label = gdc.label_of(slide, labels)
        if label is None:
            left_out[f"{slide.project}, diagnosis: {' + '.join(slide.diagnoses) or 'none given'}"] += 1
        else:
            kept.append(slide)
            rows.append(Row(slide.case_id, slide.slide_id, label))
    print(f"{options.gdc_url}: {len(slides)} slides of {', '.join(projects)}")
    if missing := sorted(set(labels.values()) - {row.label for row in rows}):
        found = "".join(f"\n  {number} of {reason}" for reason, number in left_out.most_common())
        raise UserError(
            f"{options.gdc_url}: no slides of {', '.join(missing)}; expected some of each class of --labels "
            f"{' '.join(texts)}; other slides found: {found or 'none'}"
        )
    return rows, left_out, gdc.manifest_text(kept)


def from_folder(options: argparse.Namespace) -> tuple[list["Row"], Counter[str]]:
    """Rows, with the magnification where the files are slides; and the number of files left out by reason."""
    from datasets.slide_table import FEATURES, Row, find_classes, magnifications, patients

    classes, loose = find_classes(options.slides_dir)
    files = {slide_id: file for of_class in classes.values() for slide_id, file in of_class.items()}
    cases = patients(files, options.case_pattern)
    slides = {slide_id: file for slide_id, file in files.items() if file.suffix != FEATURES}
    print(f"{options.slides_dir}: {len(slides)} slides, {len(files) - len(slides)} feature files")
    levels = {} if options.wsi_dir else magnifications(slides)
    rows = [
        Row(cases[slide_id], slide_id, label, levels.get(slide_id))
        for label, of_class in classes.items()
        for slide_id in of_class
    ]
    return rows, Counter({f"{options.slides_dir}, not in the folder of a class": len(loose)} if loose else {})


def with_magnifications(rows: Sequence["Row"], folder: Path) -> list["Row"]:
    """The rows with the magnifications of those slides that are in a folder."""
    from dataclasses import replace

    from datasets.slide_table import magnifications
    from datasets.slides import find_slides

    known = {row.slide_id for row in rows}
    files = {slide_id: file for slide_id, file in find_slides(folder).items() if slide_id in known}
    print(f"{folder}: {len(files)} of the slides")
    levels = magnifications(files)
    return [replace(row, level0_mag=levels.get(row.slide_id)) for row in rows]


def write_new(contents: Mapping[Path, str], overwrite: bool) -> None:
    """Write files. Raises UserError, before any is written, where another is there and ``overwrite`` is not set."""
    from utils.files import write_text

    same = {path for path, text in contents.items() if path.is_file() and path.read_bytes() == text.encode()}
    others = [path for path in contents if path.exists() and path not in same]
    if others and not overwrite:
        raise UserError([f"{path}: is there with other contents; --overwrite replaces it" for path in others])
    for path, text in contents.items():
        if path in same:
            print(f"unchanged: {path}")
        else:
            write_text(path, text)
            print(f"written: {path}")


def summary_text(rows: Sequence["Row"], left_out: Counter[str]) -> str:
    """Slides, patients and magnifications of each class, and what should be looked at."""
    import pandas as pd

    from datasets.make_splits import is_normal
    from datasets.task import Slide

    table = pd.DataFrame([vars(row) for row in rows])
    table["level0_mag"] = [f"{row.level0_mag:g}x" if row.level0_mag is not None else "unknown" for row in rows]
    counts = table.groupby("label").agg(slides=("slide_id", "size"), patients=("case_id", "nunique"))
    levels = pd.crosstab(table["label"], table["level0_mag"])
    lines = [counts.join(levels).to_string()]
    lines += [f"left out: {number} slides of {reason}" for reason, number in left_out.most_common()]
    if unknown := int((table["level0_mag"] == "unknown").sum()):
        lines.append(
            f"level0_mag: {unknown} slides without it: not at hand (--wsi-dir names their folder), or no tag tells it "
            "(write it into the table, and give that to extract_features.py with --dataset-csv)"
        )
    if normal := sum(is_normal(Slide(row.slide_id, row.case_id)) for row in rows):
        lines.append(
            f"note: {normal} slides are normal tissue, which has the class of the patient's tumour here; "
            "create_splits.py --exclude-normals leaves them out"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    path = options.output or Config(task=options.task).csv_path()
    manifest = ""
    if options.gdc:
        rows, left_out, manifest = from_gdc(options)
    else:
        rows, left_out = from_folder(options)
    if options.wsi_dir:
        rows = with_magnifications(rows, options.wsi_dir)
    from datasets.slide_table import table_text

    contents = {path: table_text(rows)} | ({options.manifest: manifest} if options.manifest else {})
    print(summary_text(rows, left_out))
    write_new(contents, options.overwrite)


if __name__ == "__main__":
    sys.exit(run_script(main))
