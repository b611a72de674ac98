"""Hit Ratio@2 against macro F1 over settings (Figure 4 of the paper)."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reports.lettering import figure_style
from reports.panels import colour_and_marker, panels_of
from reports.settings import Setting
from training.metrics import F1, HIT_RATIO

MOST_COLUMNS = 3


def hit_ratio_figure(settings: Sequence[Setting]) -> Figure:
    """A panel for each task, feature extractor and number of shots, in it a point for each label: means over folds, in
    %. Its legend stands below the panels."""
    places = list(dict.fromkeys(setting.place for setting in settings))
    labels = list(dict.fromkeys(setting.label for setting in settings))
    columns = min(len(places), MOST_COLUMNS)
    with figure_style([*places, *labels]):
        panels = panels_of(ceil(len(places) / columns), columns, places, labels, sharex=True, sharey=True)
        points: dict[str, Any] = {}
        for setting in settings:
            hits, f1 = (100 * setting.values(measure).mean() for measure in (HIT_RATIO, F1))
            colour, marker = colour_and_marker(labels.index(setting.label))
            axes = panels.axes.flat[places.index(setting.place)]
            (points[setting.label],) = axes.plot(hits, f1, marker, color=colour)
        for axes, title in zip(panels.axes.flat, panels.titles, strict=False):
            axes.set(title=title, xlabel=f"{HIT_RATIO.title} (%)")
            axes.tick_params(labelbottom=True)
        for axes in panels.axes.flat[len(places) :]:
            axes.remove()
        for axes in panels.axes[:, 0]:
            axes.set_ylabel(f"macro {F1.title} (%)")
        panels.add_legend([points[label] for label in labels])
    return panels.figure


def with_hit_ratio(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose finished folds all have a Hit Ratio@2."""
    return [one for one in settings if one.folds and not np.isnan(one.values(HIT_RATIO)).any()]
