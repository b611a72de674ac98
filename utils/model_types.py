"""The models of ``--model_type``, and groups of models by which options say who reads them."""

from typing import NamedTuple


class ModelType(NamedTuple):
    """kind: where its ``models.kind.Kind`` is. texts: whose form of descriptions it reads ("HiVE_MIL", "ViLa_MIL" or
    "MSCPT"), None for none."""

    kind: str
    texts: str | None = None


MODEL_TYPES = {
    "HiVE_MIL": ModelType("models.build_hive_mil.HIVE_MIL", texts="HiVE_MIL"),
    "MaxPooling": ModelType("models.baselines.pooling.MAX"),
    "MeanPooling": ModelType("models.baselines.pooling.MEAN"),
    "ABMIL": ModelType("models.baselines.abmil.KIND"),
    "DSMIL": ModelType("models.baselines.dsmil.KIND"),
    "CLAM_SB": ModelType("models.baselines.clam.SINGLE_BRANCH"),
    "CLAM_MB": ModelType("models.baselines.clam.MULTI_BRANCH"),
    "TransMIL": ModelType("models.baselines.transmil.KIND"),
    "DTFD_MIL": ModelType("models.baselines.dtfd_mil.KIND"),
    "WiKG": ModelType("models.baselines.wikg.KIND"),
    "ViLa_MIL": ModelType("models.baselines.vila_mil.KIND", texts="ViLa_MIL"),
    "MSCPT": ModelType("models.baselines.mscpt.KIND", texts="MSCPT"),
    "FOCUS": ModelType("models.baselines.focus.KIND", texts="ViLa_MIL"),
}
"""The models of ``--model_type``."""

ALL = frozenset(MODEL_TYPES)
TEXTS = frozenset(name for name, model in MODEL_TYPES.items() if model.texts)
HIVE = frozenset({"HiVE_MIL"})
CLAM = frozenset({"CLAM_SB", "CLAM_MB"})
FLAT = ("MaxPooling", "MeanPooling", "ABMIL", "DSMIL", "CLAM_SB", "CLAM_MB", "TransMIL", "DTFD_MIL", "WiKG", "FOCUS")
"""Those that read the patches of one scale alone; DSMIL without --two_scale."""
