"""Figures of an explanation. Colours and style are those of reports/plots.py."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from explanation.explained_slide import ExplainedSlide, Scale
from explanation.faithfulness import Removal
from explanation.published_view import PublishedScale
from reports.lettering import figure_style, text_inches, wrapped
from reports.plots import COLOURS

SMALL = 6  # points of the names of texts and patches


def removal_figure(removal: Removal, class_name: str) -> Figure:
    """The probability of a class as patches are removed: those of highest score first, and at random with the range of
    the draws."""
    with figure_style([class_name]):
        figure = Figure(figsize=(5, 3))
        axes = figure.subplots()
        shares, random = 100 * removal.shares, removal.random
        axes.plot(shares, removal.ranked, "o-", markersize=3, color=COLOURS[1], label="highest class score first")
        label = f"at random, mean of {len(random)}"
        axes.plot(shares, random.mean(0), "o--", markersize=3, color=COLOURS[0], label=label)
        axes.fill_between(shares, random.min(0), random.max(0), color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.set(xlabel="low patches removed, with their children (%)", xlim=(0, 100), ylim=(0, 1))
        axes.set_ylabel(wrapped(f"probability of {class_name}", 32))
        axes.legend(loc="best")
    return figure


def text_figure(explained: ExplainedSlide) -> Figure:
    """What each text adds to the logit of its class: one panel per scale, one bar per text."""
    bars = [(scale, scale.explanation.text_logits) for scale in explained.scales if len(scale.texts)]
    return _bars(explained.class_names, bars, "added to the logit of its class")


def contributions_figure(explained: ExplainedSlide, views: Sequence[PublishedScale]) -> Figure:
    """The similarities of one patch per scale and all texts, scaled onto [-1, 1], coloured by class."""
    bars = [(view.scale, view.contributions) for view in views]
    return _bars(explained.class_names, bars, "similarity after the graph, scaled per patch")


def distributions_figure(explained: ExplainedSlide, views: Sequence[PublishedScale]) -> Figure:
    """Each anchor's distribution over the texts of its scale, coloured by class."""
    bars = [(view.scale, view.distribution) for view in views]
    return _bars(explained.class_names, bars, "probability of the text, anchor patch")


def _bars(class_names: Sequence[str], bars: Sequence[tuple[Scale, np.ndarray]], title: str) -> Figure:
    """One panel per scale, one bar per text, coloured by class."""
    panels = [scale for scale, _ in bars]
    most = max(len(scale.texts) for scale in panels)
    with figure_style(class_names):
        names = sum(text_inches(scale.text_names, SMALL)[0] for scale in panels)
        figure = Figure(figsize=(3.3 * len(panels) + names, 0.16 * most + 0.9))
        for axes, (scale, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], bars, strict=True):
            classes = np.arange(len(scale.texts)) * len(class_names) // len(scale.texts)
            colours = [COLOURS[k % len(COLOURS)] for k in classes]
            axes.barh(range(len(scale.texts)), values, color=colours)
            axes.set_yticks(range(len(scale.texts)), scale.text_names, fontsize=SMALL)
            axes.set(title=f"{scale.magnification}x texts", xlabel=title)
            axes.set_ylim(len(scale.texts) - 0.5, -0.5)
    return figure


def similarity_figure(similarity: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Patches by texts in colour, from -1 to 1. similarity: (N, T)."""
    with figure_style([*rows, *columns, title]):
        left, below = (text_inches(names, SMALL)[0] for names in (rows, columns))
        title = wrapped(title, 48)
        above = text_inches([title], matplotlib.rcParams["axes.titlesize"])
        width = max(0.22 * len(columns) + left, above[0]) + 1.2
        figure = Figure(figsize=(width, 0.2 * len(rows) + below + above[1] + 0.4))
        axes = figure.subplots()
        image = axes.imshow(similarity, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=SMALL)
        axes.set_yticks(range(len(rows)), rows, fontsize=SMALL)
        axes.set_title(title)
        figure.colorbar(image, ax=axes, label=wrapped("similarity, each row onto [-1, 1]", 12 * len(rows)))
    return figure


def patches_figure(images: Sequence[Image.Image], captions: Sequence[str], title: str) -> Figure:
    """Patches side by side."""
    with figure_style([*captions, title]):
        captions, title = [wrapped(caption, 22) for caption in captions], wrapped(title, max(22, 20 * len(images)))
        height = text_inches(captions, 7)[1] + text_inches([title], 9)[1]
        figure = Figure(figsize=(1.5 * len(images), 1.6 + height))
        panels = figure.subplots(1, len(images), squeeze=False)[0]
        for axes, image, caption in zip(panels, images, captions, strict=True):
            axes.imshow(image)
            axes.set_title(caption, fontsize=7)
            axes.set_axis_off()
        figure.suptitle(title, fontsize=9)
    return figure
