"""Run grids of main.py: every fold is a process of its own, on Ray or, with --local, without it. Finished folds are
skipped, lost ones started again."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from utils.arguments import Parser, add_option
from utils.config import OPTIONS
from utils.errors import run_script
from utils.options import MOST_WORKERS, GpuShare, Nature, flag, location, path, within, words

MOST_RETRIES = 1000


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, list[str]]]:
    """The script's own options, and those of main.py that were given, each with its values."""
    parser = Parser(
        usage="run_experiments.py [--grid FILE] [--preset NAME ...] [options] [options of main.py with their values]",
        description=__doc__,
    )
    add = partial(add_option, parser)
    whole: dict[str, Any] = {"type": within(1, MOST_WORKERS), "metavar": "N"}
    shares = "GPUs, or part of one (default: 1 where there are any)"
    add("grid", help="YAML file: options of main.py with their values; preset; runs", type=location, metavar="FILE")
    add("preset", help="tables and figures of experiments/presets.yaml", nargs="+", type=words, metavar="NAME")
    add("results_dir", help="where runs are written (default: ./results)", default="results", type=path, metavar="DIR")
    add("dry_run", help="list the folds, their state and their commands, and stop", action="store_true")
    add("local", help="subprocesses on this machine, without Ray", action="store_true")
    add("jobs", help="folds at a time on this machine (default: as many as fit)", **whole)
    add(
        "address",
        help="a running Ray cluster (auto, or HOST:PORT) in place of this machine",
        type=words,
        metavar="ADDRESS",
    )
    add("cpus_per_fold", help="CPUs, and threads of PyTorch (default: 1)", default=1, **whole)
    add("gpus_per_fold", help=shares, type=GpuShare(float, 0, MOST_WORKERS), metavar="N")
    add(
        "retries",
        help="times to start a lost fold again (default: 2)",
        type=within(0, MOST_RETRIES),
        default=2,
        metavar="N",
    )
    of_main = parser.add_argument_group("options of main.py, each with one or several values")
    known = {name: told for name, told in OPTIONS.items() if told.nature is not Nature.CALL}
    for name, told in known.items():
        text, nargs = told.help.replace("%", "%%"), "*" if told.kind is flag else "+"
        add_option(of_main, name, help=text, nargs=nargs, type=words, default=argparse.SUPPRESS, metavar="VALUE")
    options = parser.parse_args(argv)
    if options.address and (options.local or options.jobs):
        parser.error("--address names a cluster; --local and --jobs are for this machine")
    given = {name: values or ["True"] for name, values in vars(options).items() if name in known}
    return options, given


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from datasets.run_files import check_run_files
    from experiments.launch import launch
    from training.run_folder import RunFolder

    if not launch(options, given, RunFolder, check_run_files):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(run_script(main))
