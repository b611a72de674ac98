"""From an image tower's own features to the joint space of images and texts: the projection that tools leave out.

A head is made of arrays, so that worker processes can be handed one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


class Layer(NamedTuple):
    """name: of its weight. matrix: (V, D) float32. offset: (D,) float32, or None."""

    name: str
    matrix: np.ndarray
    offset: np.ndarray | None = None


@dataclass(frozen=True)
class ImageHead:
    """What a model does to its image tower's own features: layers with GELU between two of them.

    told, weights: how the user named the model, and its files. normalised: whether what comes out is of unit length.
    widths: of the rows that it takes, of which the first columns count. lengths_tell: whether projected features are of
    unit length and the tower's own are not, though as wide.
    """

    told: str
    weights: tuple[Path, ...]
    layers: tuple[Layer, ...]
    normalised: bool
    widths: tuple[int, ...]
    lengths_tell: bool = False

    @property
    def name(self) -> str:
        """The name of the first weight."""
        return self.layers[0].name

    @property
    def output_dim(self) -> int:
        return int(self.layers[-1].matrix.shape[1])

    @property
    def takes_any_length(self) -> bool:
        """Whether rows that were normalised beforehand come out in their direction: nothing bends them."""
        return len(self.layers) == 1 and self.layers[0].offset is None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """What the image side gives: rows (N, W), W one of ``widths`` -> (N, D) float32."""
        x = rows[:, : len(self.layers[0].matrix)]
        for number, (_, matrix, offset) in enumerate(self.layers):
            x = F.gelu(torch.from_numpy(x)).numpy() if number else x
            x = x @ matrix if offset is None else x @ matrix + offset
        return x / np.sqrt(np.einsum("nd,nd->n", x, x))[:, None] if self.normalised else x
