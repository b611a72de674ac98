"""Make a task's table of slides, from the Genomic Data Commons or from a folder of slides for each class."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from utils.arguments import Parser, add_config_option, add_option
from utils.config import Config
from utils.errors import run_script
from utils.options import address, one_group

GDC_URL = "https://api.gdc.cancer.gov"
GDC_OPTIONS = {"labels": None, "slide_type": "diagnostic", "gdc_url": GDC_URL, "manifest": None}
FOLDER_OPTIONS = {"case_pattern": None}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = partial(add_option, parser)
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS}
    add_config_option(parser, "task", required=True, help="name of the task")
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
    add("gdc-url", type=address, metavar="URL", **hidden, help=f"with --gdc: where its API is (default: {GDC_URL})")
    add("manifest", type=Path, metavar="FILE", **hidden, help="with --gdc: also write what gdc-client downloads")
    add(
        "case-pattern", type=one_group, metavar="REGEX", **hidden, help="with --slides-dir: finds the patient in the "
        "name of a slide that has no TCGA barcode, in its one group (default: each slide is a patient of its own)"
    )  # fmt: skip
    text = "folder with slides, in it or below it, read for level0_mag"
    add("wsi-dir", aliases=(), type=Path, metavar="DIR", help=text)
    add("output", type=Path, metavar="FILE", help="the table (default: dataset_csv/<task>.csv)")
    add("overwrite", action="store_true", help="replace a table or manifest that is another than would be written")
    given = vars(parser.parse_args(argv))
    foreign, name = (FOLDER_OPTIONS, "--slides-dir") if given["gdc"] else (GDC_OPTIONS, "--gdc")
    if others := sorted(given.keys() & foreign.keys()):
        parser.error(f"--{', --'.join(others).replace('_', '-')}: only with {name}")
    return argparse.Namespace(**{**GDC_OPTIONS, **FOLDER_OPTIONS, **given})


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets import make_table

    path = options.output or Config(task=options.task).csv_path()
    if options.gdc:
        parts = make_table.rows_from_gdc(options.task, options.labels, options.slide_type, options.gdc_url)
    else:
        parts = make_table.rows_from_folder(options.slides_dir, options.case_pattern, not options.wsi_dir)
    make_table.make_table(parts, path, options.wsi_dir, options.manifest, options.overwrite)


if __name__ == "__main__":
    sys.exit(run_script(main))
