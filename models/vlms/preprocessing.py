"""What vision-language models do to an image before their tower sees it, on whatever device the image is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import utils.torchvision_compat  # noqa: F401  (before torchvision)
from utils.errors import Fault, UserError
from utils.files import read_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as in preprocessor_config.json


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to an image: shortest side to ``resize_size`` pixels, the central square of ``input_size``
    pixels, values scaled to 0..1, then ``mean`` and ``std`` of the channels."""

    input_size: int
    resize_size: int
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: expected three numbers each, those of std above 0")
        if self.interpolation not in INTERPOLATIONS.values():
            raise ValueError(f"interpolation {self.interpolation!r}: expected bicubic or bilinear")

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (N, 3, S, S), within two grey levels of what Pillow gives on any device.

        Raises TypeError for images of another kind.
        """
        from torchvision.transforms.v2.functional import InterpolationMode, center_crop, normalize, resize

        if images.dtype != torch.uint8:
            raise TypeError(f"images are {images.dtype}, expected torch.uint8")
        sides = images.shape[-2:]
        height, width = (self.resize_size * side // min(sides) for side in sides)
        for size in ([sides[0], width], [height, width]):  # as Pillow: columns, then rows, each rounded to 8 bits
            images = resize(images, size, InterpolationMode(self.interpolation), antialias=True)
        images = center_crop(images, [self.input_size])
        prepared: Tensor = normalize(images.float() / 255, list(self.mean), list(self.std))
        return prepared


def clip_preprocessing(source: str, image_size: int) -> Preprocessing:
    """What preprocessor_config.json says, else CLIP's standard, at the tower's own size.

    source: a Hugging Face folder or hub id. Raises UserError where the file does not fit the tower.
    """
    from transformers.utils.hub import cached_file

    found = cached_file(
        source,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    said = read_json(Path(found)) if found else {}
    try:
        resize_size = _edge(said.get("size"), image_size)
        input_size = _edge(said.get("crop_size"), resize_size)
        mean, std = said.get("image_mean") or CLIP_MEAN, said.get("image_std") or CLIP_STD
        interpolation = INTERPOLATIONS.get(said.get("resample", 3), str(said.get("resample")))
        preprocessing = Preprocessing(input_size, resize_size, mean, std, interpolation)
    except (AttributeError, TypeError, ValueError) as error:
        fault = Fault("vlm.preprocessing", str(found), str(error), expected="the settings of a CLIPImageProcessor")
        raise UserError(fault) from error
    if input_size != image_size:
        raise UserError(
            Fault(
                "vlm.preprocessing",
                str(found),
                f"images of {input_size} pixels",
                expected=f"{image_size}, as the vision tower takes (vision_config.image_size of config.json)",
            )
        )
    return preprocessing


def _edge(size: Any, otherwise: int) -> int:
    """An edge written 224, {"shortest_edge": 224} or {"height": 224, "width": 224}."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) else otherwise
