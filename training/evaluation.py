"""Predictions of a model on slides, and their metrics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import torch

from training.metrics import Metrics, classification_metrics, hit_ratio, hits_at_2
from training.more_metrics import more_metrics, patient_metrics
from utils.errors import Fault, UserError
from utils.interface import Bag, SlideModel


@dataclass(frozen=True)
class Predictions:
    """Of N slides: labels (N,), -1 where unknown; probabilities (N, K); the mean loss of those that have one.

    Of a graph, else NaN: Hit Ratio@2 over all low patches of all slides (paper, Algorithm 2), and the shares of
    filtered pairs of patch and text at the low and at the high scale, means over slides (paper, Table 15).
    """

    slide_ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    loss: float = nan
    hit_ratio: float = nan
    filtered_low: float = nan
    filtered_high: float = nan

    def further_metrics(
        self, patients: Mapping[str, str], class_names: Sequence[str], pooling: str
    ) -> dict[str, float]:
        """Metrics beside ``metrics``, and all of them by patient, by their keys: log_loss, patient_log_loss.

        patients: by slide_id. pooling: one of ``POOLING``.
        """
        by_patient = patient_metrics(
            self.labels, self.probabilities, [patients[slide_id] for slide_id in self.slide_ids], class_names, pooling
        )
        return {
            **more_metrics(self.labels, self.probabilities, class_names),
            **{f"patient_{name}": value for name, value in by_patient.items()},
        }

    def metrics(self) -> Metrics:
        return classification_metrics(self.labels, self.probabilities)

    def table(self, class_names: list[str]) -> pd.DataFrame:
        """slide_id, label, prediction, prob_<CLASS>...; names of classes, an empty label where it is unknown."""
        names = np.array([*class_names, ""])
        table = pd.DataFrame(
            {
                "slide_id": self.slide_ids,
                "label": names[self.labels],
                "prediction": names[self.probabilities.argmax(1)],
            }
        )
        for k, name in enumerate(class_names):
            table[f"prob_{name}"] = self.probabilities[:, k]
        return table


def autocast(device: torch.device, precision: str) -> Any:
    """The context a model runs in: bf16 autocast, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def known_mean(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN where there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else nan


@torch.no_grad()
def evaluate(model: SlideModel, bags: Iterable[Bag], device: torch.device, precision: str = "fp32") -> Predictions:
    """Run a model over slides, one at a time. Raises UserError where its logits are not finite."""
    model.eval()
    slide_ids, labels, probabilities, losses, filtered = [], [], [], [], []
    hits = patches = 0
    for bag in bags:
        bag = bag.to(device)
        with autocast(device, precision):
            output = model(bag)
        if not torch.isfinite(output.logits).all():
            mend = "try a lower --lr, or --precision fp32"
            raise UserError(Fault("logits.not_finite", f"slide {bag.slide_id}", "the logits are not finite", mend=mend))
        slide_ids.append(bag.slide_id)
        labels.append(bag.label)
        probabilities.append(output.logits.double().softmax(0).cpu().numpy())
        if output.loss is not None:
            losses.append(float(output.loss))
        if output.filtered is not None:
            filtered.append(output.filtered.double().cpu().numpy())
        if output.has_hierarchy() and output.embeddings is not None:
            found, of_slide = hits_at_2(output.embeddings, bag.child_mask)
            hits, patches = hits + found, patches + of_slide
    low, high = (known_mean([shares[scale] for shares in filtered]) for scale in (0, 1))
    return Predictions(
        slide_ids,
        np.array(labels, dtype=np.int64),
        np.array(probabilities),
        float(np.mean(losses)) if losses else nan,
        hit_ratio(hits, patches),
        low,
        high,
    )
