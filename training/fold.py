"""One fold of a run: the slides it takes, its training, and its test."""

from collections.abc import Sequence

import pandas as pd

from datasets.bag_cache import BagCache, BagLoader
from datasets.splits import Split, take_few, take_share
from training.evaluation import evaluate
from training.fold_result import FoldResult
from training.loop import EpochSampler, fit
from training.run_folder import RunFolder
from training.run_tables import CASE
from utils.config import Config
from utils.files import write_text
from utils.interface import SlideModel
from utils.spreadsheets import csv_text

SLIDES_OF_A_QUICK_TRY = 2


def choose_slides(config: Config, splits: Sequence[Split]) -> list[Split]:
    """The folds as ``--label_frac`` and ``--testing`` narrow them."""
    if config.label_frac < 1:
        splits = [take_share(split, config.label_frac, config.seed) for split in splits]
    return [take_few(split, SLIDES_OF_A_QUICK_TRY) for split in splits] if config.testing else list(splits)


def run_fold(
    config: Config, model: SlideModel, cache: BagCache, split: Split, class_names: list[str], run: RunFolder
) -> FoldResult:
    """Train a model on one fold, test it, and write what both gave into the run's folder.

    model: newly initialised, on the device to train on. cache: the features. class_names: of the labels. With
    ``config.resume`` an interrupted training goes on. run: opened. Raises UserError where a loss or a logit is not
    finite, where the state to go on from is damaged or of another run, and where the run's folder vanishes.
    """
    origin = {"fold": str(split.fold), **run.fingerprint(split.fold)}
    if not config.resume:
        run.clear(split.fold)
    write_text(run.split(split.fold), split.to_csv())
    device = next(model.parameters()).device
    sampler = EpochSampler([slide.label for slide in split.train], config.seed, config.weighted_sample)
    cache.prefer([*split.train, *split.val])
    train, val, test = (
        BagLoader(cache, slides, sampler if name == "train" else None, config.num_workers, pin=device.type == "cuda")
        for name, slides in split.parts()
    )
    progress = fit(model, train, val, sampler, config, run.training(split.fold), f"fold {split.fold}", origin)
    validated, tested = (evaluate(model, bags, device, config.precision) for bags in (val, test))
    patients = {slide.slide_id: slide.patient for slide in (*split.val, *split.test)}
    tables = {"val": validated.table(class_names), "test": tested.table(class_names)}
    for table in tables.values():
        table[CASE] = table["slide_id"].map(patients)
    further = tested.further_metrics(patients, class_names, config.patient_pooling)
    run.training(split.fold).require_folder()
    write_text(run.predictions(split.fold), csv_text(pd.concat(tables, names=["split"]).droplevel(1)))
    result = FoldResult.of(
        split.fold, tested.metrics(), validated.metrics(), tested.hit_ratio,
        best_epoch=progress.best_epoch, epochs=progress.epochs,
        tested_epoch=progress.best_epoch if config.early_stopping else progress.epochs - 1,
        test_filtered_low=tested.filtered_low, test_filtered_high=tested.filtered_high,
        more={f"test_{name}": value for name, value in further.items()},
    )  # fmt: skip
    run.finish(result)
    return result
