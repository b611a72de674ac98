"""Hit Ratio@2 against macro F1 over settings (Figure 4 of the paper)."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reports.lettering import figure_style, text_inches, wrapped
from reports.plots import COLOURS, SIDE
from reports.settings import Setting
from training.metrics import F1, HIT_RATIO

MARKERS = "os^DvP*X"
MOST_COLUMNS = 3
PANEL = 3  # inches
TITLE, NAME = 36, 44  # columns of a line


def hit_ratio_figure(settings: Sequence[Setting]) -> Figure:
    """A panel for each task, feature extractor and number of shots, in it a point for each label: means over folds, in
    %. Its legend stands below the panels."""
    places = list(dict.fromkeys(setting.place for setting in settings))
    labels = list(dict.fromkeys(setting.label for setting in settings))
    columns = min(len(places), MOST_COLUMNS)
    rows = ceil(len(places) / columns)
    with figure_style([*places, *labels]):
        titles, names = [wrapped(place, TITLE) for place in places], [wrapped(label, NAME) for label in labels]
        size = matplotlib.rcParams["legend.fontsize"]
        width, height = text_inches(names, size)
        total: float = max(PANEL * columns, SIDE)
        legend_columns = max(1, min(columns, int(total / (width + 0.5))))
        total = max(total, width + 0.7)
        title_height = text_inches(titles, matplotlib.rcParams["axes.titlesize"])[1]
        legend_height = (height + 0.06) * ceil(len(labels) / legend_columns)
        figure = Figure(figsize=(total, (PANEL + title_height - 0.15) * rows + legend_height + 0.3))
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        points: dict[str, Any] = {}
        for setting in settings:
            hits, f1 = (100 * setting.values(measure).mean() for measure in (HIT_RATIO, F1))
            index = labels.index(setting.label)
            marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
            axes = panels.flat[places.index(setting.place)]
            (points[setting.label],) = axes.plot(hits, f1, marker, color=COLOURS[index % len(COLOURS)])
        for axes, title in zip(panels.flat, titles, strict=False):
            axes.set(title=title, xlabel=f"{HIT_RATIO.title} (%)")
            axes.tick_params(labelbottom=True)
        for axes in panels.flat[len(places) :]:
            axes.remove()
        for axes in panels[:, 0]:
            axes.set_ylabel(f"macro {F1.title} (%)")
        lines = [points[label] for label in labels]
        legend = figure.legend(lines, [""] * len(labels), loc="outside lower center", ncols=legend_columns)
        for entry, name in zip(legend.get_texts(), names, strict=True):
            entry.set_text(name)
    return figure


def with_hit_ratio(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose finished folds all have a Hit Ratio@2."""
    return [one for one in settings if one.folds and not np.isnan(one.values(HIT_RATIO)).any()]
