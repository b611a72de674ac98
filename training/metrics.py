"""Metrics of a set of slides, and Hit Ratio@2 of one slide."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from utils.interface import Embeddings


class Metrics(NamedTuple):
    """auc: of class 1 for two classes, else the mean of the one-vs-rest AUCs. f1: macro. acc: accuracy."""

    auc: float
    f1: float
    acc: float


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """labels (N,) class indices, probabilities (N, K). The AUC is NaN where a class is missing."""
    num_classes = probabilities.shape[1]
    prediction = probabilities.argmax(1)
    columns = [1] if num_classes == 2 else range(num_classes)
    if len(set(labels.tolist())) < num_classes:
        auc = float("nan")
    else:
        auc = float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in columns]))
    f1 = f1_score(labels, prediction, labels=range(num_classes), average="macro", zero_division=0)
    return Metrics(auc=auc, f1=float(f1), acc=float(accuracy_score(labels, prediction)))


def hit_ratio_at_2(embeddings: Embeddings, child_mask: Tensor) -> float:
    """Share of the low patches with children in the graph that are hits; NaN where no patch has any.

    A low patch is a hit when, for any of its real children, the most similar high text belongs to one of the two low
    texts most similar to the patch itself. Only the children of retained parents are in the graph, so the others do
    not count. child_mask: (P, C) bool of the bag, True for real children.
    """
    with torch.no_grad():
        child_mask = child_mask[embeddings.retained]
        has_children = child_mask.any(1)
        low_image = embeddings.low_image[embeddings.retained]
        high_image, low_text, high_text = embeddings.high_image, embeddings.low_text, embeddings.high_text
        num_subtexts = len(high_text) // len(low_text)
        low_similarity = F.normalize(low_image, dim=-1) @ F.normalize(low_text, dim=-1).t()
        high_similarity = F.normalize(high_image, dim=-1) @ F.normalize(high_text, dim=-1).t()
        best_two = low_similarity.topk(min(2, len(low_text)), dim=1).indices
        parent_text = high_similarity.argmax(-1) // num_subtexts
        agrees = (parent_text.unsqueeze(-1) == best_two.unsqueeze(1)).any(-1)
        hits = (agrees & child_mask).any(1)
        return float(hits[has_children].double().mean()) if has_children.any() else float("nan")
