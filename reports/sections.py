"""The sections of a report: runs, results, comparisons, figures."""

import re
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from reports.comparison import (
    SIGNIFICANT,
    Comparison,
    holm_corrected,
    other_test_slides,
    sentence,
    why_not_comparable,
)
from reports.finished_runs import FinishedRun
from reports.hit_ratio_plot import hit_ratio_figure, with_hit_ratio
from reports.markdown import MarkdownReport, file_name
from reports.paper import SOURCE, Beside, item_of_paper, measures_of
from reports.plots import confusion_figure, roc_figure
from reports.preset_figures import DRAWN
from reports.settings import ResultsTable, Setting, own_options, shared_options
from reports.tables import (
    PAPER_ORDER,
    comparison_frame,
    comparison_table,
    escape_markdown,
    paper_table,
    results_frame,
    table_of,
)
from training.metrics import AUC, F1, HIT_RATIO, missing_classes_note
from utils.presets import Preset
from utils.words import listed

OWN_MODEL = "hive-mil"
BESIDE = (
    f"Here and in the paper ({SOURCE}), in %: mean ± standard deviation. A difference is one between this setting and "
    "the paper's (features, weights, descriptions, splits, programs); nothing here is claimed as reproduced."
)
Compare = Callable[[Setting, Setting], Comparison]


