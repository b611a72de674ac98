"""Make a task's table of slides: from the Genomic Data Commons, a folder of slides for each class, published labels, or
a table of another form.

--summary makes no table, but counts the slides and patches of a task by class (the paper's Table 4).
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import Parser, add_config_option, add_option, check_magnifications
from utils.config import Config
from utils.errors import run_script
from utils.options import address, location, one_group, words
from utils.outputs import check_outputs

if TYPE_CHECKING:
    from datasets.make_table import TableParts

GDC_URL = "https://api.gdc.cancer.gov"
COLUMNS = {
    "slide_column": "of slides (default: slide_id, slide, FILENAME, wsi or the like)",
    "label_column": "of labels (default: label, class, category, OncoTreeCode or the like, else the only one left)",
    "case_column": "of patients (default: case_id, patient, PATIENT or the like)",
}
MOST_TABLES = 2
SEPARATOR_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "\\t": "\t"}
SLIDE_TYPES = {
    "diagnostic": ("DX",), "tissue": ("TS", "BS", "MS"), "both": ("DX", "TS", "BS", "MS"),
    **{kind: (kind,) for kind in ("DX", "TS", "BS", "MS")},
}  # fmt: skip
"""What --slide-type may say, and the types of slides in TCGA barcodes that it means."""
OPTIONS_OF_SOURCES: dict[str, dict[str, Any]] = {
    "gdc": {"labels": None, "slide_type": ["diagnostic"], "gdc_url": GDC_URL, "manifest": None, "wsi_dir": None},
    "slides_dir": {"case_pattern": None, "wsi_dir": None},
    "reference": {"wsi_dir": None},
    "table": dict.fromkeys((*COLUMNS, "sep", "labels", "slide_type", "case_pattern", "wsi_dir")),
    "summary": {
        **dict.fromkeys(("data_root_dir", "dataset_csv")),
        **{name: getattr(Config, name) for name in ("feature_extractor", "low_mag", "high_mag")},
    },
}
"""By source: the options that only it, or it beside others, takes, with their defaults."""


def separator(text: str) -> str:
    """An argparse type: what stands between the cells of a table."""
    sign = SEPARATOR_NAMES.get(text.casefold(), text)
    if sign not in SEPARATOR_NAMES.values():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no separator: expected {', '.join(SEPARATOR_NAMES)}, or the sign"
        )
    return sign


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add_config_option(parser, "task", required=True, help="name of the task")
    _add_sources(parser.add_mutually_exclusive_group(required=True))
    _add_options_of_sources(parser)
    text = "the table (default: dataset_csv/<task>.csv); with --summary: also write the counts, as CSV"
    add_option(parser, "output", type=location, metavar="FILE", help=text)
    text = "replace a table or manifest that is another than would be written"
    add_option(parser, "overwrite", action="store_true", help=text)
    given = vars(parser.parse_args(argv))
    chosen = next(name for name in OPTIONS_OF_SOURCES if given[name])
    own = OPTIONS_OF_SOURCES[chosen]
    takers = {name: [source for source in OPTIONS_OF_SOURCES if name in OPTIONS_OF_SOURCES[source]] for name in given}
    if foreign := sorted(name for name, sources in takers.items() if sources and chosen not in sources):
        alike = [name for name in foreign if takers[name] == takers[foreign[0]]]
        told = f"--{', --'.join(alike)}: only with --{' or --'.join(takers[foreign[0]])}"
        parser.error(told.replace("_", "-"))
    options = argparse.Namespace(**{**own, **given})
    if chosen == "table" and len(options.table) > MOST_TABLES:
        parser.error(f"--table: found {len(options.table)} files, expected one, or two to join")
    if chosen == "summary" and not options.data_root_dir:
        parser.error("--summary needs --data_root_dir, the folder of features")
    if chosen == "summary":
        check_magnifications(parser, options)
    return options


def _add_sources(source: argparse._ActionsContainer) -> None:
    source.add_argument("--gdc", action="store_true", help="list the slides of TCGA and other projects at the GDC")
    add_option(
        source, "slides-dir", type=location, metavar="DIR", help="folder that holds a folder of slides, or of .h5 "
        "feature files, for each class, with its name"
    )  # fmt: skip
    add_option(
        source, "reference", type=location, metavar="FILE", help="the published list of labels: Camelyon16's "
        "reference.csv (training slides are known by name) or UBC-OCEAN's train.csv (tissue microarrays are left out)"
    )  # fmt: skip
    add_option(
        source, "table", type=location, nargs="+", metavar="FILE",
        help="a table of slides of another form, or two that are joined by the patient (or slide) both have, such as "
        "STAMP's clini and slide tables; rows without a slide or label are left out and counted",
    )  # fmt: skip
    source.add_argument("--summary", action="store_true", help="count the slides and patches of a task by class")


def _add_options_of_sources(parser: argparse.ArgumentParser) -> None:
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS}
    add = partial(add_option, parser)
    add(
        "labels", nargs="+", type=words, metavar="PROJECT=CLASS", **hidden, help="with --gdc: classes of projects, or "
        "of diagnoses: 'PROJECT:DIAGNOSIS=CLASS' (default: those of the tasks tcga_nsclc, tcga_rcc, tcga_brca); with "
        "--table: the labels that count, LABEL or LABEL=CLASS (default: all)"
    )  # fmt: skip
    add(
        "slide-type", nargs="+", choices=list(SLIDE_TYPES), **hidden, help="types of TCGA slides, diagnostic (DX) or "
        "frozen (TS, BS, MS): with --gdc (default: diagnostic) or --table (default: all slides)"
    )  # fmt: skip
    for name, text in COLUMNS.items():
        add(name, type=words, metavar="NAME", **hidden, help=f"with --table: the column {text}")
    add(
        "sep", type=separator, metavar="SIGN", **hidden, help="with --table: what stands between cells, a sign or "
        "comma, semicolon, tab or bar (default: found)"
    )  # fmt: skip
    add("gdc-url", type=address, metavar="URL", **hidden, help=f"with --gdc: where its API is (default: {GDC_URL})")
    add("manifest", type=location, metavar="FILE", **hidden, help="with --gdc: also write what gdc-client downloads")
    add(
        "case-pattern", type=one_group, metavar="REGEX", **hidden,
        help="with --slides-dir or --table: finds the patient in the name of a slide that has no TCGA barcode and no "
        "patient in the table, in its one group (default: each slide is a patient of its own)",
    )  # fmt: skip
    text = "folder with slides, or features that tell it, in it or below it, read for level0_mag"
    add("wsi-dir", aliases=(), type=location, metavar="DIR", **hidden, help=text)
    with_summary = {"data_root_dir": "folder of features", "feature_extractor": "of the features (default: plip)"}
    for name, what in {**with_summary, "low_mag": "", "high_mag": "", "dataset_csv": "the table"}.items():
        add_config_option(parser, name, **hidden, **({"help": f"with --summary: {what}"} if what else {}))


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    if options.summary:
        summarise(options)
        return
    from datasets import make_table

    path = options.output or Config(task=options.task).csv_path()
    manifest = options.manifest if options.gdc else None
    make_table.check_places(path, manifest, [options.slides_dir, options.wsi_dir])
    make_table.make_table(rows_of(options, path), path, options.wsi_dir, manifest, options.overwrite)


def rows_of(options: argparse.Namespace, path: Path) -> "TableParts":
    """The rows of the source that is chosen. path: of the table to be written, which must be none of the source."""
    from datasets import foreign_tables, make_table
    from datasets.foreign_columns import GivenColumns
    from datasets.published_labels import rows_from_reference

    if options.slides_dir:
        return make_table.rows_from_folder(options.slides_dir, options.case_pattern, not options.wsi_dir)
    if options.reference:
        check_outputs(f"--output {path}", [path], [options.reference])
        return rows_from_reference(options.reference)
    said = options.slide_type
    slide_types = None if said is None else {kind for word in said for kind in SLIDE_TYPES[word]}
    if options.gdc:
        return make_table.rows_from_gdc(options.task, options.labels, slide_types or (), options.gdc_url)
    check_outputs(f"--output {path}", [path], options.table)
    columns = GivenColumns(*(getattr(options, name) for name in COLUMNS))
    how = foreign_tables.ForeignOptions(columns, options.sep, options.labels, slide_types, options.case_pattern)
    return foreign_tables.rows_from_tables(options.table, how)


def summarise(options: argparse.Namespace) -> None:
    """Print the slides and patches of a task by class, and write them where --output says."""
    from datasets.count_patches import summary_of_task
    from datasets.folders import FeatureFolders
    from datasets.make_table import write_new
    from utils.spreadsheets import csv_text

    table = Config(task=options.task, dataset_csv=options.dataset_csv).csv_path()
    folders = FeatureFolders.of(options)
    if options.output:
        check_outputs(f"--output {options.output}", [options.output], [table, folders.root])
    counts, text = summary_of_task(table, folders)
    print(f"{table}, {folders.root}\n\n{text}")
    if options.output:
        write_new({options.output: csv_text(counts)}, options.overwrite)


if __name__ == "__main__":
    sys.exit(run_script(main))
