"""Figures of several panels with one legend below them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reports.lettering import text_inches, wrapped
from reports.plots import COLOURS, SIDE

MARKERS = "os^DvP*X"
PANEL = 3  # inches
TITLE, NAME = 36, 44  # columns of a line


@dataclass(frozen=True)
class Panels:
    """A figure, its axes (rows, columns), and how its legend will stand."""

    figure: Figure
    axes: np.ndarray
    titles: list[str]
    names: list[str]
    legend_columns: int

    def add_legend(self, handles: Sequence[Any]) -> None:
        """An entry for each label."""
        legend = self.figure.legend(
            handles, [""] * len(self.names), loc="outside lower center", ncols=self.legend_columns
        )
        for entry, name in zip(legend.get_texts(), self.names, strict=True):
            entry.set_text(name)


def panels_of(
    rows: int,
    columns: int,
    titles: Sequence[str],
    labels: Sequence[str],
    size: tuple[float, float] = (PANEL, PANEL),
    **shared: Any,
) -> Panels:
    """Panels of a size in inches; there is room for titles above each, and for a legend of the labels, none where there
    are no labels. Titles and labels are broken into lines. To be called within ``figure_style``."""
    heads, names = [wrapped(title, TITLE) for title in titles], [wrapped(label, NAME) for label in labels]
    width, height = text_inches(names, matplotlib.rcParams["legend.fontsize"])
    total: float = max(size[0] * columns, SIDE)
    legend_columns = max(1, min(columns, int(total / (width + 0.5))))
    total = max(total, width + 0.7)
    title_height = text_inches(heads, matplotlib.rcParams["axes.titlesize"])[1]
    legend_height = (height + 0.06) * ceil(len(labels) / legend_columns)
    figure = Figure(figsize=(total, (size[1] + title_height - 0.15) * rows + legend_height + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    return Panels(figure, axes, heads, names, legend_columns)


def colour_and_marker(index: int) -> tuple[str, str]:
    """Those of the label with this index: no two of the first 56 are alike in both."""
    return COLOURS[index % len(COLOURS)], MARKERS[index // len(COLOURS) % len(MARKERS)]
