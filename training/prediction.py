"""Slides predicted by the trained models of a run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets.bag_cache import BagLoader
from datasets.encoding import EncoderSource
from datasets.extract import ExtractionOptions, extract_slides
from datasets.folders import FeatureFolders
from datasets.task import NO_LABEL
from models.vlms import load_image_side
from training.evaluation import Predictions, evaluate
from training.run_record import RunRecord
from training.same_model import check_trained_with
from training.trained_run import TrainedRun
from utils.config import Config
from utils.effects import FREE
from utils.errors import Fault, UserError
from utils.files import read_json, tensors_sha256, text_sha256, write_json
from utils.typed import mistakes

SLIDES_A_CHUNK = 32  # after which finished ones are written down


@dataclass(frozen=True)
class RunPredictions:
    """What the models of a run say of N slides.

    labels: (N,), NO_LABEL where unknown. by_fold: probabilities (N, folds, K).
    """

    slide_ids: list[str]
    class_names: list[str]
    labels: np.ndarray
    by_fold: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K): the mean over the folds."""
        return np.asarray(self.by_fold.mean(axis=1))

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (M,) and probabilities (M, K) of the slides whose label is known."""
        known = self.labels != NO_LABEL
        return self.labels[known], self.probabilities[known]

    def table(self) -> pd.DataFrame:
        """slide_id, label, prediction, prob_<CLASS>...; of several folds also std_<CLASS>..., the standard deviation
        of the probability over the folds."""
        table = Predictions(self.slide_ids, self.labels, self.probabilities).table(self.class_names)
        if self.by_fold.shape[1] == 1:
            return table
        spread = self.by_fold.std(axis=1)
        return table.assign(**{f"std_{name}": spread[:, k] for k, name in enumerate(self.class_names)})


@dataclass(frozen=True)
class KeptSlide:
    """features: digest of what was predicted from. probabilities: (folds, K)."""

    features: str
    probabilities: list[list[float]]


@dataclass(frozen=True)
class KeptPredictions:
    """What an interrupted call leaves. made_by: digest of the models. slides: by slide_id."""

    made_by: str
    slides: dict[str, KeptSlide]


def make_features(wsi_dir: Path, config: Config, record: RunRecord | None) -> list[str]:
    """Make the features of the slides in a folder that have none yet, with the run's encoder.

    record: the run's, None of a bare checkpoint. Finished slides are kept. Returns the ids of all slides in the folder.
    Raises UserError where that fails, and where the run was trained with features of another model.
    """
    source = EncoderSource.of(load_image_side, config.feature_extractor, config.vlm_path)
    if record:
        check_trained_with(config, source.encoder.identity(), record.features_model)
    return extract_slides(FeatureFolders.of(config), wsi_dir, source, ExtractionOptions(device=config.device))


def predict_slides(run: TrainedRun, kept: Path, resume: bool) -> RunPredictions:
    """Predict all slides of a run, in their order.

    kept: a file that finished slides are written to, and from where ``resume`` takes those whose features are the
    same. Raises UserError where that file comes from other models.
    """
    made_by = _fingerprint(run)
    done = _read_kept(kept, made_by, run) if resume and kept.exists() else {}
    open_slides = [slide for slide in run.slides.values() if slide.slide_id not in done]
    for start in range(0, len(open_slides), SLIDES_A_CHUNK):
        chunk = open_slides[start : start + SLIDES_A_CHUNK]
        run.cache.prefer(chunk)
        bags = BagLoader(run.cache, chunk, threads=run.config.num_workers, pin=run.device.type == "cuda")
        found = [evaluate(model, bags, run.device, run.config.precision) for model in run.models.values()]
        by_slide = np.stack([fold.probabilities for fold in found], axis=1)
        for slide, probabilities in zip(chunk, by_slide.tolist(), strict=True):
            done[slide.slide_id] = {"features": run.digests[slide.slide_id], "probabilities": probabilities}
        write_json(kept, {"made_by": made_by, "slides": done})
    by_fold = np.array([done[slide_id]["probabilities"] for slide_id in run.slides])
    labels = np.array([slide.label for slide in run.slides.values()], dtype=np.int64)
    return RunPredictions(list(run.slides), run.class_names, labels, by_fold)


def seen_note(run: TrainedRun) -> list[str]:
    """A line where the models were trained or chosen with some of the run's slides."""
    seen = {slide_id for parts in run.parts.values() for slide_id, part in parts.items() if part != "test"}
    known = seen & set(run.slides)
    if not known:
        return []
    return [
        f"warning: {len(known)} of {len(run.slides)} slides were training or validation slides of these checkpoints; "
        "metrics over them say nothing of new slides (the run's results.csv does)"
    ]


def _fingerprint(run: TrainedRun) -> str:
    """Tells whether predictions come from the same models: weights, options, classes and their texts."""
    weights = [tensors_sha256(model.checkpoint()) for model in run.models.values()]
    options = {name: value for name, value in run.config.to_dict().items() if name not in FREE - {"precision"}}
    return text_sha256(json.dumps([weights, options, run.class_names, run.descriptions.by_class]))


def _read_kept(kept: Path, made_by: str, run: TrainedRun) -> dict[str, dict[str, Any]]:
    """The finished slides whose features are the same as then."""
    before, mend = read_json(kept), "remove the file, or predict without --resume"
    if wrong := mistakes(KeptPredictions, before):
        raise UserError(Fault("predictions.unreadable", str(kept), f"not kept predictions ({wrong[0]})", mend=mend))
    slides: dict[str, dict[str, Any]] = before["slides"]
    shape = [len(run.class_names)] * len(run.models)
    shapes = [[len(fold) for fold in entry["probabilities"]] for entry in slides.values()]
    if before["made_by"] != made_by or any(other != shape for other in shapes):
        raise UserError(Fault("predictions.other_models", str(kept), "not made with these checkpoints", mend=mend))
    return {name: entry for name, entry in slides.items() if run.digests.get(name) == entry["features"]}
