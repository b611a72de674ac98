"""The content of a run's config.json: what the run was trained with, and what of it has changed since."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.config import OPTIONS, Config
from utils.errors import Fault, UserError
from utils.model_identity import ModelIdentity
from utils.words import listed

FEATURES = re.compile(r"features_\d+")
"""Inputs that are features of a fold."""


@dataclass(frozen=True)
class RunRecord:
    """The content of config.json.

    options: every option of main.py by name; one that an older record lacks has its default. class_names: in the order
    of the labels. feature_dim: width of the features, None where it was not recorded. descriptions: {class: {term:
    explanation}}. inputs: digests by the name of the input. versions: by the name of the program.
    num_threads: those of PyTorch's operations in training, None where that was not recorded. features: digests by slide
    of the features that the folds read; none in a record of an earlier version. features_model: the one that the
    features are of, None where their files do not say.
    """

    options: dict[str, Any]
    class_names: list[str]
    feature_dim: int | None
    descriptions: Mapping[str, Mapping[str, str | list[str]]]
    inputs: dict[str, str]
    versions: dict[str, str]
    num_threads: int | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    features_model: ModelIdentity | None = None

    def changed_inputs(self, other: "RunRecord") -> list[str]:
        """The inputs that both records tell of and that differ, sorted. What a tokenizer makes of texts is compared
        where the texts are the same."""
        changed = {name for name, digest in self.inputs.items() if other.inputs.get(name, digest) != digest}
        return sorted(changed - {"tokenizer"} if "text_prompt" in changed else changed)

    def changed_slides(self, digests: Mapping[str, str]) -> list[str]:
        """The slides of the record whose features have another digest now, sorted."""
        return sorted(name for name, told in self.features.items() if digests.get(name, told) != told)

    def change_told(self, name: str, new: "RunRecord") -> str:
        """What of an input that has changed is told beside its name: of features the slides, as far as the record tells
        them; "" of others."""
        if not FEATURES.fullmatch(name):
            return ""
        if not self.features:
            return " (an earlier version wrote config.json, without the digests of single slides)"
        changed = self.changed_slides(new.features)
        if not changed:  # the same features of other slides
            return " (of other slides than before)"
        return f" ({len(changed)} of the run's {len(self.features)} slides: {listed(changed)})"


def replaced(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded options with those given in place. Features lie in one place: a folder that is given takes that of a
    job, which the run read in its place, away."""
    is_elsewhere = "data_root_dir" in given and "features_from" not in given
    return {**recorded, **({"features_from": None} if is_elsewhere else {}), **given}


def config_of(options: Mapping[str, Any], file: Path) -> Config:
    """The options that ``Config.to_dict`` gave, of this version or of an older one that did not know all of them: those
    that are missing have their defaults. Raises UserError for options and choices that this version does not know, and
    for numbers out of bounds.

    file: where they were read, for the message.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        found, mend = f"unknown options {listed(unknown)}", "use the version that wrote the file"
        raise UserError(Fault("run.unknown_options", str(file), found, mend=mend))
    reasons = ((name, OPTIONS[name].refuses(value)) for name, value in options.items())
    if faults := [Fault("option.value", f"{file}: {name}", why) for name, why in reasons if why]:
        raise UserError(faults)
    return Config(**options)
