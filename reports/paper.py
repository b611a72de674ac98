"""The paper's order, and the paper's own numbers beside those of runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from reports.settings import TESTED, ResultsTable
from reports.tables import EMPTY, Cell, Table, cell_text
from training.metrics import Measure
from utils.errors import Fault, UserError
from utils.presets import PRESETS, Preset
from utils.tables import read_csv
from utils.words import listed

PUBLISHED = Path(__file__).with_name("published.csv")
SOURCE = "arXiv 2505.17982"

Place = tuple[str, str, int]
"""Feature extractor, task and shots."""


@dataclass(frozen=True)
class PublishedRow:
    """What one of the paper's tables prints for a row, on one data set with one extractor.

    table: its number. means and stds: in %, by the key of the measure; a share of filtered pairs has no std.
    """

    table: str
    place: Place
    label: str
    means: Mapping[str, float]
    stds: Mapping[str, float]

    def text(self, measure: Measure) -> str:
        """The number as the paper prints it, - where it prints none."""
        if measure.key not in self.means:
            return EMPTY
        mean = f"{self.means[measure.key]:.2f}"
        return f"{mean} ± {self.stds[measure.key]:.2f}" if measure.key in self.stds else mean


def read_published(path: Path = PUBLISHED) -> list[PublishedRow]:
    """All numbers of the paper's tables of results, in the order of the paper."""
    rows = []
    for row in read_csv("table.unreadable", path).to_dict("records"):
        means = {key: float(row[key]) for key in TESTED if row.get(key)}
        stds = {key: float(row[f"{key}_std"]) for key in means if row.get(f"{key}_std")}
        place = (row["feature_extractor"], row["task"], int(row["shots"]))
        rows.append(PublishedRow(row["table"], place, row["label"], means, stds))
    return rows


def item_of_paper(name: str) -> str:
    """table2 -> Table 2 of the paper; the name of any other preset as it is."""
    item = re.fullmatch(r"(table|figure)(\d+)", name)
    return f"{item[1].title()} {item[2]} of the paper" if item else name


def measures_of(preset: Preset) -> list[Measure]:
    """The measures of a preset's columns. Raises UserError where a column is no measure of a fold."""
    wrong = [key for key in preset.report.columns if key not in TESTED]
    if wrong:
        found = f"no measure of a fold: {listed(wrong)}"
        raise UserError(Fault("preset.column", str(PRESETS), found, f"some of {', '.join(TESTED)}"))
    return [TESTED[key] for key in preset.report.columns]


def in_paper_order(tables: Iterable[ResultsTable], presets: Mapping[str, Preset]) -> list[ResultsTable]:
    """Tables, their rows and their columns in the order of presets.yaml; what is not there comes behind."""
    ordered = []
    for results in tables:
        if preset := presets.get(results.preset or ""):
            tasks = preset.values("task")
            columns = sorted(results.columns, key=lambda column: (_place_in(tasks, column[0]), column[1]))
            results = replace(results, rows=sorted(results.rows, key=preset.place_of), columns=columns)
        ordered.append(results)
    names = list(presets)

    def place_of(results: ResultsTable) -> tuple[int, int]:
        preset = presets.get(results.preset or "")
        extractors = preset.values("feature_extractor") if preset else []
        return _place_in(names, results.preset or "")[0], _place_in(extractors, results.feature_extractor)[0]

    return sorted(ordered, key=place_of)


def _place_in(values: Sequence[str], value: str) -> tuple[int, str]:
    return (values.index(value) if value in values else len(values)), value


# ---- beside the paper's numbers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """A table of ours beside the paper's, its numbers, and what a reader must know of both."""

    table: Table
    numbers: pd.DataFrame
    notes: list[str]


def beside_published(results: ResultsTable, preset: Preset, published: Sequence[PublishedRow]) -> Beside | None:
    """Each setting with the paper's number and the difference; None where the paper prints no numbers of the preset.

    Rows of the paper that were not run stand there too: those of the extractor, tasks and shots that were run, or,
    where the paper has none of these, all of the preset's.
    """
    told, measures = preset.report, measures_of(preset)
    known = {
        (row.place, row.label): row
        for row in published
        if row.table in told.also or (row.table in told.published and row.label in preset.runs)
    }
    if not known:
        return None
    ours = [(results.feature_extractor, *column) for column in results.columns]
    shared = [place for place in ours if any(place == other for other, _ in known)]
    rest = [] if shared else list(dict.fromkeys(place for place, _ in known))
    rows, records = [], []
    for place in [*ours, *rest]:
        labels = [label for label in results.rows if place in ours and (label, place[1:]) in results.cells]
        labels += [label for other, label in known if other == place and label not in labels]
        for label in sorted(labels, key=preset.place_of):
            row, record = _beside(results, known.get((place, label)), place, label, measures)
            rows.append(row)
            records.append(record)
    columns: list[tuple[str, ...]] = [(name, "") for name in ("extractor", "task", "shots", "model")]
    columns += [(measure.title, what) for measure in measures for what in ("here", "paper", "difference")]
    return Beside(Table(columns, rows, text_columns=4), pd.DataFrame(records), _notes(results, known, ours, told.also))


def _beside(
    results: ResultsTable, paper: PublishedRow | None, place: Place, label: str, measures: Sequence[Measure]
) -> tuple[list[Cell], dict[str, object]]:
    """A row of texts, and one of numbers: in %."""
    extractor, task, shots = place
    setting = results.cells.get((label, (task, shots))) if extractor == results.feature_extractor else None
    texts = [extractor, task, str(shots), label]
    record: dict[str, object] = {"feature_extractor": extractor, "task": task, "shots": shots, "label": label}
    record["source"] = f"{SOURCE}, Table {paper.table}" if paper else ""
    for measure in measures:
        values = setting.values(measure) if setting else np.array([])
        mean = float(measure.printed(values.mean())) if len(values) else np.nan
        theirs = paper.means.get(measure.key, np.nan) if paper else np.nan
        difference = mean - theirs
        texts += [
            cell_text(setting, measure),
            paper.text(measure) if paper else EMPTY,
            EMPTY if np.isnan(difference) else f"{difference:+.2f}",
        ]
        record |= {f"{measure.key}_here": mean, f"{measure.key}_paper": theirs, f"{measure.key}_difference": difference}
    return [Cell(text) for text in texts], record


def _notes(
    results: ResultsTable, known: Mapping[tuple[Place, str], PublishedRow], ours: Sequence[Place], also: Sequence[str]
) -> list[str]:
    """Which settings the paper has no numbers of, and which of its rows are of models that are not here."""
    notes = []
    for place in ours:
        told = ", ".join([*place[:2], f"{place[2]} shots"])
        if not any(place == other for other, _ in known):
            notes.append(f"{told}: the paper has no numbers, so there is no difference")
            continue
        labels = [label for label in results.rows if (label, place[1:]) in results.cells]
        if others := [label for label in labels if (place, label) not in known]:
            notes.append(f"{told}: no rows of the paper: {listed(others, 20, quote=False)}")
    if not any(place in ours for place, _ in known):
        notes.append("the other rows are the paper's own, of its data sets and extractors")
    tables = {row.label: row.table for row in known.values() if row.table in also}
    return [
        *notes,
        *(f"{label}: in the paper's Table {table}; no model of this project" for label, table in tables.items()),
    ]
