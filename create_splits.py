"""Make the splits of a task: folds with a few training slides a class and no shared patient; or audit existing ones."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from utils.arguments import Parser, add_option
from utils.config import PROJECT, Config
from utils.errors import run_script
from utils.names import folder_name
from utils.options import MOST_FOLDS, at_least, location, regular_expression, seed, within

OPTIONS_OF_AUDIT = {"audit", "task", "dataset_csv"}


def parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """The options that were given."""
    parser = Parser(description=__doc__, argument_default=argparse.SUPPRESS)

    def add(name: str, text: str, **settings: Any) -> None:
        add_option(parser, name, help=text, **settings)

    positive: dict[str, Any] = {"type": at_least(1), "metavar": "N"}
    add("task", "name of the task; needed but for --audit of folders called <task>_<shots>", type=folder_name)
    add("dataset_csv", "CSV of slides and labels (default: dataset_csv/<task>.csv)", type=location, metavar="FILE")
    add("output_dir", "folder to write <task>_<shots>/ to (default: splits/<task>)", type=location, metavar="DIR")
    add("few_shot_num", "training slides a class, several at once (default: 4 8 16)", nargs="+", **positive)
    add("k", "folds (default: 5)", type=within(1, MOST_FOLDS), metavar="N")
    add("seed", "of the draw; fold 0 is the same for any --k (default: 1)", type=seed)
    add("group", "what is never divided between splits (default: patient)", choices=["patient", "site", "slide"])
    add("balanced_test", "test on N slides of each class (default: all of the test share)", **positive)
    add("balanced_val", "validate on N slides of each class (default: all of the val share)", **positive)
    add("exclude_normals", "leave out TCGA sample types 10 to 14, normal tissue", action="store_true")
    add(
        "test_slides",
        "test on the slides whose names this matches at their start, in every fold (Camelyon16's own test set: test_)",
        type=regular_expression,
        metavar="REGEX",
    )
    add("overwrite", "replace splits that are others than would be written", action="store_true")
    add(
        "audit",
        "only report on the split files in DIR or below it; exit code 1 on faults",
        type=location,
        metavar="DIR",
    )
    given = vars(parser.parse_args(argv))
    if "audit" not in given and "task" not in given:
        parser.error("--task is required")
    if "audit" in given and (others := sorted(given.keys() - OPTIONS_OF_AUDIT)):
        parser.error(f"--audit takes --task and --dataset_csv, found --{', --'.join(others)}")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    given = parse(argv)
    from datasets import split_report, write_splits

    task, path, folder = (given.pop(name, None) for name in ("task", "dataset_csv", "output_dir"))
    if "audit" in given:
        if not split_report.audit_splits(given["audit"], task, path):
            sys.exit(1)
        return
    path = path or Config(task=task).csv_path()
    options = write_splits.SplitOptions(**given)
    write_splits.make_split_files(task, path, folder or PROJECT / "splits" / task, options)


if __name__ == "__main__":
    sys.exit(run_script(main))
