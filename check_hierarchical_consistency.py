"""Check hierarchical feature files against the low and high ones of the same slides; --fix repairs them."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial

from utils.arguments import Parser, add_config_option, add_folder_options, add_option
from utils.errors import run_script
from utils.options import MOST_WORKERS, path, within

EXIT_FAULTS = 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)

    add = partial(add_option, parser)
    add_folder_options(parser)
    add_config_option(
        parser, "dataset_csv", help="table of slides, read for level0_mag (default: dataset_csv/<task>.csv)"
    )
    workers = min(8, os.cpu_count() or 1)
    add("workers", type=within(1, MOST_WORKERS), default=workers, help=f"processes (default: {workers})")
    add("fix", action="store_true", help="repair what can be repaired; the old file stays as .bak")
    text = (
        "with --fix, project features from before the model's projection, as its image side does; MODEL: its weight "
        "file, folder or hub id (conch/pytorch_model.bin, Astaxanthin/KEEP)"
    )
    add("project-with", type=path, metavar="MODEL", help=text)
    options = parser.parse_args(argv)
    if options.project_with and not options.fix:
        parser.error("--project-with changes files: expected together with --fix")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.consistency_report import check_slides
    from datasets.folders import FeatureFolders
    from datasets.projection import Projection
    from datasets.task import optional_table
    from models.vlms.registry import load_head

    table = optional_table(options.task, options.dataset_csv)
    given = options.project_with
    project = Projection.of(load_head(options.feature_extractor, given, "--project-with")) if given else None
    if not check_slides(FeatureFolders.of(options), table, options.fix, project, options.workers):
        sys.exit(EXIT_FAULTS)


if __name__ == "__main__":
    sys.exit(run_script(main))
