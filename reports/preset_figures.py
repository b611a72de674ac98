"""The paper's figures of a table of results: curves over shots, bars, a grid of two options, and the scatter of Hit
Ratio@2 and macro F1. All show means over folds, in %."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from reports.hit_ratio_plot import hit_ratio_figure, with_hit_ratio
from reports.lettering import figure_style
from reports.panels import MARKERS, PANEL, panels_of
from reports.plots import COLOURS, SIDE
from reports.settings import PLACE, Column, ResultsTable, Setting
from training.metrics import Measure
from utils.presets import FigureKind

CURVES, APART = (PANEL, 2.4), 0.05  # inches; how far a curve's deviations stand from the next one's
GROUP = 0.85  # of the width that a measure has, filled by its bars
BAR = 0.24  # inches: room for a number that stands upright
BARS_TALL, CELL = 2.6, (0.8, 0.6)  # inches


def curves_figure(results: ResultsTable, measures: Sequence[Measure]) -> Figure:
    """A panel for each measure and task, in it a curve over the numbers of shots for each row, with the standard
    deviations over folds."""
    tasks = list(dict.fromkeys(task for task, _ in results.columns))
    shots = sorted({count for _, count in results.columns})
    with figure_style([*tasks, *results.rows]):
        panels = panels_of(len(measures), len(tasks), tasks, results.rows, CURVES, sharex=True, sharey="row")
        handles = []
        for index, label in enumerate(results.rows):
            look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
            places = np.arange(len(shots)) + APART * (index - (len(results.rows) - 1) / 2)
            for measure, row in zip(measures, panels.axes, strict=True):
                for task, axes in zip(tasks, row, strict=True):
                    cells = [results.cells.get((label, (task, count))) for count in shots]
                    means, stds = np.array([_mean_and_std(cell, measure) for cell in cells]).T
                    line = axes.errorbar(places, means, stds, capsize=2, elinewidth=0.7, markersize=4, **look)
            handles.append(line)
        for axes, title in zip(panels.axes[0], panels.titles, strict=True):
            axes.set_title(title)
        for axes, measure in zip(panels.axes[:, 0], measures, strict=True):
            axes.set_ylabel(f"{measure.title} (%)")
        for axes in panels.axes[-1]:
            axes.set_xticks(range(len(shots)), list(map(str, shots)))
            axes.set_xlabel("training slides a class")
        panels.add_legend(handles)
    return panels.figure


def bars_figure(results: ResultsTable, measures: Sequence[Measure]) -> Figure:
    """A panel for each task and number of shots, in it a group of bars for each measure, a bar for each row, with the
    standard deviation over folds and the mean."""
    titles = [_title(column) for column in results.columns]
    width = GROUP / len(results.rows)
    size = (max(SIDE, BAR * len(results.rows) * len(measures) / GROUP + 0.8), BARS_TALL)
    with figure_style([*titles, *results.rows]):
        panels = panels_of(len(titles), 1, titles, results.rows, size, sharex=True, sharey=True)
        handles = []
        for index, label in enumerate(results.rows):
            colour = COLOURS[index % len(COLOURS)]
            places = np.arange(len(measures)) + width * (index - (len(results.rows) - 1) / 2)
            for column, axes in zip(results.columns, panels.axes[:, 0], strict=True):
                cell = results.cells.get((label, column))
                means, stds = np.array([_mean_and_std(cell, measure) for measure in measures]).T
                bars = axes.bar(places, means, 0.9 * width, yerr=stds, color=colour, error_kw={"elinewidth": 0.7})
                tops = np.nan_to_num(means + stds)
                for place, top, mean in zip(places, tops, means, strict=True):
                    if not np.isnan(mean):
                        axes.text(place, top + 2, f"{mean:.1f}", rotation=90, ha="center", va="bottom", fontsize=7)
            handles.append(bars)
        for axes, title in zip(panels.axes[:, 0], panels.titles, strict=True):
            axes.set_title(title)
            axes.set_ylabel("%")
            axes.set_xticks(range(len(measures)), [measure.title for measure in measures])
            axes.tick_params(labelbottom=True, bottom=False)
            axes.set_ylim(0, max(axes.get_ylim()[1], max(text.get_position()[1] for text in axes.texts or [0]) + 18))
        panels.add_legend(handles)
    return panels.figure


def grid_figure(results: ResultsTable, measures: Sequence[Measure]) -> Figure | None:
    """A panel for each measure, task and number of shots: the values of the two options in which the rows differ along
    its axes, and the means as numbers on a colour; None where they do not differ in two."""
    names = differing_options(results)
    if len(names) != 2:
        return None
    values = [sorted({_option(cell, name) for cell in results.cells.values()}) for name in names]
    titles = [_title(column) for column in results.columns]
    size = (max(2.4, CELL[0] * len(values[1]) + 0.8), max(1.8, CELL[1] * len(values[0]) + 0.8))
    with figure_style(titles):
        panels = panels_of(len(measures), len(titles), titles, [], size)
        for measure, row in zip(measures, panels.axes, strict=True):
            for column, title, axes in zip(results.columns, panels.titles, row, strict=True):
                means = np.full((len(values[0]), len(values[1])), np.nan)
                for cell in results.column(column):
                    place = tuple(found.index(_option(cell, name)) for found, name in zip(values, names, strict=True))
                    means[place] = _mean_and_std(cell, measure)[0]
                axes.imshow(means, cmap="Blues", aspect="auto")
                middle = (np.nanmin(means) + np.nanmax(means)) / 2 if not np.isnan(means).all() else 0
                for place in np.ndindex(means.shape):
                    text = "-" if np.isnan(means[place]) else f"{means[place]:.2f}"
                    colour = "white" if means[place] > middle else "black"
                    axes.text(place[1], place[0], text, ha="center", va="center", color=colour)
                axes.set(title=f"{title}\n{measure.title} (%)", ylabel=names[0], xlabel=names[1])
                axes.set_yticks(range(len(values[0])), [f"{value:g}" for value in values[0]])
                axes.set_xticks(range(len(values[1])), [f"{value:g}" for value in values[1]])
                axes.tick_params(length=0)
                axes.spines[:].set_visible(False)
    return panels.figure


def scatter_figure(results: ResultsTable, measures: Sequence[Measure]) -> Figure | None:
    """Hit Ratio@2 against macro F1; None where no setting has a Hit Ratio@2."""
    settings = with_hit_ratio([one for column in results.columns for one in results.column(column)])
    return hit_ratio_figure(settings) if settings else None


DRAWN: dict[FigureKind, Callable[[ResultsTable, Sequence[Measure]], Figure | None]] = {
    "curves": curves_figure,
    "bars": bars_figure,
    "grid": grid_figure,
    "scatter": scatter_figure,
}


def differing_options(results: ResultsTable) -> list[str]:
    """The options with numbers as values in which the rows differ, in the order of ``Config``."""
    runs = [run for cell in results.cells.values() for run in cell.runs]
    names = [name for name in runs[0].options if name not in PLACE]
    found = {name: {run.options.get(name) for run in runs} for name in names}
    return [
        name for name, values in found.items() if len(values) > 1 and all(isinstance(v, int | float) for v in values)
    ]


def _option(setting: Setting, name: str) -> float:
    return float(setting.runs[0].options[name])


def _mean_and_std(setting: Setting | None, measure: Measure) -> tuple[float, float]:
    """As the measure is printed; NaN where there is no value."""
    values = setting.values(measure) if setting else np.array([])
    return (measure.scale * values.mean(), measure.scale * values.std()) if len(values) else (np.nan, np.nan)


def _title(column: Column) -> str:
    return f"{column[0]}, {column[1]} shots"
