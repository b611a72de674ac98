"""Features and texts are of one vision-language model, or nothing runs."""

from collections.abc import Callable

from datasets.features_model import FeaturesModel, read_features_model
from datasets.folders import FeatureFolders
from datasets.task import Slide
from models.vlms import TextSide
from models.vlms.catalogue import find_published
from models.vlms.identity import image_identity
from models.vlms.registry import Source
from utils.config import Config
from utils.errors import Fault, UserError
from utils.model_identity import ModelIdentity
from utils.words import listed

HOW_TO_SILENCE = "if you know which model made them, say so: --assume-model NAME"


def check_same_model(
    config: Config,
    tower: TextSide | None,
    found: FeaturesModel,
    warn: Callable[[Fault], None],
    trained_with: ModelIdentity | None = None,
) -> None:
    """Compare the model that the features are of with the one that the options name.

    tower: the text side; None where no texts are read, and then names are compared alone. warn: gets a fault where
    nothing can be compared. trained_with: the model of the features that a run was trained with. Raises UserError where
    the features are of another model, and where ``--assume-model`` says another than the features or the options do.
    """
    source = Source(config.feature_extractor, config.vlm_path if tower else None)
    told = found.identity
    check_assumed(config, source, told)
    if told:
        check_trained_with(config, told, trained_with)
        if tower:
            _compare(config, source, tower, told, warn)
        else:
            _compare_names(config, source, told)
    if found.untold and not config.assume_model:
        few = "" if len(found.untold) == found.number else f": {listed(found.untold)}"
        text = (
            f"the feature files of {len(found.untold)} of {found.number} slides do not say which model made them{few}"
        )
        expected = f"{source}, whose width they have; that they are of this model is not checked"
        warn(Fault("features.no_model", "", text, expected, HOW_TO_SILENCE))


def check_features_of_task(config: Config, tower: TextSide, warn: Callable[[Fault], None]) -> None:
    """``check_same_model`` for all features of a task. Raises UserError, also where the task has none."""
    folders = FeatureFolders.of(config)
    slides = [Slide(slide_id, slide_id) for slide_id in folders.slide_ids("hierarchy")]
    check_same_model(config, tower, read_features_model(folders, slides, "hierarchy"), warn)


def check_trained_with(config: Config, told: ModelIdentity, trained_with: ModelIdentity | None) -> None:
    """Raises UserError where features are of another model than those that a run was trained with."""
    if trained_with and not told.is_same(trained_with):
        raise UserError(_other(config, told, f"{trained_with}, which the run was trained with"))


def check_assumed(config: Config, source: Source, told: ModelIdentity | None) -> None:
    """Raises UserError where ``--assume-model`` contradicts the options or the features."""
    if not config.assume_model:
        return
    said, entry = find_published(config.assume_model), source.entry()
    named = said.name if said else config.assume_model
    own = entry.name if entry else config.feature_extractor
    where = f"--assume-model {config.assume_model}"
    if named != own:
        found = f"another model than {source} names"
        raise UserError(Fault("features.assumed", where, found, expected=own, mend="name one model with both"))
    if told and told.name not in ("", named):
        text = f"the features say that they are of {told}"
        raise UserError(Fault("features.assumed", where, text, mend="leave it out"))


def _compare(
    config: Config, source: Source, tower: TextSide, told: ModelIdentity, warn: Callable[[Fault], None]
) -> None:
    """By the digest of the model's image side or, where its files have none, by its family."""
    try:
        expected = image_identity(source)
    except UserError as error:
        if told.family != tower.origin.family:
            expected_family = f"a model of the family {tower.origin.family}, as {source} is"
            raise UserError(_other(config, told, expected_family)) from error
        _compare_names(config, source, told)
        text = f"the features are of {told}; whether {source} is the same model is not checked: {error.faults[0]}"
        warn(Fault("features.not_compared", "", text, mend="name the whole model's files with --vlm_path"))
        return
    if not told.is_same(expected):
        raise UserError(_other(config, told, f"{expected}, as {source} is"))


def _compare_names(config: Config, source: Source, told: ModelIdentity) -> None:
    entry = source.entry()
    if entry and told.name not in ("", entry.name):
        raise UserError(_other(config, told, f"{entry.name} ({entry.family}), which {source} names"))


def _other(config: Config, told: ModelIdentity, expected: str) -> Fault:
    folders = FeatureFolders.of(config)
    mend = (
        "name the model that made them with --feature_extractor or --vlm_path, or make them anew: "
        f"{folders.extract_command()}"
    )
    return Fault("features.other_model", str(folders.place), f"features of {told}", expected, mend)
