"""Check hierarchical feature files against the low and high ones of the same slides; --fix repairs them."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import add_config_option, add_folder_options, add_option
from utils.config import Config
from utils.errors import UserError, run_script
from utils.options import at_least

if TYPE_CHECKING:
    from datasets.consistency import SlideCheck
    from datasets.folders import FeatureFolders
    from datasets.projection import Projection

EXIT_FAULTS = 1


@dataclass(frozen=True)
class SlideJob:
    """level0: magnification of the slide's level 0, where the table has it. projection: of CONCH, where it is asked
    for."""

    folders: "FeatureFolders"
    slide_id: str
    level0: float | None
    fix: bool
    projection: "Projection | None"


@dataclass
class SlideReport:
    """before: what was found. after: what is left once the file was repaired. refusal: why it was not."""

    before: "SlideCheck"
    after: "SlideCheck | None" = None
    refusal: str = ""

    @property
    def last(self) -> "SlideCheck":
        return self.after or self.before

    def verdict(self) -> str:
        """ok, the kinds of fault, or what a repair led to."""
        kinds = ", ".join(dict.fromkeys(fault.kind for fault in self.last.faults))
        if self.after:
            return f"repaired, but: {kinds}" if kinds else "repaired"
        return kinds or "ok"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)

    add = partial(add_option, parser)
    add_folder_options(parser)
    add_config_option(
        parser, "dataset_csv", help="table of slides, read for level0_mag (default: dataset_csv/<task>.csv)"
    )
    workers = min(8, os.cpu_count() or 1)
    add("workers", type=at_least(1), default=workers, help=f"processes (default: {workers})")
    add("fix", action="store_true", help="repair what can be repaired; the old file stays as .bak")
    text = "CONCH's pytorch_model.bin: with --fix, project and normalise CONCH features from before the projection"
    add("project-with", type=Path, help=text)
    options = parser.parse_args(argv)
    if options.project_with and not options.fix:
        parser.error("--project-with changes files: expected together with --fix")
    return options


def plan(options: argparse.Namespace) -> list[SlideJob]:
    """A job for every slide that has a low or a hierarchical file. Raises UserError where there are none."""
    from conch.image_tower import read_projection
    from datasets.feature_layouts import read_level0_magnifications
    from datasets.folders import FeatureFolders
    from datasets.projection import load_projection

    folders = FeatureFolders(
        options.data_root_dir, options.task, options.feature_extractor, options.low_mag, options.high_mag,
    )  # fmt: skip
    kinds = folders.low_file, folders.hierarchical_file
    slide_ids = sorted({path.stem for kind in kinds for path in kind("*").parent.glob("[!.]*.h5")})
    if not slide_ids:
        places = " and ".join(str(kind("*").parent) for kind in kinds)
        raise UserError(f"{places}: no feature files. Make them with: {folders.hierarchy_command()}")
    table = Config(task=options.task, dataset_csv=options.dataset_csv).csv_path()
    level0 = read_level0_magnifications(table) if options.dataset_csv or table.is_file() else {}
    projection = options.project_with and load_projection(options.project_with, read_projection)
    return [SlideJob(folders, slide_id, level0.get(slide_id), options.fix, projection) for slide_id in slide_ids]


def examine(job: SlideJob) -> SlideReport:
    """Check a slide, and with ``fix`` repair it and check it again."""
    from datasets.consistency import check_slide, repair_slide

    report = SlideReport(check_slide(job.folders, job.slide_id, job.level0))
    to_project = job.projection and not report.before.normalised
    if not job.fix or not (report.before.is_repairable or to_project):
        return report
    try:
        repair_slide(job.folders, job.slide_id, job.level0, job.projection)
    except UserError as error:
        report.refusal = "; ".join(map(str, error.faults))
    except OSError as error:
        report.refusal = f"not written ({error})"
    else:
        report.after = check_slide(job.folders, job.slide_id, job.level0)
    return report


def show(reports: list[SlideReport]) -> None:
    """Print a row a slide, the summary, and every fault and note."""
    width = max(len("slide"), *(len(report.before.slide_id) for report in reports))
    print(f"{'slide':<{width}} {'parents':>8} {'children':>9} {'childless':>9}  result")
    for report in reports:
        last = report.last
        print(f"{last.slide_id:<{width}} {last.parents:>8} {last.children:>9} {last.childless:>9}  {report.verdict()}")
    faulty = sum(bool(report.last.faults) for report in reports)
    repaired = sum(report.after is not None for report in reports)
    print(f"\n{len(reports)} slides: {len(reports) - faulty} consistent ({repaired} repaired), {faulty} with faults")
    kinds = Counter(kind for report in reports for kind in {fault.kind for fault in report.last.faults})
    for kind, number in kinds.most_common():
        print(f"  {kind}: {number} slides")
    for report in reports:
        for fault in report.last.faults:
            print(f"{report.before.slide_id}: {fault.kind}: {fault.text}")
        if report.refusal:
            print(f"{report.before.slide_id}: not repaired: {report.refusal}")
    notes = Counter(note for report in reports for note in report.last.notes)
    for note, number in notes.most_common():
        print(f"note: {note} ({number} slides)")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from utils.workers import over_slides

    reports = over_slides(examine, plan(options), options.workers, "checking")
    show(reports)
    if any(report.last.faults for report in reports):
        if not options.fix and any(report.before.is_repairable for report in reports):
            print("--fix repairs hierarchical files from the low and high ones, and keeps the old ones as .bak")
        sys.exit(EXIT_FAULTS)


if __name__ == "__main__":
    sys.exit(run_script(main))
