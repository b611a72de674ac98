"""The models by name."""

from collections.abc import Sequence
from importlib import import_module

from models.kind import Inputs, Kind
from models.vlms import TextSide
from utils.config import Config
from utils.interface import SlideModel
from utils.model_types import MODEL_TYPES


def _load(name: str) -> Kind:
    """module.NAME -> the kind that stands there."""
    module, _, attribute = name.rpartition(".")
    kind = getattr(import_module(module), attribute)
    assert isinstance(kind, Kind), f"{name} is no Kind"
    return kind


KINDS = {name: _load(model.kind) for name, model in MODEL_TYPES.items()}


def build_model(
    config: Config,
    tower: TextSide | None,
    low_texts: Sequence[str],
    high_texts: Sequence[str],
    num_classes: int,
    feature_dim: int | None = None,
) -> SlideModel:
    """The model that the options describe, newly initialised from the global generator.

    low_texts, high_texts: descriptions, class-major (of HiVE-MIL K*O and K*O*S). The tower is shared, not copied.
    feature_dim: width of the features; by default the tower's.
    """
    if feature_dim is None:
        assert tower is not None
        feature_dim = tower.output_dim
    inputs = Inputs(num_classes, feature_dim, tower, low_texts, high_texts)
    return KINDS[config.model_type].build(config, inputs)
