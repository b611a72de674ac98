"""Check hierarchical feature files against the low and high ones of the same slides; --fix repairs them."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial

from utils.arguments import Parser, add_config_option, add_folder_options, add_option
from utils.errors import run_script
from utils.options import MOST_WORKERS, location, within

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
    text = "CONCH's pytorch_model.bin: with --fix, project and normalise CONCH features from before the projection"
    add("project-with", type=location, help=text)
    options = parser.parse_args(argv)
    if options.project_with and not options.fix:
        parser.error("--project-with changes files: expected together with --fix")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.consistency_report import check_slides
    from datasets.folders import FeatureFolders
    from datasets.projection import load_projection
    from datasets.task import optional_table

    table = optional_table(options.task, options.dataset_csv)
    project = options.project_with and load_projection(options.project_with)
    if not check_slides(FeatureFolders.of(options), table, options.fix, project, options.workers):
        sys.exit(EXIT_FAULTS)


if __name__ == "__main__":
    sys.exit(run_script(main))
