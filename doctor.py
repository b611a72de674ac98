"""Check this machine and, for a task, all that main.py needs: each check passes, warns or fails, with what mends it."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from utils.arguments import Parser, add_option, add_options
from utils.config import OPTIONS, Config
from utils.errors import run_script
from utils.options import at_least

EXIT_FAIL = 1


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The script's own options, and those of main.py that were given."""
    parser = Parser(
        description=__doc__,
        epilog="Without options the machine alone is checked; with those of main.py what main.py --dry_run checks as "
        "well. The exit code is 1 where a check fails.",
    )
    parser.add_argument("--json", action="store_true", help="what the checks found as JSON, for programs")
    add_option(
        parser, "sample", type=at_least(1), metavar="N",
        help="check the features of N slides, spread over the table (default: of all slides of the splits)",
    )  # fmt: skip
    add_options(parser.add_argument_group("options of main.py"))
    options = parser.parse_args(argv)
    given = {name: value for name, value in vars(options).items() if name in OPTIONS}
    if options.sample and not given:
        parser.error("--sample: expected together with --task and --data_root_dir")
    return options, given


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from training.diagnosis import Level, diagnose

    with redirect_stdout(sys.stderr):  # what libraries say
        diagnosis = diagnose(Config(**given), given, options.sample)
    print(diagnosis.json() if options.json else diagnosis.text())
    if diagnosis.level is Level.FAIL:
        sys.exit(EXIT_FAIL)


if __name__ == "__main__":
    sys.exit(run_script(main))
