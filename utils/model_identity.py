"""Which vision-language model features are of: what a model says of its image side, and what feature files carry."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelIdentity:
    """The image side of a vision-language model.

    family, name: for messages; the name is "" of a model that is not among the published ones. sha256: a digest over
    the tower's weights, activation, preprocessing and normalisation. projected: whether features lie in the joint space
    of images and texts. normalised: whether they are of unit length.
    """

    family: str
    name: str
    sha256: str
    projected: bool
    normalised: bool

    def __str__(self) -> str:
        kind = f"{self.name} ({self.family})" if self.name else f"a model of the family {self.family}"
        return f"{kind}, image side {self.sha256[:12]}"

    def is_same(self, other: "ModelIdentity") -> bool:
        """Whether features of both may stand together."""
        return (self.sha256, self.projected) == (other.sha256, other.projected)

    def attributes(self) -> dict[str, Any]:
        """As feature files carry them."""
        told = asdict(self)
        return {**{f"model_{name}": told.pop(name) for name in ("family", "name", "sha256")}, **told}

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "ModelIdentity | None":
        """What the attributes of a feature file say; None where they say nothing, as in files of other tools."""
        family, name, sha256 = (str(attributes.get(f"model_{part}", "")) for part in ("family", "name", "sha256"))
        if not family or not SHA256.fullmatch(sha256):
            return None
        return cls(family, name, sha256, bool(attributes.get("projected")), bool(attributes.get("normalised")))
