"""Hit Ratio@2 against macro F1 over settings (Figure 4 of the paper)."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reports.plots import COLOURS, STYLE
from reports.settings import Setting
from training.metrics import F1, HIT_RATIO

MARKERS = "os^DvP*X"
MOST_COLUMNS = 3


@matplotlib.rc_context(STYLE)
def hit_ratio_figure(settings: Sequence[Setting]) -> Figure:
    """A panel for each task, feature extractor and number of shots, in it a point for each label: means over folds, in
    %."""
    places = list(dict.fromkeys(setting.place for setting in settings))
    labels = list(dict.fromkeys(setting.label for setting in settings))
    columns = min(len(places), MOST_COLUMNS)
    rows, legend_rows = ceil(len(places) / columns), ceil(len(labels) / columns)
    figure = Figure(figsize=(max(3 * columns, 4), 3 * rows + 0.17 * legend_rows + 0.3))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    points: dict[str, Any] = {}
    for setting in settings:
        hits, f1 = (100 * setting.values(measure).mean() for measure in (HIT_RATIO, F1))
        index = labels.index(setting.label)
        marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
        axes = panels.flat[places.index(setting.place)]
        (points[setting.label],) = axes.plot(hits, f1, marker, color=COLOURS[index % len(COLOURS)])
    for axes, place in zip(panels.flat, places, strict=False):
        axes.set(title=place, xlabel=f"{HIT_RATIO.title} (%)")
        axes.tick_params(labelbottom=True)
    for axes in panels.flat[len(places) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel(f"macro {F1.title} (%)")
    lines = [points[label] for label in labels]
    legend = figure.legend(lines, [""] * len(labels), loc="outside lower center", ncols=columns)
    for entry, label in zip(legend.get_texts(), labels, strict=True):
        entry.set_text(label)
    return figure


def with_hit_ratio(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose finished folds all have a Hit Ratio@2."""
    return [one for one in settings if one.folds and not np.isnan(one.values(HIT_RATIO)).any()]
