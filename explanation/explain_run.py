"""Explanations of slides by the trained HiVE-MIL models of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from datasets.bags import read_bag
from datasets.slide_names import slide_name
from datasets.task import Slide, optional_table, read_level0_magnifications
from explanation.contributions import mean_explanation
from explanation.explain_model import explain
from explanation.explained_slide import ExplainedSlide, FoldOutcome, Scale, text_names
from explanation.faithfulness import removal_curve
from explanation.slide_pixels import size_of_pixels, sizes_of_patches
from models.hive_mil import HiveMIL
from training.evaluation import autocast
from training.trained_run import TrainedRun, load_run
from utils.errors import Fault, UserError
from utils.interface import Bag
from utils.names import check_names
from utils.words import listed


def load_hive_mil(
    checkpoints: Sequence[Path],
    given: Mapping[str, Any],
    slide_ids: Sequence[str] | None = None,
    labels_optional: bool = False,
) -> TrainedRun:
    """``load_run``, of HiVE-MIL models alone; the slides' features are not looked at yet. Raises UserError as it does,
    and for a run of another model."""
    run = load_run(checkpoints, given, slide_ids, False, "explanation", labels_optional)
    if run.config.model_type != "HiVE_MIL":
        found = f"a run of {run.config.model_type}"
        expected = "one of --model_type HiVE_MIL"
        raise UserError(Fault("run.other_model", str(checkpoints[0].parent), found, expected))
    return run


def slides_to_explain(run: TrainedRun, slide_ids: Sequence[str] | None, split: str | None) -> dict[str, list[str]]:
    """{slide_id: folds that explain it}: all folds for a slide that was named, those that have it in ``split`` for the
    slides of a split; with neither all folds for all slides of the run.

    Raises UserError where a split is asked for and the split file of a fold is missing.
    """
    if slide_ids or split is None:
        names = [slide_name(slide_id) for slide_id in slide_ids or run.slides]
        check_names(names, "--slides", "slide ids")
        return {name: list(run.models) for name in names}
    unknown = [fold for fold in run.models if fold not in run.parts]
    if unknown:
        found = f"no splits_<fold>.csv beside the checkpoint of {listed(unknown, quote=False)}"
        raise UserError(Fault("split.missing", f"--split {split}", found, mend="name slides with --slides"))
    chosen: dict[str, list[str]] = {}
    for fold, parts in run.parts.items():
        for slide_id, part in parts.items():
            if part == split:
                chosen.setdefault(slide_id, []).append(fold)
    return chosen


def first_correct(run: TrainedRun) -> str | None:
    """The first test slide that the model of its fold predicts correctly, as the authors' notebook chooses; None where
    there is none. Raises UserError as ``slides_to_explain`` does."""
    for slide_id, (fold, *_) in slides_to_explain(run, None, "test").items():
        slide = run.slides[slide_id]
        bag = read_bag(run.cache.folders, slide, run.cache.feature_dim).to(run.device)
        with torch.no_grad(), autocast(run.device, run.config.precision):
            prediction = int(run.models[fold](bag).logits.argmax())
        if prediction == slide.label:
            return slide_id
    return None


def explain_slide(
    run: TrainedRun, slide_id: str, folds: Sequence[str], draws: int = 0, file: Path | None = None
) -> ExplainedSlide:
    """Explain a slide by the models of some folds. draws: removals at random, 0 for none at all. file: the slide's, for
    the size of its pixels."""
    slide, texts, config = run.slides.get(slide_id) or Slide(slide_id, slide_id), run.descriptions, run.config
    bag = read_bag(run.cache.folders, slide, run.cache.feature_dim)
    table = optional_table(config.task, config.dataset_csv)
    level0 = read_level0_magnifications(table).get(slide_id) if table else None
    sizes = sizes_of_patches(run.cache.folders, bag, level0)
    on_device = bag.to(run.device)
    with autocast(run.device, config.precision):
        by_fold = {fold: explain(cast(HiveMIL, run.models[fold]), on_device) for fold in folds}
    explanation = mean_explanation(list(by_fold.values()))
    outcomes = [
        FoldOutcome(fold, run.parts.get(fold, {}).get(slide_id, ""), found.probabilities, found.hit_ratio)
        for fold, found in by_fold.items()
    ]
    names = text_names(run.class_names, config.num_low_mag_texts, config.num_high_mag_subtexts)
    assert bag.low_coords is not None and bag.high_coords is not None
    low_coords, high_coords, is_child = bag.low_coords.numpy(), bag.high_coords.numpy(), bag.child_mask.numpy()
    is_parent = np.ones(len(low_coords), dtype=bool)
    explained = ExplainedSlide(
        slide_id,
        run.class_names,
        slide.label,
        outcomes,
        explanation,
        Scale(config.low_mag, low_coords, sizes.parent, is_parent, texts.low_texts, names[0], explanation.low),
        Scale(config.high_mag, high_coords, sizes.child, is_child, texts.high_texts, names[1], explanation.high),
        pixel=size_of_pixels(run.cache.folders, slide_id, level0, file),
    )
    if not draws:
        return explained
    scores = explained.low.class_scores[:, explained.prediction]
    probability = partial(mean_probability, run, folds, explained.prediction)
    return replace(explained, removal=removal_curve(on_device, scores, probability, draws))


def mean_probability(run: TrainedRun, folds: Sequence[str], label: int, bag: Bag) -> float:
    """Of a class, over the folds."""
    with torch.no_grad(), autocast(run.device, run.config.precision):
        logits = torch.stack([run.models[fold](bag).logits.double() for fold in folds])
    return float(logits.softmax(1)[:, label].mean())
