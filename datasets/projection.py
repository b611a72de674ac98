"""CONCH features from before its projection: told by the lengths of their rows, and projected.

CONCH's published features are multiplied by ``visual.proj_contrast`` and of unit length. TRIDENT, CLAM and STAMP save
them before both steps, as wide as after: nothing but the lengths of the rows tells the two kinds apart.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.folders import FeatureFolders
from datasets.patches import Patches, row_norms
from utils.errors import Fault, UserError
from utils.files import file_sha256
from utils.tensors import misfit, read_state

MATRIX = "visual.proj_contrast"
WHOLE_FILE = (
    "a square matrix, as in CONCH's whole pytorch_model.bin from the hub repository MahmoodLab/CONCH (a file without "
    "the image tower is enough for training, but not for this)"
)
TOLERANCE = 0.01  # of a row's length: float16 rows stay within


def unit_rows(norms: np.ndarray) -> np.ndarray:
    """Which rows are of unit length. norms: (N,) -> (N,) bool."""
    are_unit: np.ndarray = np.abs(norms - 1) < TOLERANCE
    return are_unit


def has_unit_rows(norms: np.ndarray) -> bool:
    """Whether features are normalised. norms: (N,) lengths of their rows."""
    return bool(unit_rows(norms).all())


def is_conch(folders: FeatureFolders) -> bool:
    """Whether one of the words of the feature extractor's name is conch: conch, conch_v1, my-CONCH."""
    return "conch" in re.split(r"[^a-z]+", folders.feature_extractor.lower())


def projection_remedy(folders: FeatureFolders) -> str:
    """What to know of CONCH features whose rows are not of unit length, and the command that mends them."""
    return (
        "CONCH features that are projected and normalised have length 1. TRIDENT, CLAM and STAMP save them before the "
        "projection, as wide as after it: training on them fails silently. Project them with: "
        f"{folders.check_command()} --fix --project-with conch/pytorch_model.bin"
    )


def projection_fault(folders: FeatureFolders, low_norms: np.ndarray, high_norms: np.ndarray) -> str | None:
    """What is wrong with features before CONCH's projection, or of two kinds; told by the lengths of their rows."""
    shown = f"rows are {np.median(low_norms):.3g} long at low and {np.median(high_norms):.3g} at high magnification"
    unit = has_unit_rows(low_norms), has_unit_rows(high_norms)
    if is_conch(folders) and not all(unit):
        return f"{shown}; {projection_remedy(folders)}"
    if unit[0] != unit[1]:
        return f"{shown}: one scale is normalised and the other is not; extract both in the same way"
    return None


def projection_attributes(folders: FeatureFolders, low: Patches, high: Patches) -> dict[str, Any]:
    """What the files of a slide say of projection and length."""
    same = ("projected", "projection_sha256")
    told = {name: low.attributes[name] for name in same if low.attributes.get(name) == high.attributes.get(name, "")}
    warning = projection_fault(folders, low.norms, high.norms)
    if is_conch(folders):
        told["projected"] = warning is None
    told["normalised"] = has_unit_rows(low.norms) and has_unit_rows(high.norms)
    return {**told, "projection_warning": warning} if warning else told


@dataclass(frozen=True)
class Projection:
    """CONCH's projection. matrix: (D, D) float32. file, sha256: where it is from."""

    matrix: np.ndarray
    file: Path
    sha256: str

    def of_rows(self, features: np.ndarray) -> np.ndarray:
        """features: (N, D) -> (N, D), of unit length."""
        projected = features @ self.matrix
        of_unit_length: np.ndarray = projected / row_norms(projected)[:, None]
        return of_unit_length

    def of_patches(self, patches: Patches) -> Patches:
        """The patches with projected features, unless this projection made them already.

        Raises UserError where they are of another width, or projected or normalised already.
        """
        if patches.attributes.get("projection_sha256") == self.sha256:
            return patches
        (number, width), units = patches.features.shape, int(unit_rows(patches.norms).sum())
        where = str(patches.file)
        if width != len(self.matrix):
            expected = f"{len(self.matrix)}, as visual.proj_contrast in {self.file}"
            raise UserError(Fault("features.width", where, f"not projected: features are {width} wide", expected))
        if units == number:
            found = "not projected: its rows are of length 1 already, as projected features are"
            raise UserError(Fault("features.projected", where, found, mend="leave out --project-with"))
        if units:
            found = f"not projected: {units} of {number} rows are of length 1 and the others are not"
            raise UserError(Fault("features.projected", where, found, mend="extract this slide again"))
        if patches.attributes.get("projected"):
            found = (
                "not projected: it says that its features are projected (attribute 'projected'), though not of length 1"
            )
            raise UserError(Fault("features.projected", where, found))
        told = {name: value for name, value in patches.attributes.items() if name != "projection_warning"}
        made = {"projected": True, "normalised": True, "projection_sha256": self.sha256}
        return replace(patches, features=self.of_rows(patches.features), attributes={**told, **made}, as_is=False)


def load_projection(file: Path) -> Projection:
    """The projection of CONCH's weights. Raises UserError as ``read_state``, and where the file has no such matrix."""
    matrix = read_state(file).get(MATRIX)
    square = torch.empty(len(matrix), len(matrix)) if matrix is not None and matrix.dim() else torch.empty(0, 0)
    problem = "is not there" if matrix is None else misfit(matrix, square)
    if problem or matrix is None:
        found = f"the matrix {MATRIX} {problem}"
        raise UserError(Fault("projection.unreadable", str(file), found, WHOLE_FILE))
    return Projection(matrix.float().numpy(), file, file_sha256(file))
