"""Folders as main.py leaves them, with made-up predictions: no training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.fold_result import FoldResult
from training.metrics import classification_metrics
from training.run_folder import RunFolder
from training.run_record import RunRecord
from utils.config import Config
from utils.files import file_sha256

CLASSES = ("LUAD", "LUSC", "OTHER")


def write_table(path: Path, slides: Mapping[str, int], cases: Mapping[str, str], classes: Sequence[str]) -> None:
    rows = [(cases[slide_id], slide_id, classes[label]) for slide_id, label in slides.items()]
    pd.DataFrame(rows, columns=["case_id", "slide_id", "label"]).to_csv(path, index=False)


def write_run(
    results: Path,
    table: Path,
    folds: Mapping[int, Mapping[str, Sequence[str]]],
    skill: float,
    classes: Sequence[str] = CLASSES,
    hit_ratio: float = float("nan"),
    **options: Any,
) -> Path:
    """A run of the slides in ``table``. folds: train, val and test by number, those that are finished; skill: how well
    the probabilities follow the labels. Returns the run's folder."""
    config = Config(**{"task": "nsclc", "feature_extractor": "plip", "few_shot_num": 4, "k": len(folds), **options})
    config = Config(**{**asdict(config), "results_dir": str(results), "dataset_csv": str(table)})
    run = RunFolder(config.run_path())
    run.path.mkdir(parents=True)
    labels = pd.read_csv(table, dtype=str).set_index("slide_id")["label"] if table.is_file() else {}
    generator = np.random.default_rng([config.seed, round(1000 * skill)])
    inputs = {"dataset_csv": file_sha256(table) if table.is_file() else ""}
    for number, parts in folds.items():
        columns = {name: pd.Series(slides, dtype=str) for name, slides in parts.items()}
        pd.DataFrame(columns).fillna("").to_csv(run.split(number))
        inputs[f"splits_{number}"] = file_sha256(run.split(number))
    run.open(RunRecord(config.to_dict(), list(classes), None, {}, inputs, {}))
    for number, parts in folds.items():
        tables, metrics = [], {}
        for split in ("val", "test"):
            names = list(parts[split])
            truth = np.array([classes.index(labels[name]) for name in names])
            scores = generator.dirichlet(np.ones(len(classes)), len(names)) + skill * np.eye(len(classes))[truth]
            probabilities = scores / scores.sum(1, keepdims=True)
            metrics[split] = classification_metrics(truth, probabilities)
            predictions = {"split": split, "slide_id": names, "label": [classes[label] for label in truth]}
            predictions["prediction"] = [classes[label] for label in probabilities.argmax(1)]
            predictions |= {f"prob_{name}": probabilities[:, k] for k, name in enumerate(classes)}
            tables.append(pd.DataFrame(predictions))
        pd.concat(tables).to_csv(run.predictions(number), index=False)
        run.finish(FoldResult.of(number, metrics["test"], metrics["val"], hit_ratio, best_epoch=3, epochs=13))
    return run.path
