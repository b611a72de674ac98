"""CONCH features from before the projection, and what CONCH's own code makes of them."""

from pathlib import Path

import numpy as np
import torch

from datasets.folders import FeatureFolders
from datasets.projection import Projection
from utils.image_head import ImageHead, Layer

COMMAND = (
    "python check_hierarchical_consistency.py --data_root_dir {root} --task task --feature_extractor "
    "{encoder} --fix --project-with conch/pytorch_model.bin"
)


def conch_folders(root: Path, encoder: str = "conch") -> FeatureFolders:
    return FeatureFolders(root, "task", encoder)


def conch_projection(matrix: np.ndarray, file: str = "pytorch_model.bin", sha256: str = "a" * 64) -> Projection:
    """As it is read from CONCH's file."""
    layers = (Layer("visual.proj_contrast", matrix),)
    return Projection(ImageHead(file, (Path(file),), layers, True, (len(matrix),), lengths_tell=True), sha256)


def matrix_of(projection: Projection) -> np.ndarray:
    return projection.head.layers[0].matrix


def as_conch(features: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """CONCH's own two lines, in PyTorch. (..., D) -> (..., D); zero rows stay."""
    return torch.nn.functional.normalize(torch.tensor(features) @ torch.tensor(matrix), dim=-1).numpy()


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-9)
