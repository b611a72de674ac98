"""Figures of results, ready for print: ROC curves, confusion matrix, reliability diagram, training curves.

Figures are matplotlib's own objects, apart from pyplot and its state. Colours are those of Okabe and Ito, which readers
with colour-blindness can tell apart; beyond their number, line styles differ."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import auc, confusion_matrix, roc_curve

from reports.lettering import figure_style, inches, text_inches, wrapped
from training.calibration import brier_score, calibration_bins, expected_calibration_error
from training.metrics import AUC, BRIER, ECE, HISTORY_COLUMNS
from utils.whole_files import write_bytes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (1, 3)), (0, (6, 1, 1, 1, 1, 1)))
DOTS_PER_INCH = 300
SIDE = 4  # inches of the axes of a figure
LARGEST_INSIDE = (2.8, 1.7)  # inches of a legend that stands in the axes
TALLEST = 6  # inches of a column of a legend
CELL, SMALL_CELL = (0.7, 9), (0.5, 6.5)  # of a confusion matrix: inches, and points of the letters
LEAST_MATRIX = 1.8  # inches
MANY_CLASSES = 12
FOLDS_A_LINE = 5  # of a legend


def roc_figure(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> Figure:
    """One-vs-rest ROC curves with their AUC; of two classes the second one's alone. The legend stands beside the axes
    where it is too large for them.

    labels (N,) class indices, probabilities (N, K). A class that no slide or every slide has gets no curve, and the
    legend says so."""
    with figure_style(class_names):
        figure = Figure(figsize=(SIDE, SIDE))
        axes = figure.subplots()
        _diagonal(axes)
        lines, texts = [], []
        for k in [1] if len(class_names) == 2 else range(len(class_names)):
            positive = labels == k
            rates: tuple[Any, ...] = ([], [])
            if positive.all() or not positive.any():
                area = f"no {AUC.title}, {positive.sum()} of {len(positive)} slides"
            else:
                rates = roc_curve(positive, probabilities[:, k])[:2]
                area = f"{AUC.title} {auc(*rates):.3f}"
            lines += axes.plot(*rates, linewidth=1.5, clip_on=False, **_line(k))
            texts.append(f"{wrapped(class_names[k])} ({area})")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        _add_legend(axes, lines, texts)
    return figure


def _add_legend(axes: Axes, lines: Sequence[Line2D], texts: Sequence[str]) -> None:
    """In the axes where there is room; else beside them, in columns, and the figure grows by these."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    legend = axes.legend(lines, texts, loc="lower right")
    width, height = inches(figure, [legend])
    if width <= LARGEST_INSIDE[0] and height <= LARGEST_INSIDE[1]:
        return
    for number in range(1, len(texts) + 1):
        beside = axes.legend(lines, texts, loc="upper left", bbox_to_anchor=(1.03, 1), borderaxespad=0, ncols=number)
        width, height = inches(figure, [beside])
        if height <= TALLEST:
            break
    across, up, edge = SIDE + width + 0.2, max(SIDE, height + 0.3), SIDE - 0.75
    figure.set_size_inches(across, up)
    figure.set_layout_engine("none")  # it makes no room for a legend that is taller than the axes
    axes.set_position((0.55 / across, 1 - (edge + 0.15) / up, edge / across, edge / up))


