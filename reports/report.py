"""The sections of a report on settings: results, comparisons, calibration, figures; and the files they name."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.calibration import brier_score, expected_calibration_error
from reports.comparison import (
    SIGNIFICANT,
    Comparison,
    holm_corrected,
    other_test_slides,
    sentence,
    why_not_comparable,
)
from reports.plots import confusion_figure, roc_figure, save_png
from reports.setting_figures import hit_ratio_figure, with_hit_ratio
from reports.settings import ResultsTable, Setting
from reports.tables import (
    Table,
    comparison_frame,
    comparison_table,
    escape_markdown,
    mean_and_std,
    paper_table,
    results_frame,
    table_of,
)
from utils.files import write_text

OWN_MODEL = "hive-mil"
METHODS = """\
- Results: mean ± population standard deviation over the finished folds of all seeds, in %; of one fold its value. AUC:
  of the second class for two classes, else the mean of the one-vs-rest AUCs; F1: macro. Best in bold, second best
  underlined, by the mean as printed.
- Intervals: patients of the test sets are drawn with replacement ({resamples} times), all their slides in all folds and
  seeds with them; the statistic is the mean over folds of the difference; percentiles 2.5 and 97.5, and the two-sided p
  value of the test that they invert. They say how far the trained models would differ on other patients, not how other
  training slides would have changed the models.
- Corrected resampled t test (Nadeau and Bengio 2003) over folds, for the latter: variance times 1/J + n2/n1, with J
  folds and n2/n1 test slides by training slides. Seeds that share a fold's slides are averaged first. Few-shot training
  sets are far smaller than the test sets, which makes this test cautious.
- McNemar's test, exact: each slide once, predicted by the mean of its probabilities over the folds and seeds that
  tested it. It takes slides as independent; patients with several slides make it too sure.
- Holm's correction: over all comparisons of a table, test by test.
- Calibration: expected calibration error (15 bins of the predicted class's probability) and Brier score (summed over
  the classes), mean ± standard deviation over folds.
- Calibration and figures: what several tables list is shown once, under its first label; the table of runs has all of
  them.
- ROC curves and confusion matrices: the test predictions of all folds and seeds together, so that a slide counts as
  often as it was tested, and an AUC there is not the mean over folds.
"""


Compare = Callable[[Setting, Setting], Comparison]


@dataclass
class Report:
    """report.md in the making; tables and figures are written as they are added."""

    folder: Path
    parts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """A paragraph of Markdown."""
        self.parts.append(text)

    def add_list(self, lines: Sequence[str]) -> None:
        """A list of plain texts."""
        if lines:
            self.add("\n".join(f"- {escape_markdown(line)}" for line in lines))

    def add_table(self, name: str, table: Table, numbers: pd.DataFrame) -> None:
        write_text(self.folder / "tables" / f"{name}.csv", numbers.to_csv(index=False))
        write_text(self.folder / "tables" / f"{name}.tex", table.latex())
        self.add(f"{table.markdown()}\n\n([CSV](tables/{name}.csv), [LaTeX](tables/{name}.tex))")

    def add_figure(self, name: str, figure: Figure, what: str) -> None:
        save_png(figure, self.folder / "figures" / f"{name}.png")
        self.add(f"![{escape_markdown(what)}](figures/{name}.png)")

    def write(self) -> Path:
        path = self.folder / "report.md"
        write_text(path, "\n\n".join(self.parts))
        return path


def file_name(text: str) -> str:
    """The text with every run of signs that file names and links may not hold made a _."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("_")


def add_results(
    report: Report, results: ResultsTable, reference: str | None, compare_two: Compare, resamples: int
) -> None:
    """A table of results and what its differences can bear. reference: the row wanted as such; resamples: of the
    bootstrap in ``compare_two``."""
    title = f"{results.preset or 'Results'}, {results.feature_extractor}"
    report.add(f"## {escape_markdown(title)}")
    others = {column: other_test_slides(results.column(column)) for column in results.columns}
    caption = "In %, mean ± population standard deviation over folds"
    if any(len(setting.runs) > 1 for setting in results.cells.values()):
        caption += "; where a setting has several seeds, over the folds of all of them"
    report.add(f"{caption}.")
    table = paper_table(results, [column for column, labels in others.items() if labels])
    report.add_table(file_name(results.name), table, results_frame(results))
    report.add_list(
        [
            f"{task}, {shots} shots: not ranked, since not all were tested on the same slides as the first row that is "
            f"complete: {', '.join(labels)}"
            for (task, shots), labels in others.items()
            if labels
        ]
    )
    add_comparisons(report, results, reference_of(results, reference), compare_two, resamples)


