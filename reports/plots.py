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
from sklearn.metrics import auc, confusion_matrix, roc_curve

from reports.calibration import brier_score, calibration_bins, expected_calibration_error
from training.metrics import AUC, BRIER, ECE, HISTORY_COLUMNS
from utils.whole_files import write_bytes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.hspace": 0.06,
    "text.parse_math": False,  # class names may hold a $
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "figures",  # the same figure gives the same file
}
DOTS_PER_INCH = 300


@matplotlib.rc_context(STYLE)
def roc_figure(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> Figure:
    """One-vs-rest ROC curves with their AUC; of two classes the second one's alone.

    labels (N,) class indices, probabilities (N, K). A class that no slide or every slide has gets no curve, and the
    legend says so."""
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    _diagonal(axes)
    lines, texts = [], []
    for k in [1] if len(class_names) == 2 else range(len(class_names)):
        positive = labels == k
        if positive.all() or not positive.any():
            false_positives, true_positives, area = (
                [],
                [],
                f"no {AUC.title}, {positive.sum()} of {len(positive)} slides",
            )
        else:
            false_positives, true_positives, _ = roc_curve(positive, probabilities[:, k])
            area = f"{AUC.title} {auc(false_positives, true_positives):.3f}"
        lines += axes.plot(false_positives, true_positives, linewidth=1.5, clip_on=False, **_line(k))
        texts.append(f"{class_names[k]} ({area})")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(lines, texts, loc="lower right")
    return figure


@matplotlib.rc_context(STYLE)
def confusion_figure(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Counts, and below them percentages of the row: of the slides of a class. labels and predictions (N,) class
    indices."""
    num_classes = len(class_names)
    counts = confusion_matrix(labels, predictions, labels=range(num_classes))
    sizes = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sizes, out=np.zeros(counts.shape), where=sizes > 0)
    side = max(3.2, 0.7 * num_classes + 1.4)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        percentage = f"{100 * shares[row, column]:.1f}%" if sizes[row] else "no slide"
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]}\n{percentage}", ha="center", va="center", color=colour)
    steep: dict[str, Any] = (
        {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, class_names)) > 8 else {}
    )
    axes.set_xticks(range(num_classes), class_names, **steep)
    axes.set_yticks(range(num_classes), class_names)
    axes.set(xlabel="predicted", ylabel="label")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@matplotlib.rc_context(STYLE)
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


@matplotlib.rc_context(STYLE)
def history_figure(
    histories: Mapping[int, pd.DataFrame],
    best_epochs: Mapping[int, int] | None = None,
    columns: Mapping[str, str] = HISTORY_COLUMNS,
) -> Figure:
    """A panel for each column, a curve for each fold, and a dot at the fold's best epoch.

    histories: fold -> history_<fold>.csv; best_epochs: fold -> epoch counted from 0; columns: name -> title. The axis
    counts epochs from 1, as the training log does."""
    rows = -(-len(columns) // 2)
    figure = Figure(figsize=(7, 2.4 * rows + 0.4))
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
    figure.legend(lines, [f"fold {fold}" for fold in histories], loc="outside lower center", ncols=5)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG of 300 dots an inch, whole or not at all."""
    write_bytes(path, _rendered(figure, "png"))


def data_uri(figure: Figure, form: Literal["png", "svg"] = "svg") -> str:
    """The figure as the source of an HTML <img>."""
    kind = {"png": "image/png", "svg": "image/svg+xml"}[form]
    return f"data:{kind};base64,{base64.b64encode(_rendered(figure, form)).decode()}"


@matplotlib.rc_context(STYLE)
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
