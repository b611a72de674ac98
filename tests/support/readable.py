"""The texts of a figure, and whether all of them can be read."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def boxes(figure: Figure) -> tuple[list[str], np.ndarray]:
    """The visible texts of a figure and their boxes in pixels: (N, 4) left, bottom, right, top."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    hidden = {id(text) for axes in figure.axes if not axes.get_visible() for text in axes.findobj(Text)}
    hidden |= {id(text) for axes in figure.axes if not axes.axison for text in axes.xaxis.findobj(Text)}
    hidden |= {id(text) for axes in figure.axes if not axes.axison for text in axes.yaxis.findobj(Text)}
    ticks = [label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in shown_ticks(axis)]
    every = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    of_axis = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    labels = {id(axis.label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)}
    texts = [text for text in every if id(text) not in hidden and (id(text) not in of_axis or id(text) in labels)]
    texts += [label for label in ticks if id(label) not in hidden]
    extents = [text.get_window_extent(renderer) for text in texts]
    return [text.get_text() for text in texts], np.array([box.extents for box in extents])


def shown_ticks(axis: Any) -> list[Text]:
    """The labels of the ticks that lie within the axis."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    return [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text().strip()]


def check_readable(figure: Figure) -> None:
    """No text leaves the figure or overlaps another."""
    texts, found = boxes(figure)
    left, bottom, right, top = found.T
    width, height = figure.bbox.width, figure.bbox.height
    outside = (left < -0.5) | (bottom < -0.5) | (right > width + 0.5) | (top > height + 0.5)
    assert [texts[index] for index in outside.nonzero()[0]] == []
    across = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    along = np.minimum(top[:, None], top) - np.maximum(bottom[:, None], bottom)
    pairs = np.argwhere(np.triu((across > 1) & (along > 1), 1))
    assert [(texts[one], texts[other]) for one, other in pairs[:5]] == []
