"""Make a task's table of slides: from the Genomic Data Commons, a folder of slides for each class, or published labels.

--summary makes no table, but counts the slides and patches of a task by class (the paper's Table 4).
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from utils.arguments import Parser, add_config_option, add_option, check_magnifications
from utils.config import Config
from utils.errors import run_script
from utils.options import address, location, one_group, words
from utils.outputs import check_outputs

GDC_URL = "https://api.gdc.cancer.gov"
OPTIONS_OF_SOURCES: dict[str, dict[str, Any]] = {
    "gdc": {"labels": None, "slide_type": "diagnostic", "gdc_url": GDC_URL, "manifest": None, "wsi_dir": None},
    "slides_dir": {"case_pattern": None, "wsi_dir": None},
    "reference": {"wsi_dir": None},
    "summary": {
        **dict.fromkeys(("data_root_dir", "dataset_csv")),
        **{name: getattr(Config, name) for name in ("feature_extractor", "low_mag", "high_mag")},
    },
}
"""By source: the options that only it, or it beside others, takes, with their defaults."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = partial(add_option, parser)
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS}
    add_config_option(parser, "task", required=True, help="name of the task")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gdc", action="store_true", help="list the slides of TCGA and other projects at the GDC")
    add_option(
        source, "slides-dir", type=location, metavar="DIR", help="folder that holds a folder of slides, or of .h5 "
        "feature files, for each class, with its name"
    )  # fmt: skip
    add_option(
        source, "reference", type=location, metavar="FILE", help="the published list of labels: Camelyon16's "
        "reference.csv (training slides are known by name) or UBC-OCEAN's train.csv (tissue microarrays are left out)"
    )  # fmt: skip
    source.add_argument("--summary", action="store_true", help="count the slides and patches of a task by class")
    add(
        "labels", nargs="+", type=words, metavar="PROJECT=CLASS", **hidden, help="with --gdc: classes of projects, or "
        "of diagnoses: 'PROJECT:DIAGNOSIS=CLASS' (default: those of the tasks tcga_nsclc, tcga_rcc, tcga_brca)"
    )  # fmt: skip
    add("slide-type", choices=["diagnostic", "tissue", "both"], **hidden, help="with --gdc (default: diagnostic)")
    add("gdc-url", type=address, metavar="URL", **hidden, help=f"with --gdc: where its API is (default: {GDC_URL})")
    add("manifest", type=location, metavar="FILE", **hidden, help="with --gdc: also write what gdc-client downloads")
    add(
        "case-pattern", type=one_group, metavar="REGEX", **hidden, help="with --slides-dir: finds the patient in the "
        "name of a slide that has no TCGA barcode, in its one group (default: each slide is a patient of its own)"
    )  # fmt: skip
    text = "folder with slides, in it or below it, read for level0_mag"
    add("wsi-dir", aliases=(), type=location, metavar="DIR", **hidden, help=text)
    with_summary = {"data_root_dir": "folder of features", "feature_extractor": "of the features (default: plip)"}
    for name, what in {**with_summary, "low_mag": "", "high_mag": "", "dataset_csv": "the table"}.items():
        add_config_option(parser, name, **hidden, **({"help": f"with --summary: {what}"} if what else {}))
    text = "the table (default: dataset_csv/<task>.csv); with --summary: also write the counts, as CSV"
    add("output", type=location, metavar="FILE", help=text)
    add("overwrite", action="store_true", help="replace a table or manifest that is another than would be written")
    given = vars(parser.parse_args(argv))
    chosen = next(name for name in OPTIONS_OF_SOURCES if given[name])
    own = OPTIONS_OF_SOURCES[chosen]
    takers = {name: [source for source in OPTIONS_OF_SOURCES if name in OPTIONS_OF_SOURCES[source]] for name in given}
    if foreign := sorted(name for name, sources in takers.items() if sources and chosen not in sources):
        alike = [name for name in foreign if takers[name] == takers[foreign[0]]]
        told = f"--{', --'.join(alike)}: only with --{' or --'.join(takers[foreign[0]])}"
        parser.error(told.replace("_", "-"))
    options = argparse.Namespace(**{**own, **given})
    if chosen == "summary" and not options.data_root_dir:
        parser.error("--summary needs --data_root_dir, the folder of features")
    if chosen == "summary":
        check_magnifications(parser, options)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    if options.summary:
        summarise(options)
        return
    from datasets import make_table
    from datasets.published_labels import rows_from_reference

    path = options.output or Config(task=options.task).csv_path()
    manifest = options.manifest if options.gdc else None
    make_table.check_places(path, manifest, [options.slides_dir, options.wsi_dir])
    if options.gdc:
        parts = make_table.rows_from_gdc(options.task, options.labels, options.slide_type, options.gdc_url)
    elif options.reference:
        check_outputs(f"--output {path}", [path], [options.reference])
        parts = rows_from_reference(options.reference)
    else:
        parts = make_table.rows_from_folder(options.slides_dir, options.case_pattern, not options.wsi_dir)
    make_table.make_table(parts, path, options.wsi_dir, manifest, options.overwrite)


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