def confusion_figure(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Counts, and below them percentages of the row: of the slides of a class. labels and predictions (N,) class
    indices."""
    num_classes = len(class_names)
    counts = confusion_matrix(labels, predictions, labels=range(num_classes))
    sizes = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sizes, out=np.zeros(counts.shape), where=sizes > 0)
    cell, points = CELL if num_classes <= MANY_CLASSES else SMALL_CELL
    cell = max(cell, LEAST_MATRIX / num_classes)
    with figure_style(class_names):
        names = [wrapped(name) for name in class_names]
        width, height = text_inches(names, matplotlib.rcParams["font.size"])
        is_upright = width > cell - 0.05
        below = width if is_upright else height
        figure = Figure(figsize=(cell * num_classes + width + 0.7, cell * num_classes + below + 0.7))
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            percentage = f"{100 * shares[row, column]:.1f}%" if sizes[row] else "no slide"
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{counts[row, column]}\n{percentage}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=points)
        axes.set_xticks(range(num_classes), names, rotation=90 if is_upright else 0)
        axes.set_yticks(range(num_classes), names)
        axes.set(xlabel="predicted", ylabel="label")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@figure_style()
def reliability_figure(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Accuracy against confidence in 15 bins, and how many slides are in each; expected calibration error and Brier
    score in the title. labels (N,) class indices, probabilities (N, K)."""
    bins = calibration_bins(labels, probabilities)
    figure = Figure(figsize=(4, 4.6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = bins.edges[1]
    filled = bins.counts > 0
    left = bins.edges[:-1][filled]
    above.bar(left, bins.accuracy[filled], width, align="edge", color=COLOURS[5], edgecolor="white")
    _diagonal(above)
    above.plot(bins.confidence[filled], bins.accuracy[filled], "o", markersize=4, color=COLOURS[0], clip_on=False)
    error, brier = expected_calibration_error(labels, probabilities), brier_score(labels, probabilities)
    title = f"{ECE.title} {error:.3f}, {BRIER.title} {brier:.3f}"
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=title)
    below.bar(left, bins.counts[filled], width, align="edge", color="0.6", edgecolor="white")
    below.set(xlabel="confidence", ylabel="slides")
    return figure


@figure_style()
def history_figure(
    histories: Mapping[int, pd.DataFrame],
    best_epochs: Mapping[int, int] | None = None,
    columns: Mapping[str, str] = HISTORY_COLUMNS,
) -> Figure:
    """A panel for each column, a curve for each fold, and a dot at the fold's best epoch.

    histories: fold -> history_<fold>.csv; best_epochs: fold -> epoch counted from 0; columns: name -> title. The axis
    counts epochs from 1, as the training log does."""
    rows, legend_rows = -(-len(columns) // 2), -(-len(histories) // FOLDS_A_LINE)
    figure = Figure(figsize=(7, 2.4 * rows + 0.2 + 0.2 * legend_rows))
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False).flat
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    lines: list[Any] = []
    for panel, (column, title) in zip(panels, columns.items(), strict=False):
        lines = []
        for index, (_, history) in enumerate(histories.items()):
            lines += panel.plot(history["epoch"] + 1, history[column], linewidth=1.2, **_line(index))
        for index, (fold, history) in enumerate(histories.items()):
            best = history[history["epoch"] == (best_epochs or {}).get(fold)]
            panel.plot(best["epoch"] + 1, best[column], "o", markersize=5, color=_line(index)["color"])
        panel.set_title(title)
        panel.xaxis.get_major_locator().set_params(integer=True)
    for panel in panels[max(0, len(columns) - 2) : len(columns)]:
        panel.set_xlabel("epoch")
        panel.tick_params(labelbottom=True)
    figure.legend(lines, [f"fold {fold}" for fold in histories], loc="outside lower center", ncols=FOLDS_A_LINE)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG of 300 dots an inch, whole or not at all."""
    write_bytes(path, _rendered(figure, "png"))


def data_uri(figure: Figure, form: Literal["png", "svg"] = "svg") -> str:
    """The figure as the source of an HTML <img>."""
    kind = {"png": "image/png", "svg": "image/svg+xml"}[form]
    return f"data:{kind};base64,{base64.b64encode(_rendered(figure, form)).decode()}"


@figure_style()
def _rendered(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else None
    figure.savefig(buffer, format=form, dpi=DOTS_PER_INCH, metadata=metadata)
    return buffer.getvalue()


def _line(index: int) -> dict[str, Any]:
    """Colour and line style of the curve with this index."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)],
    }


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="0.4", linewidth=0.8, linestyle=(0, (4, 3)))
