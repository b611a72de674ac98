"""Report on any set of results of main.py: tables as papers print them, paired tests, ROC curves, calibration."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from utils.arguments import Parser, add_option
from utils.errors import run_script
from utils.options import location, seed, within, words
from utils.outputs import check_output_folder

MOST_RESAMPLES = 100_000

if TYPE_CHECKING:
    from reports.compose import RunSlides
    from reports.finished_runs import FinishedRun


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("results", type=location, nargs="+", help="folders of results, or runs' folders")
    add = partial(add_option, parser)
    add("output-dir", type=location, required=True, help="folder for report.md, tables/ and figures/")
    add(
        "reference",
        type=words,
        help="label of the row that the others are compared with (default: HiVE-MIL, else the best AUC)",
    )
    add(
        "resamples",
        type=within(1, MOST_RESAMPLES),
        default=5000,
        metavar="N",
        help="of the bootstrap (default: 5000)",
    )
    add("seed", type=seed, default=1, metavar="N", help="of the bootstrap (default: 1)")
    add("published", action="store_true", help="put the paper's numbers beside those of its presets' runs")
    return parser.parse_args(argv)


def slides_of(run: "FinishedRun") -> "RunSlides":
    """Who was trained on and who was tested, from the split files in a run's folder and the task's table of slides.

    Raises UserError where a split file of a finished fold is missing or damaged.
    """
    from datasets.evaluation_track import evaluation_track, read_run_splits
    from datasets.released import RELEASED
    from reports.compose import RunSlides

    splits = read_run_splits({fold: run.folder.split(fold) for fold in run.folds}, run.table)
    published = set(RELEASED["files"].values())
    is_released = all(run.record.inputs.get(f"splits_{fold}") in published for fold in run.folds)
    return RunSlides(
        track=evaluation_track(splits, is_released) if run.folds else "no finished fold",
        patients={slide.slide_id: slide.patient for slide in splits.slides()},
        training={fold: frozenset(slide.slide_id for slide in split.train) for fold, split in splits.folds.items()},
        tested={fold: frozenset(slide.slide_id for slide in split.test) for fold, split in splits.folds.items()},
    )


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    check_output_folder("--output-dir", options.output_dir)
    from reports.compose import write_report

    path = write_report(
        options.results,
        slides_of,
        options.output_dir,
        options.reference,
        options.resamples,
        options.seed,
        options.published,
    )
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(run_script(main))
