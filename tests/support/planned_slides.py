"""Slides planned for extraction, with a stand-in for what files say of the encoder."""

from pathlib import Path
from typing import Any

from datasets.extraction_plan import FeatureRecipe, PlanJob, SlidePlan, plan_slide
from datasets.folders import FeatureFolders
from datasets.slides import Magnification

ENCODER = {"encoder": "pixels", "model_sha256": "0", "projected": True, "normalised": False}


PLAIN = FeatureRecipe(5, 20, 0.1, "none", ENCODER)


def plan(
    folder: Path, file: Path, settings: FeatureRecipe = PLAIN, level0: float | None = 20, **options: Any
) -> SlidePlan:
    given = Magnification(level0, "--level0-mag") if level0 else None
    folders = FeatureFolders(folder, "task", "pixels")
    found = plan_slide(PlanJob(file.stem, file, given, settings, folders, None, **options)).plan
    assert found is not None
    return found
