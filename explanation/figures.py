"""Figures of an explanation. Colours and style are those of reports/plots.py."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from explanation.explained_slide import ExplainedSlide
from explanation.faithfulness import Removal
from reports.plots import COLOURS, STYLE


@matplotlib.rc_context(STYLE)
def removal_figure(removal: Removal, class_name: str) -> Figure:
    """The probability of a class as patches are removed: those of highest score first, and at random with the range of
    the draws."""
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    shares, random = 100 * removal.shares, removal.random
    axes.plot(shares, removal.ranked, "o-", markersize=3, color=COLOURS[1], label="highest class score first")
    axes.plot(shares, random.mean(0), "o--", markersize=3, color=COLOURS[0], label=f"at random, mean of {len(random)}")
    axes.fill_between(shares, random.min(0), random.max(0), color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.set(xlabel="low patches removed, with their children (%)", xlim=(0, 100), ylim=(0, 1))
    axes.set_ylabel(f"probability of {class_name}")
    axes.legend(loc="best")
    return figure


@matplotlib.rc_context(STYLE)
def text_figure(explained: ExplainedSlide) -> Figure:
    """What each text adds to the logit of its class: a panel a scale, a bar a text."""
    panels = [scale for scale in explained.scales if len(scale.texts)]
    most = max(len(scale.texts) for scale in panels)
    figure = Figure(figsize=(4 * len(panels), 0.16 * most + 0.9))
    for axes, scale in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        classes = np.arange(len(scale.texts)) * len(explained.class_names) // len(scale.texts)
        colours = [COLOURS[k % len(COLOURS)] for k in classes]
        axes.barh(range(len(scale.texts)), scale.explanation.text_logits, color=colours)
        axes.set_yticks(range(len(scale.texts)), scale.text_names, fontsize=6)
        axes.set(title=f"{scale.magnification}x texts", xlabel="added to the logit of its class")
        axes.invert_yaxis()
    return figure


@matplotlib.rc_context(STYLE)
def similarity_figure(similarity: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Patches by texts in colour, from -1 to 1. similarity: (N, T)."""
    figure = Figure(figsize=(0.22 * len(columns) + 2.5, 0.2 * len(rows) + 1.6))
    axes = figure.subplots()
    image = axes.imshow(similarity, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6)
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="similarity, each row onto [-1, 1]")
    return figure


@matplotlib.rc_context(STYLE)
def patches_figure(images: Sequence[Image.Image], captions: Sequence[str], title: str) -> Figure:
    """Patches side by side."""
    figure = Figure(figsize=(1.5 * len(images), 2))
    for axes, image, caption in zip(figure.subplots(1, len(images), squeeze=False)[0], images, captions, strict=True):
        axes.imshow(image)
        axes.set_title(caption, fontsize=7)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    return figure
