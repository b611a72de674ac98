"""Tables for reading: Markdown and LaTeX (booktabs) of the same cells; and the table of results as papers print it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reports.comparison import Comparison, p_number
from reports.settings import TESTED, Column, ResultsTable, Setting
from training.metrics import ACC, AUC, CLASSIFICATION, F1, HIT_RATIO, Measure

PAPER_ORDER = (ACC, AUC, F1)
RANKED = (*CLASSIFICATION, HIT_RATIO)
GAP = "difference from second best"
EMPTY = "-"
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
        "±": r"$\pm$",
    }
)


class Cell(NamedTuple):
    """rank: 1 is set bold, 2 underlined, 0 plain."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """columns: a heading each, of one or several levels. rows: as many cells each. text_columns: the first ones, set on
    the left. has_total: the last row is set apart."""

    columns: list[tuple[str, ...]]
    rows: list[list[Cell]]
    text_columns: int = 1
    has_total: bool = False

    def markdown(self) -> str:
        marks = ("{}", "**{}**", "<ins>{}</ins>")
        head = [escape_markdown(", ".join(filter(None, column))) for column in self.columns]
        body = [[marks[cell.rank].format(escape_markdown(cell.text)) for cell in row] for row in self.rows]
        ruler = [":--" if index < self.text_columns else "--:" for index in range(len(head))]
        return "\n".join(f"| {' | '.join(line)} |" for line in [head, ruler, *body])

    def latex(self) -> str:
        """A tabular with the rules of booktabs; headings of equal text are joined."""
        marks = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
        body = [[marks[cell.rank].format(escape_latex(cell.text)) for cell in row] for row in self.rows]
        frame = pd.DataFrame(body, columns=_headings(self.columns))
        form = "l" * self.text_columns + "r" * (len(self.columns) - self.text_columns)
        text: str = frame.style.hide(axis="index").to_latex(hrules=True, column_format=form, multicol_align="c")
        if not self.has_total:
            return text
        lines = text.splitlines(keepends=True)
        return "".join([*lines[:-3], "\\midrule\n", *lines[-3:]])


def _headings(columns: Sequence[tuple[str, ...]]) -> pd.Index:
    escaped = [tuple(map(escape_latex, column)) for column in columns]
    return pd.Index([name for (name,) in escaped]) if len(columns[0]) == 1 else pd.MultiIndex.from_tuples(escaped)


def escape_latex(text: str) -> str:
    """Text of one line; a hyphen before a number that starts a word is a minus."""
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", " ".join(text.split()).translate(LATEX))


def escape_markdown(text: str) -> str:
    """Text of one line that Markdown shows as it is; underscores within words need no sign."""
    text = re.sub(r"([\\`*\[\]<>|&~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> Table:
    """A table of plain texts."""
    return Table([(name,) for name in columns], [[Cell(text) for text in row] for row in rows], text_columns)


def mean_and_std(values: np.ndarray, measure: Measure) -> str:
    """Mean ± population standard deviation of a measure; one value by itself; - where there is none."""
    if not len(values) or np.isnan(values).any():
        return EMPTY
    mean = measure.printed(values.mean())
    return mean if len(values) == 1 else f"{mean} ± {measure.printed(values.std())}"


def paper_table(results: ResultsTable, unranked: Sequence[Column], measures: Sequence[Measure] = PAPER_ORDER) -> Table:
    """Rows: labels; columns: the measures for each task and number of shots, in %. The best mean as printed is bold,
    the second best underlined, and a last row has their difference. A setting that lacks folds is shown with their
    number and not ranked; nor are those of the ``unranked`` columns, nor measures of which neither more nor less is
    better."""
    columns: list[tuple[str, ...]] = [("model", "", "")]
    rows: list[list[Cell]] = [[Cell(label)] for label in results.rows]
    gaps = [Cell(GAP)]
    for column in results.columns:
        task, shots = column
        settings = [results.cells.get((label, column)) for label in results.rows]
        for measure in measures:
            columns.append((task, f"{shots} shots", measure.title))
            is_ranked = column not in unranked and measure in RANKED
            means = [_ranked_mean(setting, measure) if is_ranked else np.nan for setting in settings]
            ranked = sorted((mean for mean in means if not np.isnan(mean)), reverse=measure.higher_is_better)
            first, second = ranked[:2] if len(ranked) > 1 else (np.nan, np.nan)
            for row, setting, mean in zip(rows, settings, means, strict=True):
                rank = 1 if mean == first else 2 if mean == second else 0
                row.append(Cell(cell_text(setting, measure), rank))
            gaps.append(Cell(f"{abs(first - second):.{measure.decimals}f}" if len(ranked) > 1 else EMPTY))
    return Table(columns, [*rows, gaps] if len(rows) > 1 else rows, has_total=len(rows) > 1)


def _ranked_mean(setting: Setting | None, measure: Measure) -> float:
    """As printed; NaN where it is not ranked."""
    if setting is None or not setting.is_complete:
        return float("nan")
    return float(measure.printed(setting.values(measure).mean()))


def cell_text(setting: Setting | None, measure: Measure) -> str:
    """A measure of a setting as ``mean_and_std`` prints it, with the number of folds where some are missing; - where
    there is no setting."""
    if setting is None:
        return EMPTY
    text = mean_and_std(setting.values(measure), measure)
    return text if setting.is_complete else f"{text} ({len(setting.folds)} of {setting.expected} folds)"


def results_frame(results: ResultsTable) -> pd.DataFrame:
    """The numbers of the table, one row per setting: means and population standard deviations as shares of 1."""
    records = []
    for (label, (task, shots)), setting in results.cells.items():
        record = {
            "label": label,
            "task": task,
            "feature_extractor": setting.feature_extractor,
            "shots": shots,
            "seeds": " ".join(str(run.seed) for run in setting.runs),
            "folds": len(setting.folds),
            "expected_folds": setting.expected,
        }
        for measure in TESTED.values():
            values = setting.values(measure)
            record[f"test_{measure.key}_mean"] = values.mean() if len(values) else np.nan
            record[f"test_{measure.key}_std"] = values.std() if len(values) else np.nan
        records.append(record)
    order = {label: place for place, label in enumerate(results.rows)}
    frame = pd.DataFrame(records)
    return frame.sort_values(["task", "shots", "label"], key=lambda c: c.map(order) if c.name == "label" else c)


def comparison_table(comparisons: Sequence[Comparison], corrected: Sequence[Mapping[str, float]]) -> Table:
    """One row per comparison, in percentage points; p values as they are, and corrected."""
    columns = ["against", "task", "shots", "folds"]
    columns += [f"{measure.title} difference (95 % interval)" for measure in CLASSIFICATION]
    columns += [f"p, Holm ({AUC.title})", f"p, Holm (corrected t, {AUC.title})"]
    columns += ["right: first only, second only", "p, Holm (McNemar)"]
    rows = []
    for one, p in zip(comparisons, corrected, strict=True):
        raw = one.p_values()
        row = [one.second.label, one.first.task, str(one.first.shots), str(one.num_folds)]
        for measure in CLASSIFICATION:
            interval = one.intervals[measure.key]
            points = [100 * value for value in (one.differences[measure.key], interval.low, interval.high)]
            row.append("{:+.2f} ({:+.2f} to {:+.2f})".format(*points) if not np.isnan(points).any() else EMPTY)
        row += [_p_pair(raw[name], p[name]) for name in (f"{AUC.key}_bootstrap", f"{AUC.key}_corrected_t")]
        row += [f"{one.mcnemar.only_first}, {one.mcnemar.only_second}", _p_pair(raw["mcnemar"], p["mcnemar"])]
        rows.append(row)
    return table_of(columns, rows, text_columns=2)


def _p_pair(raw: float, corrected: float) -> str:
    return EMPTY if np.isnan(raw) else f"{p_number(raw)}, {p_number(corrected)}"


def comparison_frame(comparisons: Sequence[Comparison], corrected: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """All numbers of the comparisons, a row each; differences as shares of 1."""
    records = []
    for one, p in zip(comparisons, corrected, strict=True):
        record: dict[str, Any] = {
            "first": one.first.label,
            "second": one.second.label,
            "task": one.first.task,
            "feature_extractor": one.first.feature_extractor,
            "shots": one.first.shots,
            "folds": one.num_folds,
            "test_slides": one.num_slides,
            "test_patients": one.num_patients,
            "test_to_train": one.ratio,
        }
        for name in (measure.key for measure in CLASSIFICATION):
            interval = one.intervals[name]
            record[f"{name}_difference"] = one.differences[name]
            record |= {f"{name}_{end}": value for end, value in interval._asdict().items() if end != "p"}
            record[f"{name}_t"] = one.tests[name].t
        record |= {"right_first_only": one.mcnemar.only_first, "right_second_only": one.mcnemar.only_second}
        for name, value in one.p_values().items():
            record |= {f"p_{name}": value, f"p_holm_{name}": p[name]}
        records.append(record)
    return pd.DataFrame(records)
