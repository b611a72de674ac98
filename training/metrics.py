"""Metrics of a set of slides, Hit Ratio@2 of one slide, and the one table of how each metric is named and printed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.interface import Embeddings
from utils.words import listed, quoted


@dataclass(frozen=True)
class Measure:
    """One line of the table of metrics: what tables, pages and figures must know of a number to show it.

    key: its name in files and in code. title: its name in the heading of a column. words: its name in running text.
    higher_is_better: which way is better. in_percent: whether tables print it in % with two decimals, or as it is with
    four.
    """

    key: str
    title: str
    words: str
    higher_is_better: bool = True
    in_percent: bool = True

    @property
    def scale(self) -> int:
        """By which tables multiply a value."""
        return 100 if self.in_percent else 1

    @property
    def decimals(self) -> int:
        """Of a value in a table."""
        return 2 if self.in_percent else 4

    def printed(self, value: float) -> str:
        """The value as tables print it, without a unit."""
        return f"{self.scale * value:.{self.decimals}f}"


AUC = Measure("auc", "AUC", "AUC")
F1 = Measure("f1", "F1", "F1")
ACC = Measure("acc", "ACC", "accuracy")
HIT_RATIO = Measure("hit_ratio", "Hit Ratio@2", "Hit Ratio@2")
FILTERED_LOW = Measure("filtered_low", "filtered low", "share of filtered pairs at the low scale")
FILTERED_HIGH = Measure("filtered_high", "filtered high", "share of filtered pairs at the high scale")
LOSS = Measure("loss", "loss", "loss", higher_is_better=False, in_percent=False)
ECE = Measure("ece", "ECE", "expected calibration error", higher_is_better=False, in_percent=False)
BALANCED_ACC = Measure("balanced_acc", "balanced ACC", "balanced accuracy")
AUPRC = Measure("auprc", "AUPRC", "area under the precision-recall curve")
LOG_LOSS = Measure("log_loss", "log loss", "log loss", higher_is_better=False, in_percent=False)
BRIER = Measure("brier", "Brier score", "Brier score", higher_is_better=False, in_percent=False)

CLASSIFICATION = (AUC, F1, ACC)
"""The fields of ``Metrics``, in their order."""
MORE = (BALANCED_ACC, AUPRC, LOG_LOSS, ECE)
"""Of ``training/more_metrics.py``."""
GRAPH = (HIT_RATIO, FILTERED_LOW, FILTERED_HIGH)
"""Of models with a graph."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def columns_of(split: str, measures: Iterable[Measure]) -> dict[str, str]:
    """The columns that files have for measures of a split, with their titles: {"val_auc": "validation AUC", ...}."""
    return {f"{split}_{measure.key}": f"{SPLITS[split]} {measure.words}" for measure in measures}


RESULT_COLUMNS = {**columns_of("test", CLASSIFICATION), **columns_of("val", CLASSIFICATION)}
"""Columns of results.csv that every model has, with their titles."""
GRAPH_COLUMNS = columns_of("test", GRAPH)
"""Columns behind these, which are empty where a model has no graph."""
HISTORY_COLUMNS = {**columns_of("train", [LOSS]), **columns_of("val", [LOSS, AUC, ACC])}
"""Columns of history_<fold>.csv that are drawn, with their titles."""


class Metrics(NamedTuple):
    """auc: of class 1 for two classes, else the mean of the one-vs-rest AUCs; NaN where it is not defined. f1: macro.
    acc: accuracy. AUC and F1 are means over the classes that have slides."""

    auc: float
    f1: float
    acc: float


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """labels (N,) class indices, probabilities (N, K).

    Only classes with slides count: a class without any has neither AUC nor F1. ``undefined_metrics`` and
    ``missing_classes_note`` tell in words what is missing. All are NaN without slides.
    """
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score  # takes a second to import

    if not len(labels):
        return Metrics(float("nan"), float("nan"), float("nan"))
    prediction, present = probabilities.argmax(1), np.unique(labels)
    columns = [1] if probabilities.shape[1] == 2 else present
    if len(present) < 2:
        auc = float("nan")
    else:
        auc = float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in columns]))
    f1 = f1_score(labels, prediction, labels=present, average="macro", zero_division=0)
    return Metrics(auc=auc, f1=float(f1), acc=float(accuracy_score(labels, prediction)))


def missing_classes(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The classes that no slide has. labels (N,) class indices."""
    present = set(labels.tolist())
    return [name for k, name in enumerate(class_names) if k not in present]


def undefined_metrics(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, str]:
    """Why a metric of ``classification_metrics`` has no value, by its key; empty where all have one."""
    if not len(labels):
        return {measure.key: "no slide has a label" for measure in CLASSIFICATION}
    present = set(labels.tolist())
    if len(present) > 1:
        return {}
    (only,) = present
    slides = f"all {len(labels)} labelled slides are" if len(labels) > 1 else "the only labelled slide is"
    return {AUC.key: f"{slides} of class {quoted(class_names[only])}; an AUC needs slides of two classes or more"}


def missing_classes_note(labels: np.ndarray, class_names: Sequence[str]) -> str | None:
    """What a reader must know of metrics of slides that lack classes; None where every class has slides."""
    absent = missing_classes(labels, class_names)
    if not absent or not len(labels):
        return None
    present = len(class_names) - len(absent)
    means = f"the mean over the {present} classes that have" if present > 1 else "that of the one class that has"
    undefined = undefined_metrics(labels, class_names).get(AUC.key)
    told = f"{F1.title} is {means} slides"
    told += (
        f"; no {AUC.title}: {undefined}" if undefined else f", and so is {AUC.title}" if len(class_names) > 2 else ""
    )
    return f"no labelled slide of {len(absent)} of {len(class_names)} classes ({listed(absent)}): {told}"


def hits_at_2(embeddings: Embeddings, child_mask: Tensor) -> tuple[int, int]:
    """Hits among a slide's low patches, and all its low patches; Hit Ratio@2 is their ratio (paper, Algorithm 2).

    A low patch is a hit when, for any of its real children, the most similar high text belongs to one of the two low
    texts most similar to the patch itself. A patch without children in the graph is none: one that is not retained,
    or that has no child. child_mask: (P, C) bool of the bag, True for real children.
    """
    with torch.no_grad():
        child_mask = child_mask[embeddings.retained]
        low_image = embeddings.low_image[embeddings.retained]
        high_image, low_text, high_text = embeddings.high_image, embeddings.low_text, embeddings.high_text
        num_subtexts = len(high_text) // len(low_text)
        low_similarity = F.normalize(low_image, dim=-1) @ F.normalize(low_text, dim=-1).t()
        high_similarity = F.normalize(high_image, dim=-1) @ F.normalize(high_text, dim=-1).t()
        best_two = low_similarity.topk(min(2, len(low_text)), dim=1).indices
        parent_text = high_similarity.argmax(-1) // num_subtexts
        agrees = (parent_text.unsqueeze(-1) == best_two.unsqueeze(1)).any(-1)
        return int((agrees & child_mask).any(1).sum()), len(embeddings.low_image)


def hit_ratio(hits: int, patches: int) -> float:
    """NaN where there is no patch."""
    return hits / patches if patches else float("nan")
