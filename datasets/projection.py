"""Features from before a model's projection: told where their rows tell it, and projected.

A vision-language model multiplies what its image tower gives by a matrix, and only then do images and texts share a
space. Tools that use the tower alone save features from before this step. Mostly these are of another width. CONCH's
and MUSK's are as wide as projected ones: TRIDENT, CLAM and STAMP save CONCH features neither projected nor normalised,
and MUSK's package gives features of either kind and length.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from datasets.folders import FeatureFolders
from datasets.patches import Patches
from utils.errors import Fault, UserError
from utils.files import file_sha256, text_sha256
from utils.image_head import ImageHead

TOLERANCE = 0.01  # of a row's length: float16 rows stay within
CONCH, MUSK = "conch", "musk"
WEIGHTS = {CONCH: "conch/pytorch_model.bin", MUSK: "xiangjx/musk"}
"""Models whose projected features are of unit length and as wide as others, and where their projection is."""
LEAVE_OUT = "leave out --project-with"


# ---- told ------------------------------------------------------------------------------------------------------------


def unit_rows(norms: np.ndarray) -> np.ndarray:
    """Which rows are of unit length. norms: (N,) -> (N,) bool."""
    are_unit: np.ndarray = np.abs(norms - 1) < TOLERANCE
    return are_unit


def has_unit_rows(norms: np.ndarray) -> bool:
    """Whether features are normalised. norms: (N,) lengths of their rows."""
    return bool(unit_rows(norms).all())


def model_of_unit_rows(folders: FeatureFolders) -> str | None:
    """``conch`` or ``musk`` where it is one of the words of the feature extractor's name: conch, conch_v1, my-CONCH."""
    words = re.split(r"[^a-z]+", folders.feature_extractor.lower())
    return next((model for model in WEIGHTS if model in words), None)


def is_conch(folders: FeatureFolders) -> bool:
    """Whether the features are CONCH's, by the feature extractor's name."""
    return model_of_unit_rows(folders) == CONCH


def projection_remedy(folders: FeatureFolders) -> str:
    """What to know of CONCH or MUSK features whose rows are not of unit length, and the command that mends them."""
    model = model_of_unit_rows(folders) or CONCH
    tools = {
        CONCH: "TRIDENT, CLAM and STAMP save them before the projection",
        MUSK: "MUSK's package (with_head=False) and the tools that use it give them before the projection",
    }[model]
    return (
        f"{model.upper()} features that are projected and normalised have length 1. {tools}, as wide as after it: "
        f"training on them fails silently. Project them with: {folders.projection_command(WEIGHTS[model])}"
    )


def projection_fault(folders: FeatureFolders, low_norms: np.ndarray, high_norms: np.ndarray) -> str | None:
    """What is wrong with features before CONCH's or MUSK's projection, or of two kinds; told by the lengths of their
    rows."""
    shown = f"rows are {np.median(low_norms):.3g} long at low and {np.median(high_norms):.3g} at high magnification"
    unit = has_unit_rows(low_norms), has_unit_rows(high_norms)
    if model_of_unit_rows(folders) and not all(unit):
        return f"{shown}; {projection_remedy(folders)}"
    if unit[0] != unit[1]:
        return f"{shown}: one scale is normalised and the other is not; extract both in the same way"
    return None


def projection_attributes(folders: FeatureFolders, low: Patches, high: Patches) -> dict[str, Any]:
    """What the files of a slide say of projection and length."""
    same = ("projected", "projection_sha256")
    told = {name: low.attributes[name] for name in same if low.attributes.get(name) == high.attributes.get(name, "")}
    warning = projection_fault(folders, low.norms, high.norms)
    if is_conch(folders) or (warning and model_of_unit_rows(folders)):
        told["projected"] = warning is None
    told["normalised"] = has_unit_rows(low.norms) and has_unit_rows(high.norms)
    return {**told, "projection_warning": warning} if warning else told


# ---- projected -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """A head that is applied to features where they need it. sha256: of the file of its weights, or of all files'."""

    head: ImageHead
    sha256: str

    @classmethod
    def of(cls, head: ImageHead) -> "Projection":
        digests = [file_sha256(file) for file in head.weights]
        return cls(head, digests[0] if len(digests) == 1 else text_sha256("\n".join(digests)))

    def needed_by(self, patches: Patches) -> bool:
        """Whether patches are from before this projection: by their width where it tells that, else by the lengths of
        their rows where these do, else by what their file says."""
        if self._made(patches):
            return False
        if patches.features.shape[1] != self.head.output_dim:
            return True
        if self.head.output_dim not in self.head.widths:
            return False
        return not (has_unit_rows(patches.norms) if self.head.lengths_tell else patches.attributes.get("projected"))

    def of_patches(self, patches: Patches) -> Patches:
        """The patches with projected features, unless this projection made them already.

        Raises UserError where they are of another width, where they are projected already, and where they were
        normalised before a projection that does not bear it.
        """
        if self._made(patches):
            return patches
        if fault := self._refusal(patches):
            raise UserError(fault)
        told = {name: value for name, value in patches.attributes.items() if name != "projection_warning"}
        made = {"projected": True, "normalised": self.head.normalised, "projection_sha256": self.sha256}
        return replace(patches, features=self.head(patches.features), attributes={**told, **made}, as_is=False)

    def _made(self, patches: Patches) -> bool:
        return bool(patches.attributes.get("projection_sha256") == self.sha256)

    def _refusal(self, patches: Patches) -> Fault | None:
        """Why patches are not projected, if anything."""
        head, where = self.head, str(patches.file)
        (number, width), units = patches.features.shape, int(unit_rows(patches.norms).sum())
        if width not in head.widths:
            if width == head.output_dim:
                found = f"not projected: features are {width} wide already, as projected features of {head.told} are"
                return Fault("features.projected", where, found, mend=LEAVE_OUT)
            found = f"not projected: features are {width} wide"
            expected = f"{' or '.join(map(str, head.widths))}, as {head.name} in {head.told}"
            return Fault("features.width", where, found, expected)
        if head.lengths_tell and units == number:
            found = "not projected: its rows are of length 1 already, as projected features are"
            return Fault("features.projected", where, found, mend=LEAVE_OUT)
        if head.lengths_tell and units:
            found = f"not projected: {units} of {number} rows are of length 1 and the others are not"
            return Fault("features.projected", where, found, mend="extract this slide again")
        if patches.attributes.get("projected"):
            also = ", though not of length 1" if head.lengths_tell else ""
            found = f"not projected: it says that its features are projected (attribute 'projected'){also}"
            return Fault("features.projected", where, found, mend="" if head.lengths_tell else LEAVE_OUT)
        if not head.takes_any_length and units == number:
            found = f"not projected: its rows were normalised to length 1 before {head.name}, which needs their lengths"
            return Fault("features.normalised", where, found, mend="extract this slide again")
        return None
