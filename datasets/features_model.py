"""What the feature files of a task say of the vision-language model that they are of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets.folders import FeatureFolders
from datasets.patches import INSTANCES, Patches
from datasets.task import Slide
from utils.errors import Fault, UserError
from utils.h5 import read_attributes
from utils.interface import BagForm
from utils.model_identity import ModelIdentity
from utils.words import listed

Told = Sequence[ModelIdentity | None]
"""What the files of one slide say, each once; None of a file that says nothing."""


@dataclass(frozen=True)
class FeaturesModel:
    """The model that the features of some slides are of.

    identity: None where no file says. untold: slides with a file that does not say. number: of the slides.
    """

    identity: ModelIdentity | None = None
    untold: list[str] = field(default_factory=list)
    number: int = 0


def told_by_files(folders: FeatureFolders, slide_id: str, form: BagForm) -> list[ModelIdentity | None]:
    """What the files of a slide say; nothing of a file that was made of a table of instances. Raises UserError where a
    file is missing, damaged or being written."""
    attributes = [read_attributes(file) for file in folders.files(slide_id, form)]
    return list(dict.fromkeys(ModelIdentity.of(said) for said in attributes if INSTANCES not in said))


def shared_model(low: Patches, high: Patches) -> ModelIdentity | None:
    """The model of a slide's features at both magnifications, where both files say. Raises UserError where they are of
    two models."""
    if low.model and high.model and not low.model.is_same(high.model):
        found = f"features of {low.model}, but {high.file} has those of {high.model}"
        raise UserError(Fault("features.mixed", str(low.file), found, "features of one model", "extract both anew"))
    return low.model and high.model


def model_attributes(low: Patches, high: Patches) -> dict[str, Any]:
    """What a file that is made of both carries. Raises UserError as ``shared_model``."""
    model = shared_model(low, high)
    return model.attributes() if model else {}


def read_features_model(folders: FeatureFolders, slides: Iterable[Slide], form: BagForm) -> FeaturesModel:
    """The model of those slides whose files can be read. Raises UserError as ``one_model``."""
    told: dict[str, Told] = {}
    for slide in slides:
        try:
            told[slide.slide_id] = told_by_files(folders, slide.slide_id, form)
        except UserError:
            continue
    return one_model(folders, told)


def one_model(folders: FeatureFolders, told: Mapping[str, Told]) -> FeaturesModel:
    """The model that all files are of. told: by slide_id. Raises UserError where they are of several."""
    slides: dict[tuple[str, bool], list[str]] = {}
    models: dict[tuple[str, bool], ModelIdentity] = {}
    for slide_id, found in told.items():
        for model in filter(None, found):
            same = model.sha256, model.projected
            slides.setdefault(same, []).append(slide_id)
            models.setdefault(same, model)
    if len(models) > 1:
        kinds = [f"{len(slides[same])} slides of {model} ({listed(slides[same])})" for same, model in models.items()]
        mend = f"make those of the other model anew: {folders.extract_command()} --overwrite"
        raise UserError(Fault("features.mixed", str(folders.place), "; ".join(kinds), "features of one model", mend))
    untold = [slide_id for slide_id, found in told.items() if None in found]
    return FeaturesModel(next(iter(models.values()), None), untold, len(told))
