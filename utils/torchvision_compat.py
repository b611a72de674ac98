"""Let torchvision be imported beside a CPU build of PyTorch.

torchvision's wheels are built against CUDA PyTorch: beside a CPU build its operator library does not load, and
``import torchvision`` stops with "operator torchvision::nms does not exist". transformers, timm and open_clip all
import it. The import needs no more than the operators' schemas, so they are declared here where the library cannot
provide them. Nothing in this project calls these operators.

Import this module before transformers, timm or open_clip.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _operators_load() -> bool:
    """True where torchvision's operator library fits the installed PyTorch (the CUDA case)."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        return False
    return True


def _declare_operators() -> torch.library.Library:
    """Declare the schemas of ``nms`` and ``qnms``; they live as long as the returned object."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}{_SCHEMA}")
    return library


DECLARED_OPERATORS = None if _operators_load() else _declare_operators()
