"""Make a page of a run's results: settings, tables, curves, and every slide's prediction, one HTML file per run."""

import argparse
import sys
from collections.abc import Sequence

from utils.arguments import Parser
from utils.errors import run_script
from utils.options import location


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "runs", metavar="RUN_FOLDER", nargs="+", type=location, help="folder of a run, with its config.json"
    )
    parser.add_argument(
        "--output", type=location,
        help="HTML file to write, or folder for <run>.html of each run (default: results.html in each run's folder)",
    )  # fmt: skip
    parser.add_argument("--explanations", type=location, help="folder with <slide_id>.html, to link to")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from reports.run_page import write_pages

    write_pages(options.runs, options.output, options.explanations)


if __name__ == "__main__":
    sys.exit(run_script(main))
