"""Metrics beside AUC, F1 and accuracy, and all of them by patient, of pooled probabilities of a patient's slides."""

from collections.abc import Sequence

import numpy as np

from training.calibration import expected_calibration_error
from training.metrics import AUPRC, BALANCED_ACC, ECE, LOG_LOSS, MORE, classification_metrics

POOLING = ("mean", "max")
"""How the probabilities of a patient's slides become those of the patient."""


def more_metrics(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """The measures of ``MORE`` by their keys, then recall_<CLASS> of every class.

    labels: (N,) class indices; probabilities: (N, K). As for ``classification_metrics``, only classes with slides
    count. What is not defined is NaN: the recall of a class without slides; AUPRC of slides that are all of one class.
    AUPRC is average precision: of class 1 for two classes, else the mean of the one-vs-rest values.
    """
    from sklearn.metrics import average_precision_score, log_loss, recall_score  # takes a second to import

    nan, num_classes = float("nan"), len(class_names)
    if not len(labels):
        return {**{measure.key: nan for measure in MORE}, **{f"recall_{name}": nan for name in class_names}}
    present = np.unique(labels)
    columns = [1] if num_classes == 2 else present
    recalls = recall_score(labels, probabilities.argmax(1), labels=present, average=None, zero_division=0)
    recall_of = dict(zip(present.tolist(), map(float, recalls), strict=True))
    if len(present) < 2:
        auprc = nan
    else:
        auprc = float(np.mean([average_precision_score(labels == k, probabilities[:, k]) for k in columns]))
    values = {
        BALANCED_ACC.key: float(np.mean(recalls)),
        AUPRC.key: auprc,
        LOG_LOSS.key: float(log_loss(labels, probabilities, labels=range(num_classes))),
        ECE.key: expected_calibration_error(labels, probabilities),
    }
    return {**values, **{f"recall_{name}": recall_of.get(k, nan) for k, name in enumerate(class_names)}}


def pooled_by_patient(
    labels: np.ndarray, probabilities: np.ndarray, patients: Sequence[str], pooling: str = "mean"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Patients (P) in the order of their first slides, their labels (P,), and their probabilities (P, K).

    labels: (N,) of the slides; probabilities: (N, K); patients: (N) of the slides. pooling: mean, or max, the largest
    probability of each class, divided by their sum. A patient whose slides have several labels counts once for each.
    """
    members: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(patients, labels.tolist(), strict=True)):
        members.setdefault(key, []).append(row)
    pool = np.mean if pooling == "mean" else np.max
    pooled = np.array([pool(probabilities[rows], axis=0) for rows in members.values()])
    pooled = pooled.reshape(-1, probabilities.shape[1])
    return (
        [patient for patient, _ in members],
        np.array([label for _, label in members], dtype=np.int64),
        pooled / pooled.sum(1, keepdims=True),
    )


def patient_metrics(
    labels: np.ndarray, probabilities: np.ndarray, patients: Sequence[str], class_names: Sequence[str], pooling: str
) -> dict[str, float]:
    """By their keys, ``classification_metrics`` and ``more_metrics`` of ``pooled_by_patient``."""
    _, truth, pooled = pooled_by_patient(labels, probabilities, patients, pooling)
    return {**classification_metrics(truth, pooled)._asdict(), **more_metrics(truth, pooled, class_names)}
