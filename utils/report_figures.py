"""Hit Ratio@2 against macro F1 over settings (Figure 4 of the paper)."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from utils.plots import COLOURS, STYLE
from utils.run_grid import Setting

MARKERS = "os^DvP*X"


@matplotlib.rc_context(STYLE)
def hit_ratio_figure(settings: Sequence[Setting]) -> Figure:
    """A point a setting: means over its folds, in %."""
    figure = Figure(figsize=(5, 4 + 0.15 * len(settings)))
    axes = figure.subplots()
    points: list[Any] = []
    for index, setting in enumerate(settings):
        hits, f1 = (100 * setting.values(metric).mean() for metric in ("test_hit_ratio", "test_f1"))
        marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
        points += axes.plot(hits, f1, marker, color=COLOURS[index % len(COLOURS)])
    axes.set(xlabel="Hit Ratio@2 (%)", ylabel="macro F1 (%)")
    legend = figure.legend(points, [""] * len(points), loc="outside lower center")
    for entry, setting in zip(legend.get_texts(), settings, strict=True):
        entry.set_text(setting.title)
    return figure


def with_hit_ratio(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose finished folds all have a Hit Ratio@2."""
    return [one for one in settings if one.folds and not np.isnan(one.values("test_hit_ratio")).any()]