def add_runs(
    report: MarkdownReport,
    runs: Sequence[FinishedRun],
    tables: Sequence[ResultsTable],
    tracks: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """A table of the runs, and what a reader must know of them. tracks: the evaluation track by the name of the run."""
    labels: dict[str, dict[str, None]] = {}
    for results in tables:
        for setting in results.cells.values():
            for run in setting.runs:
                labels.setdefault(run.name, {})[setting.label] = None
    rows = []
    shared = shared_options(runs)
    for run in runs:
        place = [str(run.options[name]) for name in ("task", "feature_extractor", "few_shot_num", "seed")]
        folds = f"{len(run.folds)} of {run.num_folds}"
        own = ", ".join(f"{name} {value}" for name, value in own_options(run).items() if name not in shared)
        rows.append([run.name, "; ".join(labels[run.name]), *place, own, folds, tracks[run.name]])
    columns = ["run", "model", "task", "extractor", "shots", "seed", "options", "folds", "evaluation track"]
    report.add("## Runs")
    report.add_table("runs", table_of(columns, rows, text_columns=len(columns)), pd.DataFrame(rows, columns=columns))
    if shared:
        text = ", ".join(f"{name} {value}" for name, value in shared.items())
        report.add(f"Options of all runs other than the defaults: {escape_markdown(text)}.")
    report.add_list(notes)


def add_results(report: MarkdownReport, results: ResultsTable, preset: Preset | None) -> None:
    """A table of results; of a preset, with the columns and the figure of the paper."""
    title = f"{results.preset or 'Results'}, {results.feature_extractor}"
    report.add(f"## {escape_markdown(title)}")
    if preset:
        report.add(f"{item_of_paper(results.preset or '')}: {escape_markdown(preset.about)}.")
    others = {column: other_test_slides(results.column(column)) for column in results.columns}
    caption = "In %, mean ± population standard deviation over folds"
    if any(len(setting.runs) > 1 for setting in results.cells.values()):
        caption += "; where a setting has several seeds, over the folds of all of them"
    report.add(f"{caption}.")
    measures = measures_of(preset) if preset else PAPER_ORDER
    table = paper_table(results, [column for column, labels in others.items() if labels], measures)
    report.add_table(file_name(results.name), table, results_frame(results))
    report.add_list(
        [
            f"{task}, {shots} shots: not ranked, since not all were tested on the same slides as the first row that is "
            f"complete: {', '.join(labels)}"
            for (task, shots), labels in others.items()
            if labels
        ]
    )
    report.add_list([note for setting in results.cells.values() for note in missing_class_notes(setting)])
    if preset and preset.report.figure:
        figure = DRAWN[preset.report.figure](results, measures)
        if figure:
            report.add_figure(file_name(results.name), figure, title)
        else:
            report.add(f"No figure ({preset.report.figure}): the runs lack what it draws.")


def add_published(report: MarkdownReport, results: ResultsTable, beside: Beside | None) -> None:
    """The paper's numbers beside those of a table of results."""
    report.add("### Beside the paper's numbers")
    if beside is None:
        report.add("The paper prints no numbers of these rows.")
        return
    report.add(BESIDE)
    report.add_table(f"{file_name(results.name)}_published", beside.table, beside.numbers)
    report.add_list(beside.notes)


def missing_class_notes(setting: Setting) -> list[str]:
    """A line for each set of test slides that lacks classes: in which folds, and what becomes of the metrics."""
    folds: dict[str, list[str]] = {}
    for (seed, number), fold in setting.folds.items():
        if note := missing_classes_note(fold.labels, setting.class_names):
            folds.setdefault(note, []).append(f"{number} (seed {seed})")
    return [f"{setting.title}, test of fold {listed(where, quote=False)}: {note}" for note, where in folds.items()]


def add_comparisons(
    report: MarkdownReport, results: ResultsTable, wanted: str | None, compare_two: Compare, resamples: int
) -> None:
    """The reference row against each other one, column by column: what the differences can bear. wanted: the row
    wanted as reference. resamples: of the bootstrap in ``compare_two``."""
    reference = reference_of(results, wanted)
    comparisons, notes = [], []
    for column in results.columns:
        first = results.cells.get((reference, column))
        for second in results.column(column):
            if first is None or second is first:
                continue
            if reason := why_not_comparable(first, second):
                notes.append(f"{second.title}: not compared with {reference}: {reason}")
            else:
                comparisons.append(compare_two(first, second))
    corrected = holm_corrected(comparisons)
    if comparisons:
        report.add(f"### {escape_markdown(reference)} against the others")
        name = f"{file_name(results.name)}_comparisons"
        report.add_table(name, comparison_table(comparisons, corrected), comparison_frame(comparisons, corrected))
        report.add_list(
            [
                f"{one.first.task}, {one.first.shots} shots, {one.num_folds} folds: {sentence(one, p, len(corrected))}"
                for one, p in zip(comparisons, corrected, strict=True)
            ]
        )
    if 2 * len(comparisons) / (resamples + 1) >= SIGNIFICANT:
        notes.append(
            f"{resamples} resamples are too few for {len(comparisons)} comparisons: no corrected p value of the "
            f"bootstrap can be below {SIGNIFICANT}; take more with --resamples"
        )
    report.add_list(notes)


def reference_of(results: ResultsTable, wanted: str | None) -> str:
    """The wanted row, or that of the project's own model, "HiVE-MIL", "(d) HiVE-MIL" or "... (HiVE-MIL)" as in the
    presets, or the one with the highest mean AUC."""
    spelt = {re.sub(r"^\(\w\) ", "", label.lower().replace("_", "-")): label for label in results.rows}
    own = [label for name, label in spelt.items() if name == OWN_MODEL or name.endswith(f"({OWN_MODEL})")]
    if wanted in results.rows or own:
        return wanted if wanted in results.rows else own[0]

    def mean_auc(label: str) -> float:
        cells = [results.cells.get((label, column)) for column in results.columns]
        values = [setting.values(AUC).mean() for setting in cells if setting and setting.folds]
        return sum(values) / len(values) if values else float("-inf")

    return max(results.rows, key=mean_auc)


def add_figures(report: MarkdownReport, settings: Mapping[str, Setting]) -> None:
    """Settings by the name of their files."""
    report.add("## Figures")
    if chosen := with_hit_ratio(list(settings.values())):
        title = f"{HIT_RATIO.title} against macro {F1.title}"
        report.add(f"### {title}")
        report.add("Means over folds.")
        report.add_figure(HIT_RATIO.key, hit_ratio_figure(chosen), title)
    for name, setting in settings.items():
        labels, probabilities = setting.test_predictions()
        report.add(f"### {escape_markdown(setting.title)}")
        report.add_figure(f"roc_{name}", roc_figure(labels, probabilities, setting.class_names), "ROC curves")
        confusion = confusion_figure(labels, probabilities.argmax(1), setting.class_names)
        report.add_figure(f"confusion_{name}", confusion, "confusion matrix")