def add_comparisons(
    report: Report, results: ResultsTable, reference: str, compare_two: Compare, resamples: int
) -> None:
    """The reference row against each other one, column by column."""
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
    """The wanted row, or that of the project's own model, "HiVE-MIL" or "... (HiVE-MIL)" as in the presets, or the one
    with the highest mean AUC."""
    spelt = {label.lower().replace("_", "-"): label for label in results.rows}
    own = [label for name, label in spelt.items() if name == OWN_MODEL or name.endswith(f"({OWN_MODEL})")]
    if wanted in results.rows or own:
        return wanted if wanted in results.rows else own[0]

    def mean_auc(label: str) -> float:
        cells = [results.cells.get((label, column)) for column in results.columns]
        values = [setting.values("test_auc").mean() for setting in cells if setting and setting.folds]
        return sum(values) / len(values) if values else float("-inf")

    return max(results.rows, key=mean_auc)


def add_calibration(report: Report, settings: Sequence[Setting]) -> None:
    rows, numbers = [], []
    for setting in settings:
        folds = setting.folds.values()
        row = [setting.label, setting.task, setting.feature_extractor, str(setting.shots)]
        row.append(f"{len(folds)} of {setting.expected}")
        ece = np.array([expected_calibration_error(fold.labels, fold.probabilities) for fold in folds])
        brier = np.array([brier_score(fold.labels, fold.probabilities) for fold in folds])
        rows.append([*row, mean_and_std(ece, 1, 4), mean_and_std(brier, 1, 4)])
        numbers.append([*row, ece.mean(), ece.std(), brier.mean(), brier.std()])
    names = ["model", "task", "extractor", "shots", "folds"]
    columns = [*names, "ece_mean", "ece_std", "brier_mean", "brier_std"]
    report.add("## Calibration")
    report.add("Of the test slides: mean ± population standard deviation over folds.")
    table = table_of([*names, "ECE", "Brier score"], rows, text_columns=3)
    report.add_table("calibration", table, pd.DataFrame(numbers, columns=columns))


def add_figures(report: Report, settings: Mapping[str, Setting]) -> None:
    """Settings by the name of their files."""
    report.add("## Figures")
    if chosen := with_hit_ratio(list(settings.values())):
        report.add("### Hit Ratio@2 against macro F1")
        report.add("Means over folds.")
        report.add_figure("hit_ratio", hit_ratio_figure(chosen), "Hit Ratio@2 against macro F1")
    for name, setting in settings.items():
        labels, probabilities = setting.test_predictions()
        report.add(f"### {escape_markdown(setting.title)}")
        report.add_figure(f"roc_{name}", roc_figure(labels, probabilities, setting.class_names), "ROC curves")
        confusion = confusion_figure(labels, probabilities.argmax(1), setting.class_names)
        report.add_figure(f"confusion_{name}", confusion, "confusion matrix")


def settings_by_file(tables: Sequence[ResultsTable]) -> dict[str, Setting]:
    """The settings with a finished fold by a name for their files, each once: where tables list the same runs under
    several labels, under the first."""
    found: dict[str, Setting] = {}
    seen: set[tuple[str, ...]] = set()
    for results in tables:
        for column in results.columns:
            for setting in results.column(column):
                runs = tuple(run.name for run in setting.runs)
                if not setting.folds or runs in seen:
                    continue
                seen.add(runs)
                name = file_name(f"{setting.task}_{setting.feature_extractor}_{setting.shots}_{setting.label}")
                while name.lower() in map(str.lower, found):
                    name += "_"
                found[name] = setting
    return found
