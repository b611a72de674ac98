"""Report on any set of results of main.py: tables as papers print them, paired tests, ROC curves, calibration."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import add_option
from utils.config import Config
from utils.errors import Faults, UserError, run_script
from utils.options import at_least

if TYPE_CHECKING:
    from datasets.evaluation_track import RunSplits
    from reports.comparison import Comparison
    from reports.finished_runs import Run
    from reports.report import Report
    from reports.settings import ResultsTable, Setting


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("results", type=Path, nargs="+", help="folders of results, or runs' folders")
    add = partial(add_option, parser)
    add("output-dir", type=Path, required=True, help="folder for report.md, tables/ and figures/")
    add("reference", help="label of the row that the others are compared with (default: HiVE-MIL, else the best AUC)")
    add("resamples", type=at_least(1), default=5000, metavar="N", help="of the bootstrap (default: 5000)")
    add("seed", type=at_least(0), default=1, metavar="N", help="of the bootstrap (default: 1)")
    return parser.parse_args(argv)


def read_splits(run: "Run") -> "RunSplits":
    """The splits of a run's finished folds. Raises UserError where one is missing or is not what was tested."""
    from datasets.evaluation_track import read_run_splits

    table = Config(task=run.options["task"], dataset_csv=run.options["dataset_csv"]).csv_path()
    splits = read_run_splits({fold: run.folder.split(fold) for fold in run.folds}, table)
    faults = [
        f"{run.folder.predictions(number)}: its test slides are not those of {run.folder.split(number).name}, expected "
        f"the same; remove {run.folder.fold_result(number).name} and train the fold again"
        for number, split in splits.folds.items()
        if {slide.slide_id for slide in split.test} != set(run.folds[number].slide_ids)
    ]
    if faults:
        raise UserError(faults)
    return splits


def track_of(run: "Run", splits: "RunSplits") -> str:
    from datasets.evaluation_track import evaluation_track
    from datasets.released import RELEASED

    if not run.folds:
        return "no finished fold"
    published = set(RELEASED["files"].values())
    return evaluation_track(splits, all(run.inputs.get(f"splits_{fold}") in published for fold in run.folds))


def notes_on(run: "Run", splits: "RunSplits") -> list[str]:
    """What a reader must know of one run: folds that are missing, where its patients come from."""
    from utils.files import file_sha256

    notes = []
    if run.missing:
        notes.append(f"fold {', '.join(map(str, run.missing))} of {run.options['k']} not finished")
    table = Config(task=run.options["task"], dataset_csv=run.options["dataset_csv"]).csv_path()
    if not splits.has_table:
        notes.append(f"{table.name} not found: a slide counts as a patient where its name is no TCGA barcode")
    elif file_sha256(table) != run.inputs.get("dataset_csv"):
        notes.append(f"{table.name} has changed since the run: patients are as it says now")
    return notes


def add_runs(
    report: "Report",
    runs: Sequence["Run"],
    tables: Sequence["ResultsTable"],
    splits: Mapping[str, "RunSplits"],
    notes: Sequence[str],
) -> None:
    """A table of the runs, and what a reader must know of them."""
    import pandas as pd

    from reports.settings import own_options, shared_options
    from reports.tables import escape_markdown, table_of

    labels: dict[str, dict[str, None]] = {}
    for results in tables:
        for setting in results.cells.values():
            for run in setting.runs:
                labels.setdefault(run.name, {})[setting.label] = None
    rows = []
    notes = list(notes)
    shared = shared_options(runs)
    for run in runs:
        place = [str(run.options[name]) for name in ("task", "feature_extractor", "few_shot_num", "seed")]
        folds = f"{len(run.folds)} of {run.options['k']}"
        own = ", ".join(f"{name} {value}" for name, value in own_options(run).items() if name not in shared)
        rows.append([run.name, "; ".join(labels[run.name]), *place, own, folds, track_of(run, splits[run.name])])
        notes += [f"{run.name}: {note}" for note in notes_on(run, splits[run.name])]
    columns = ["run", "model", "task", "extractor", "shots", "seed", "options", "folds", "evaluation track"]
    report.add("## Runs")
    report.add_table("runs", table_of(columns, rows, text_columns=len(columns)), pd.DataFrame(rows, columns=columns))
    if shared:
        text = ", ".join(f"{name} {value}" for name, value in shared.items())
        report.add(f"Options of all runs other than the defaults: {escape_markdown(text)}.")
    report.add_list(notes)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from reports.comparison import compare
    from reports.finished_runs import read_runs
    from reports.report import METHODS, Report, add_calibration, add_figures, add_results, settings_by_file
    from reports.settings import build_tables

    by_path, entries, notes = read_runs(options.results)
    tables = build_tables(by_path, entries)
    rows = list(dict.fromkeys(row for results in tables for row in results.rows))
    if options.reference is not None and options.reference not in rows:
        raise UserError(f"--reference {options.reference}: no such row; found {', '.join(rows)}")
    faults = Faults()
    runs = sorted(by_path.values(), key=lambda run: run.name)
    splits = {run.name: found for run in runs if (found := faults.maybe(read_splits, run))}
    if faults.found:
        raise UserError(list(dict.fromkeys(faults.found)))  # runs share tables

    def compare_two(first: "Setting", second: "Setting") -> "Comparison":
        patients = {slide.slide_id: slide.patient for run in first.runs for slide in splits[run.name].slides()}
        training = {
            (run.seed, number): frozenset(slide.slide_id for slide in split.train)
            for run in first.runs
            for number, split in splits[run.name].folds.items()
        }
        return compare(first, second, patients, training, options.resamples, options.seed)

    report = Report(options.output_dir)
    report.add("# Results")
    add_runs(report, runs, tables, splits, notes)
    for results in tables:
        add_results(report, results, options.reference, compare_two, options.resamples)
    if settings := settings_by_file(tables):
        add_calibration(report, list(settings.values()))
        add_figures(report, settings)
    report.add(f"## Methods\n\n{METHODS.format(resamples=options.resamples)}")
    print(f"written: {report.write()}")


if __name__ == "__main__":
    sys.exit(run_script(main))
