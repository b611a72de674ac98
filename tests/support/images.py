"""Random images, and how far apart images and features are."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.vlms import ImageSide

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def draw_images(height: int = 256, width: int = 256) -> Tensor:
    """uint8 (3, 3, H, W): noise, a smooth image and one with sharp edges."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, height, width), generator=generator)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    smooth = torch.stack([127 + 120 * torch.sin(x / 40), 127 + 120 * torch.cos(y / 30), (x + y) % 256])
    edges = (((x // 17 + y // 23) % 2) * 255).expand(3, -1, -1)
    return torch.stack([noise, smooth.long(), edges]).to(torch.uint8)


def as_pillow(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


def grey_levels(apart: Tensor, std: Tensor = STD) -> float:
    """The largest difference of preprocessed images, in grey levels."""
    return float((apart * std * 255).abs().max())


def encode(side: ImageSide, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return side.encode_images(images)


def assert_alike(ours: Tensor, expected: Tensor) -> None:
    """Features of images that differ by a grey level here and there."""
    assert ours.dtype == torch.float32 and ours.shape == expected.shape
    assert float(torch.cosine_similarity(ours, expected).min()) > 0.999
    np.testing.assert_allclose(ours.norm(dim=1), expected.norm(dim=1), rtol=0.02)
