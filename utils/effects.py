"""Which options change what is computed, by which models and in which stages, as the fields of ``Config`` tell it."""

from collections.abc import Collection, Mapping
from typing import Any

from utils.config import OPTIONS, Config
from utils.model_types import MODEL_TYPES
from utils.options import GIVEN, Nature, Stage


def of_nature(*natures: Nature) -> frozenset[str]:
    """The options of some natures."""
    return frozenset(name for name, told in OPTIONS.items() if told.nature in natures)


CIRCUMSTANCES = of_nature(Nature.SOURCE, Nature.MACHINE, Nature.CALL)
"""Options that say where a run happens and which part of it, not what it computes."""
NAMED = of_nature(Nature.NAME)
"""Options that the name of a run's folder tells."""
FREE = CIRCUMSTANCES | {
    name
    for name, told in OPTIONS.items()
    if told.may_change or not any(told.is_read(model, "prediction") for model in MODEL_TYPES)
}
"""Options with which a trained model may be used, whatever they were in training."""


def options_without_effect(config: Config, stage: Stage = "training") -> set[str]:
    """The options that the model does not read in a stage, or whose effect another option takes away."""
    return {name for name in OPTIONS if not has_effect(config, name, stage)}


def has_effect(config: Config, name: str, stage: Stage = "training") -> bool:
    """Whether the model reads an option in a stage, and no other option takes its effect away."""
    told = OPTIONS[name]
    return told.is_read(config.model_type, stage) and not any(_holds(config, values) for values in told.unless)


def _holds(config: Config, values: Mapping[str, Any]) -> bool:
    """Whether the options have these values, and these an effect."""
    return all(
        (found is not None if value is GIVEN else found == value) and has_effect(config, name)
        for name, value in values.items()
        for found in [getattr(config, name)]
    )


def effect_notes(config: Config, given: Collection[str], stage: Stage) -> list[str]:
    """A line for each option given that has no effect on a stage; it names the model where that reads the option in no
    stage."""
    of_model = options_without_effect(config)
    model = f"{config.model_type} --variant {config.variant}"
    return [
        f"note: --{name} has no effect on {model if name in of_model else stage}"
        for name in sorted(options_without_effect(config, stage).intersection(given))
    ]


def missing_options(config: Config) -> list[str]:
    """The options without a value that need one: the task, and where its features lie."""
    needed = ["task"] if config.features_from else ["task", "data_root_dir"]
    return [f"--{name}" for name in needed if not getattr(config, name)]
