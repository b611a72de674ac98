"""What vision-language models do to an image before their tower sees it, on whatever device the image is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import utils.torchvision_compat  # noqa: F401  (before torchvision)
from utils.errors import Fault, UserError
from utils.files import read_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as in preprocessor_config.json


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to an image: shortest side to ``resize_size`` pixels, the central square of ``input_size``
    pixels, values scaled to 0..1, then ``mean`` and ``std`` of the channels. squash: in place of resizing and cutting,
    both sides to ``input_size`` pixels. library: whose rules of rounding are followed, "torchvision" with Pillow's
    images or "transformers"; on a CPU the values are that library's own."""

    input_size: int
    resize_size: int
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    interpolation: str = "bicubic"
    squash: bool = False
    library: str = "torchvision"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: expected three numbers each, those of std above 0")
        if self.interpolation not in INTERPOLATIONS.values():
            raise ValueError(f"interpolation {self.interpolation!r}: expected bicubic or bilinear")

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (N, 3, S, S), within two grey levels of what Pillow gives on any device.

        Raises TypeError for images of another kind.
        """
        from torchvision.transforms.v2.functional import crop, normalize

        if images.dtype != torch.uint8:
            raise TypeError(f"images are {images.dtype}, expected torch.uint8")
        sides = images.shape[-2:]
        height, width = (self.input_size if self.squash else self.resize_size * side // min(sides) for side in sides)
        by_pillow = self.library == "torchvision" and images.device.type == "cpu"
        images = (_resize_by_pillow if by_pillow else _resize)(images, height, width, self.interpolation)
        halves = [(edge - self.input_size) / 2 for edge in (height, width)]
        top, left = (int(half) if self.library == "transformers" else round(half) for half in halves)
        images = crop(images, top, left, self.input_size, self.input_size)
        prepared: Tensor = normalize(images.float() / 255, list(self.mean), list(self.std))
        return prepared


def _resize(images: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """As transformers does, and within two grey levels of Pillow: columns, then rows, each rounded to 8 bits."""
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    for size in ([images.shape[-2], width], [height, width]):
        images = resize(images, size, InterpolationMode(interpolation), antialias=True)
    return images


def _resize_by_pillow(images: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    method = next(number for number, name in INTERPOLATIONS.items() if name == interpolation)
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    resized = [np.array(Image.fromarray(row).resize((width, height), Image.Resampling(method))) for row in rows]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Standard:
    """What a family does to images of a model that does not say it. squash: as in ``Preprocessing``, where neither
    ``do_center_crop`` nor the form of ``size`` tells."""

    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    squash: bool = False


def transformers_preprocessing(folder: Path, image_size: int, standard: Standard) -> Preprocessing:
    """What preprocessor_config.json says, else the family's standard, at the tower's own size.

    Raises UserError where the file does not fit the tower.
    """
    file = folder / "preprocessor_config.json"
    said = read_json(file) if file.is_file() else {}
    try:
        squash = standard.squash and "shortest_edge" not in (said.get("size") or {})
        resize_size = _edge(said.get("size"), image_size)
        input_size = resize_size if squash else _edge(said.get("crop_size"), resize_size)
        mean, std = said.get("image_mean") or standard.mean, said.get("image_std") or standard.std
        interpolation = INTERPOLATIONS.get(said.get("resample", 3), str(said.get("resample")))
        preprocessing = Preprocessing(
            input_size, resize_size, tuple(mean), tuple(std), interpolation, squash, "transformers"
        )
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if said.get(step) is False:
                raise ValueError(f"{step} is false: an image processor without this step is not known")
    except (AttributeError, TypeError, ValueError) as error:
        fault = Fault("vlm.preprocessing", str(file), str(error), expected="the settings of an image processor")
        raise UserError(fault) from error
    if input_size != image_size:
        raise UserError(
            Fault(
                "vlm.preprocessing",
                str(file),
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
