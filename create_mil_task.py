"""Make a task for the baselines from a data set of multiple instance learning, with folds for cross-validation."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from utils.arguments import Parser, add_config_option, add_option
from utils.errors import run_script
from utils.options import MOST_FOLDS, location, seed, within

PACKAGED = ("ucsb", "musk1")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = partial(add_option, parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--csv", type=location, metavar="FILE", help="a table without header: label, bag, then the features; a row an "
        "instance"
    )  # fmt: skip
    source.add_argument("--dataset", choices=PACKAGED, help="UCSB breast cancer or Musk1, from the package mil")
    add("output-dir", type=location, required=True, metavar="DIR", help="folder to write to")
    of_main = partial(add_config_option, parser)
    of_main("task", default=None, help="its name (default: the data set's, or that of the file)")
    of_main(
        "feature_extractor", default=None,
        help="what made the features (default: mil<number of features>)",
    )  # fmt: skip
    add("k", type=within(2, MOST_FOLDS), default=10, metavar="N", help="folds (default: 10)")
    add("seed", type=seed, default=1, metavar="N", help="of the folds (default: 1)")
    add(
        "standardise", action="store_true", help="give every feature mean 0 and standard deviation 1 over all bags, "
        "those tested among them; labels are not used"
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.mil_task import make_mil_task, packaged_csv

    source = options.csv or packaged_csv(options.dataset)
    task = options.task or options.dataset or source.stem
    make_mil_task(
        source, options.output_dir, task, options.feature_extractor, options.k, options.seed, options.standardise
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
