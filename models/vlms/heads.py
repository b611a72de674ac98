"""The projection of an image tower's own features, read from a model's weights; no other tensors are needed."""

import numpy as np
import torch

from models.vlms.places import ModelFiles
from utils.errors import Fault, UserError
from utils.image_head import ImageHead, Layer
from utils.tensors import misfit


def unreadable(files: ModelFiles, found: str, expected: str = "") -> UserError:
    """That the weights hold no head that can be used."""
    expected = expected or "the weights of the whole model, as they were published"
    return UserError(Fault("projection.unreadable", files.told, found, expected))


def no_head(files: ModelFiles) -> ImageHead:
    """Of towers whose own features lie in the joint space. Raises UserError, always."""
    found = "its image tower has no projection of its own: what it gives lies in the space of the texts already"
    raise unreadable(files, found, "a model that projects its image features; leave out --project-with")


def matrix_layer(files: ModelFiles, name: str, expected: str = "") -> Layer:
    """A parameter (V, D) that features are multiplied by. Raises UserError where it is not there or no such matrix."""
    return Layer(name, _array(files, name, 2, expected))


def linear_layer(files: ModelFiles, name: str) -> Layer:
    """A Linear of PyTorch by its name, with its bias where it has one. Raises UserError as ``matrix_layer``."""
    weight, bias = f"{name}.weight", f"{name}.bias"
    matrix = _array(files, weight, 2).T
    return Layer(weight, matrix, _array(files, bias, 1) if bias in files.tensors else None)


def make_head(
    files: ModelFiles, *layers: Layer, normalised: bool = False, scales: int = 1, lengths_tell: bool = False
) -> ImageHead:
    """The head of these layers. scales: rows may hold so many features side by side, of which the first counts.

    Raises UserError where the layers do not fit each other.
    """
    for before, (name, matrix, offset) in zip((None, *layers), layers, strict=False):
        if before is not None and before.matrix.shape[1] != len(matrix):
            raise unreadable(files, f"{name} takes {len(matrix)} numbers, {before.name} gives {before.matrix.shape[1]}")
        if offset is not None and len(offset) != matrix.shape[1]:
            raise unreadable(files, f"{name} gives {matrix.shape[1]} numbers, and its bias has {len(offset)}")
    width = len(layers[0].matrix)
    widths = tuple(width * number for number in range(1, scales + 1))
    return ImageHead(files.told, files.weights, layers, normalised, widths, lengths_tell)


def _array(files: ModelFiles, name: str, axes: int, expected: str = "") -> np.ndarray:
    """A tensor as float32. Raises UserError where it is not there, or no finite floats of so many axes."""
    found = files.tensors.get(name)
    kind = {1: "vector", 2: "matrix"}[axes]
    problem = "is not there"
    if found is not None:
        as_expected = found.dim() == axes and found.numel()
        problem = misfit(found, torch.empty(found.shape)) if as_expected else f"is {tuple(found.shape)}"
    if problem or found is None:
        raise unreadable(files, f"the {kind} {name} {problem}", expected)
    array: np.ndarray = found.detach().float().numpy()
    return array
