"""The models by name."""

from collections.abc import Sequence

from models.baselines import abmil, clam, dsmil, dtfd_mil, focus, mscpt, pooling, transmil, vila_mil, wikg
from models.build_hive_mil import HIVE_MIL
from models.kind import COMMON, TEXT_OPTIONS, Inputs, Kind
from models.vlms import TextSide
from utils.config import Config
from utils.interface import SlideModel

KINDS: dict[str, Kind] = {
    "HiVE_MIL": HIVE_MIL,
    "MaxPooling": pooling.MAX,
    "MeanPooling": pooling.MEAN,
    "ABMIL": abmil.KIND,
    "DSMIL": dsmil.KIND,
    "CLAM_SB": clam.SINGLE_BRANCH,
    "CLAM_MB": clam.MULTI_BRANCH,
    "TransMIL": transmil.KIND,
    "DTFD_MIL": dtfd_mil.KIND,
    "WiKG": wikg.KIND,
    "ViLa_MIL": vila_mil.KIND,
    "FOCUS": focus.KIND,
    "MSCPT": mscpt.KIND,
}
WITHOUT_EFFECT = frozenset({"mode"})  # of the released code; no model reads them
MODEL_OPTIONS = WITHOUT_EFFECT.union(COMMON, TEXT_OPTIONS, *(kind.options for kind in KINDS.values()))


def options_without_effect(config: Config) -> set[str]:
    """Options that the chosen model does not read, or that another option switches off."""
    kind = KINDS[config.model_type]
    without_file = {"LLM"} if config.text_prompt else set()
    return set(MODEL_OPTIONS - kind.options) | kind.switched_off(config) | without_file


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
