"""A run of two folds on a task whose patches of each class are known, and its explanations."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np

import create_simulated_task
import main
from explanation.explain_run import explain_slide, load_hive_mil, slides_to_explain
from explanation.explained_slide import ExplainedSlide
from tests.conftest import SimulatedTask
from training.trained_run import TrainedRun


@dataclass(frozen=True)
class PlantedRun:
    """A run of two folds, and the explained test slides of each."""

    task: SimulatedTask

    @property
    def folder(self) -> Path:
        return self.task.run_folder(self.task.root / "results")

    def checkpoint(self, fold: int) -> Path:
        return self.folder / f"s_{fold}_checkpoint.pt"

    @cache  # noqa: B019
    def run(self, fold: int) -> TrainedRun:
        return load_hive_mil([self.checkpoint(fold)], {})

    @cache  # noqa: B019
    def explained(self, fold: int) -> list[ExplainedSlide]:
        run = self.run(fold)
        return [explain_slide(run, slide_id, [f"fold {fold}"], 2) for slide_id in slides_to_explain(run, None, "test")]

    def planted(self, slide_id: str) -> tuple[np.ndarray, np.ndarray]:
        with h5py.File(self.task.features / "planted" / f"{slide_id}.h5") as file:
            return file["low"][()], file["high"][()]


def train_planted_run(root: Path) -> None:
    """Two classes of ten slides, trained until planted patches are found."""
    sizes = "--classes", "2", "--slides-per-class", "10", "--min-parents", "20", "--max-parents", "30"
    create_simulated_task.main(["--output-dir", str(root), "--folds", "2", *sizes])
    main.main(SimulatedTask(root).options(root / "results", "--max_epochs", "12"))
