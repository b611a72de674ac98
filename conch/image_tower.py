"""CONCH's image tower (Lu et al., Nature Medicine 2024), built from timm's vision transformer and open_clip's pooler.

All tokens of a ViT-B/16 go through an attentional pooler with one query; its output, normalised (LayerNorm), is what
TRIDENT, CLAM and STAMP save as features. Multiplied by ``proj_contrast`` and of unit length it lies in the space of the
texts. The file's second pooler serves captions alone and is left out.

timm imports torchvision: ``utils.torchvision_compat`` must be imported before a tower is built.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conch.text_tower import read_config

PUBLISHED_VISION_CONFIG: dict[str, int] = {
    "image_size": 448,
    "patch_size": 16,
    "width": 768,
    "layers": 12,
    "heads": 12,
    "attn_pooler_heads": 8,
}
OF_CAPTIONS = ("attn_pool_caption.", "ln_caption.")
WHOLE_FILE = (
    "CONCH's whole pytorch_model.bin, from the hub repository MahmoodLab/CONCH (a file without the image "
    "tower is enough for training, but not for this)"
)


class WeightsError(ValueError):
    """A file of CONCH whose contents cannot be used."""

    def __init__(self, file: Path, found: str, expected: str = WHOLE_FILE):
        super().__init__(f"{file}: {found}; expected {expected}")
        self.file, self.found, self.expected = file, found, expected


class ConchImageTower(nn.Module):
    """Sizes: S the images' edge (448), D the width of the features (512)."""

    def __init__(self, embed_dim: int, vision_cfg: dict[str, int]):
        super().__init__()
        from open_clip.transformer import AttentionalPooler
        from timm.models.vision_transformer import VisionTransformer

        self.image_size = vision_cfg["image_size"]
        self.output_dim = embed_dim
        self.trunk: Any = VisionTransformer(
            img_size=self.image_size,
            patch_size=vision_cfg["patch_size"],
            embed_dim=vision_cfg["width"],
            depth=vision_cfg["layers"],
            num_heads=vision_cfg["heads"],
            num_classes=0,
            dynamic_img_size=True,
        )
        self.attn_pool_contrast = AttentionalPooler(
            embed_dim, vision_cfg["width"], n_head=vision_cfg["attn_pooler_heads"], n_queries=1
        )
        self.ln_contrast = nn.LayerNorm(embed_dim)
        self.proj_contrast = nn.Parameter(torch.empty(embed_dim, embed_dim))

    def pool(self, images: Tensor) -> Tensor:
        """Features before the projection: (N, 3, S, S) images, scaled and normalised -> (N, D)."""
        tokens = self.trunk.forward_features(images)
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Features projected and of unit length: (N, 3, S, S) images, scaled and normalised -> (N, D)."""
        return nn.functional.normalize(self.pool(images) @ self.proj_contrast, dim=-1)


def load_image_tower(weights: Path, state: Mapping[str, Tensor]) -> ConchImageTower:
    """Build the tower from CONCH's ``pytorch_model.bin``; sizes are the published ones unless the ``vision_cfg`` of an
    ``open_clip_config.json`` beside it says otherwise.

    weights: where the file lies. state: its tensors by name. Raises WeightsError where ``visual.*`` is missing or of
    another shape.
    """
    visual = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    if not visual:
        raise WeightsError(weights, "no weights of visual.* found")
    state = {name: value for name, value in visual.items() if not name.startswith(OF_CAPTIONS)}
    try:
        config = read_config(weights)
        with torch.device("meta"):  # no time is spent on weights that are replaced
            tower = ConchImageTower(config["embed_dim"], {**PUBLISHED_VISION_CONFIG, **config.get("vision_cfg", {})})
    except Exception as error:  # what JSON, a dictionary or timm make of wrong sizes
        found = f"{type(error).__name__}: {error}"
        raise WeightsError(
            weights.with_name("open_clip_config.json"),
            f"not the sizes of a CONCH ({found})",
            f"model_cfg with embed_dim and, in vision_cfg, {', '.join(PUBLISHED_VISION_CONFIG)}",
        ) from error
    expected = tower.state_dict()
    kinds = {
        "are missing": sorted(expected.keys() - state.keys()),
        "are unknown": sorted(state.keys() - expected.keys()),
        "have another shape": sorted(
            name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape
        ),
    }
    faults = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in kinds.items() if names]
    if faults:
        raise WeightsError(weights, f"weights of visual.* do not fit: {'; '.join(faults)}")
    tower.load_state_dict(state, assign=True)
    return tower.float()
