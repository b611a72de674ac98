"""The results of a run as one HTML file that needs nothing beside it: no server, no network."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from reports.finished_runs import FinishedRun, read_finished_run
from reports.plots import confusion_figure, data_uri, history_figure, reliability_figure, roc_figure
from reports.templating import page_template
from training.metrics import HIT_RATIO, RESULT_COLUMNS, missing_classes_note
from training.run_reader import RunReader
from training.run_tables import arrays
from utils.config import Config
from utils.errors import Fault, Faults, UserError
from utils.files import write_text
from utils.outputs import check_outputs

PAGE = "results.html"


def write_pages(runs: Sequence[Path], output: Path | None, explanations: Path | None) -> None:
    """Write the page of each run, and say where it lies.

    runs: folders of runs. output: an HTML file, or a folder for <run>.html of each run; None for results.html in each
    run's folder. explanations: folder with <slide_id>.html, to link to. Raises UserError with the faults of all runs,
    before anything is written.
    """
    runs = list({run.resolve(): run for run in runs}.values())
    pages = page_paths(runs, output)
    read = [file for run in runs for file in RunReader(run).own_files()]
    shown = explanations.glob("*.html") if explanations else ()
    check_outputs(f"--output {output}", pages, [*read, *shown])
    if explanations and not explanations.is_dir():
        where = f"--explanations {explanations}"
        raise UserError(Fault("folder.missing", where, "no such folder", mend="explain.py writes one"))
    faults = Faults()
    found = [faults.attempt(_read_for_page, run) for run in runs]
    faults.raise_any()
    for run, page in zip((attempt.value for attempt in found), pages, strict=True):
        addresses = explanation_addresses(run, explanations, page) if explanations else {}
        if explanations and not addresses:
            print(f"note: {explanations} has no page of a slide of {run.name}")
        for note in run.notes:
            print(f"note: {run.name}: {note}")
        if run.missing:
            print(f"note: {run.name}: not finished, so not on the page: fold {', '.join(map(str, run.missing))}")
        write_text(page, render_results(run, addresses))
        print(f"page of {run.name}: {page}")


def page_paths(runs: Sequence[Path], output: Path | None) -> list[Path]:
    """Where the page of each run goes. Raises UserError where two pages would be one file."""
    if output is None:
        return [run / PAGE for run in runs]
    if output.suffix.lower() in (".html", ".htm") and not output.is_dir():
        pages = [output] * len(runs)
    elif output.is_file():
        expected = "a folder, or a name that ends in .html"
        raise UserError(Fault("output.file", f"--output {output}", "is a file", expected))
    else:
        pages = [output / f"{run.resolve().name}.html" for run in runs]
    faults = Faults()
    for page in sorted(set(pages)):
        same = [str(run) for run, other in zip(runs, pages, strict=True) if other == page]
        if len(same) > 1:
            found = f"would be the page of {' and of '.join(same)}"
            faults.add(Fault("output.same_file", str(page), found, mend="leave --output out"))
    faults.raise_any()
    return pages


def _read_for_page(path: Path) -> FinishedRun:
    """A run with its histories. Raises UserError as ``read_finished_run`` does, and where no fold is finished."""
    run = read_finished_run(path, path.resolve().name, with_history=True)
    if not run.folds:
        expected = ", ".join(run.folder.fold_result(fold).name for fold in run.missing)
        raise UserError(
            Fault(
                "run.unfinished", str(path), "no fold is finished", expected=f"some of {expected}",
                mend="finish the run with main.py --resume",
            )
        )  # fmt: skip
    return run


def render_results(run: FinishedRun, explanations: Mapping[str, str]) -> str:
    """The page of a run. explanations: slide_id -> address of its explanation page, for those that have one."""
    summary = pd.DataFrame([asdict(fold.result) for fold in run.folds.values()])
    metrics = summary[list(RESULT_COLUMNS)]
    histories = {number: fold.history for number, fold in run.folds.items() if fold.history is not None}
    best_epochs = {number: fold.result.best_epoch for number, fold in run.folds.items()}
    rows = pd.concat(fold.predictions.assign(fold=number) for number, fold in run.folds.items())
    tests = rows[rows["split"] == "test"]
    by_fold = tests.groupby("fold") if len(run.folds) > 1 else []
    return page_template("results.html").render(
        decimals=decimals,
        run=run,
        metric_titles=RESULT_COLUMNS,
        hit_ratio_title=f"test {HIT_RATIO.title}",
        results=summary.to_dict("records"),
        mean=metrics.mean().to_dict(),
        std=metrics.std(ddof=0).to_dict(),
        undefined=[title for name, title in RESULT_COLUMNS.items() if metrics[name].isna().any()],
        class_notes=[
            note
            for (number, split), table in rows.groupby(["fold", "split"])
            if (note := _class_note(f"fold {number}, {split}", table, run.class_names))
        ],
        history=data_uri(history_figure(histories, best_epochs)),
        pooled=figures(tests, run.class_names),
        num_test_slides=tests["slide_id"].nunique(),
        figures={f"Fold {number}": figures(table, run.class_names) for number, table in by_fold},
        rows=rows.sort_values(["fold", "split"], kind="stable").to_dict("records"),
        explanations=explanations,
        defaults=Config().to_dict(),
    )


def _class_note(where: str, table: pd.DataFrame, class_names: list[str]) -> str | None:
    """What a reader must know of the metrics of a part that lacks classes."""
    note = missing_classes_note(arrays(table, class_names)[0], class_names)
    return f"{where}: {note}" if note else None


def decimals(value: float, count: int) -> str:
    return "–" if pd.isna(value) else f"{value:.{count}f}"


def explanation_addresses(run: FinishedRun, folder: Path, page: Path) -> dict[str, str]:
    """Addresses, relative to the page, of <folder>/<slide_id>.html for the slides that have one."""
    slide_ids = {slide_id for fold in run.folds.values() for slide_id in fold.predictions["slide_id"]}
    way = Path(os.path.relpath(folder.resolve(), page.parent.resolve()))
    files = {slide_id: f"{slide_id}.html" for slide_id in slide_ids}
    return {slide_id: quote((way / file).as_posix()) for slide_id, file in files.items() if (folder / file).is_file()}


def figures(predictions: pd.DataFrame, class_names: list[str]) -> dict[str, str]:
    """Of test slides: title -> source of the image."""
    labels, probabilities = arrays(predictions, class_names)
    predicted = pd.Index(class_names).get_indexer(predictions["prediction"])
    return {
        "ROC curves": data_uri(roc_figure(labels, probabilities, class_names)),
        "Confusion matrix": data_uri(confusion_figure(labels, predicted, class_names)),
        "Calibration": data_uri(reliability_figure(labels, probabilities)),
    }
