"""Golden folders of vision-language models, made ready as a user's files are.

A golden model is tiny, and its published configuration names an architecture of full size. Its folder is copied, and
the sizes are put where the loaders look for them: into open_clip's and timm's lists of architectures, and into the
configuration beside the weights.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

import utils.torchvision_compat  # noqa: F401  (before timm)
from models.prompts import PLACEHOLDER
from models.vlms import ImageSide, TextSide, load_image_side, load_text_side
from tests.support.damage import change_json
from tests.support.musk_stand_in import install_stand_in

ARCHITECTURE = "golden"


@dataclass(frozen=True)
class GoldenVlm:
    """A golden folder. said: golden.json. arrays: golden.npz. places: (extractor, path) of each form of its weights."""

    name: str
    said: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    places: list[tuple[str, str]]
    loaded: dict[tuple[str, int], Any] = field(default_factory=dict)

    def text_side(self, place: int = 0) -> TextSide:
        """Loaded once; it is frozen."""
        if ("text", place) not in self.loaded:
            self.loaded["text", place] = load_text_side(*self.places[place])
        return self.loaded["text", place]

    def image_side(self, place: int = 0) -> ImageSide:
        """Loaded once; it is frozen."""
        if ("image", place) not in self.loaded:
            self.loaded["image", place] = load_image_side(*self.places[place])
        return self.loaded["image", place]

    @property
    def texts(self) -> list[str]:
        return list(self.said["texts"])

    def images(self) -> list[Tensor]:
        """uint8 (1, 3, H, W) each; their sizes differ."""
        names = sorted(name for name in self.arrays if name.startswith("image_") and name[6:].isdigit())
        return [torch.from_numpy(self.arrays[name]).permute(2, 0, 1)[None] for name in names]

    def features(self, name: str) -> Tensor:
        """Of unit length: some official codes give no others."""
        given = self.arrays.get(f"{name}_normalised", self.arrays.get(name))
        assert given is not None, name
        return torch.nn.functional.normalize(torch.from_numpy(given), dim=-1)


def find_golden_vlms(root: Path) -> list[Path]:
    """A golden folder, or all that a folder holds."""
    return [file.parent for file in sorted([root / "golden.json", *root.glob("*/golden.json")]) if file.is_file()]


def prepare_golden(golden: Path, folder: Path, patch: pytest.MonkeyPatch) -> GoldenVlm:
    """Copy a golden folder into an empty one, and make its sizes known."""
    folder = folder / golden.name
    folder.mkdir()
    for file in golden.iterdir():
        shutil.copyfile(file, folder / file.name)
    said = json.loads((folder / "golden.json").read_text())
    arrays = dict(np.load(folder / "golden.npz"))
    sizes = json.loads((folder / "tiny_sizes.json").read_text()) if (folder / "tiny_sizes.json").exists() else {}
    places = _places(folder, said, sizes, patch)
    return GoldenVlm(golden.name, said, arrays, places)


def _places(
    folder: Path, said: Mapping[str, Any], sizes: Mapping[str, Any], patch: pytest.MonkeyPatch
) -> list[tuple[str, str]]:
    config = folder / "open_clip_config.json"
    if "encoder_layers" in sizes:
        return _musk_places(folder, sizes, patch)
    if "model_cfg" in said and not config.exists():
        architecture = {**said["model_cfg"], "quick_gelu": said["quick_gelu"]}
        patch.setitem(open_clip.factory._MODEL_CONFIGS, ARCHITECTURE, architecture)
        return [(f"open_clip:{ARCHITECTURE}", str(folder / said["weights"])), _by_name(folder, said)]
    if config.exists() and "vit" in sizes:
        register_tiny_vit(sizes["vit"], patch)
        change_json(config, _with_tiny_vit)
        (folder / "config.json").write_text(json.dumps({"text_config": sizes["bert"]}))
    elif "vit" in sizes:
        change_json(folder / "config.json", lambda config: {**config, "vision_config": sizes["vit"]})
    others = [folder / name.split(" ")[0] for name in said["weights"][1:]] if isinstance(said["weights"], list) else []
    return [("any", str(folder)), *(("any", str(file)) for file in others)]


def _by_name(folder: Path, said: Mapping[str, Any]) -> tuple[str, str]:
    """The checkpoint with its sizes beside it, and a published name that alone tells the activation."""
    beside = folder / "beside"
    beside.mkdir()
    shutil.copyfile(folder / said["weights"], beside / said["weights"])
    (beside / "open_clip_config.json").write_text(json.dumps({"model_cfg": said["model_cfg"]}))
    return "pathclip" if said["quick_gelu"] else "pathgen-clip-b", str(beside / said["weights"])


def _with_tiny_vit(config: dict[str, Any]) -> dict[str, Any]:
    model = config["model_cfg"]
    return {**config, "model_cfg": {**model, "vision_cfg": {**model["vision_cfg"], "timm_model_name": "tiny_vit"}}}


def register_tiny_vit(sizes: Mapping[str, int], patch: pytest.MonkeyPatch) -> None:
    """A ViT of some sizes, among timm's architectures as ``tiny_vit``."""
    from timm.models import _registry
    from timm.models.vision_transformer import VisionTransformer

    def tiny_vit(pretrained: bool = False, num_classes: int = 1000, **_: object) -> VisionTransformer:
        vit = VisionTransformer(**sizes, num_classes=num_classes)
        vit.default_cfg = {}
        return vit

    patch.setitem(_registry._model_entrypoints, "tiny_vit", tiny_vit)


def _musk_places(folder: Path, sizes: Mapping[str, Any], patch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """MUSK's network is a stand-in's; its tokenizer is in its authors' package, and golden ids are looked up."""
    install_stand_in(sizes, patch)
    arrays, texts = np.load(folder / "golden.npz"), json.loads((folder / "golden.json").read_text())["texts"]
    patch.setattr("models.vlms.musk.MuskTokenizer", lambda _: GoldenIds(texts, arrays))
    (folder / "tokenizer.spm").write_bytes(b"not read")
    return [("musk", str(folder))]


class GoldenIds:
    """Ids of the golden texts, by themselves and behind placeholders; a text's are what stands behind these."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __init__(self, texts: Sequence[str], arrays: Mapping[str, np.ndarray]):
        self.num_context = len(arrays["context"])
        self.ids = {text: self._bare(row) for text, row in zip(texts, arrays["token_ids"], strict=True)}
        behind = [self._bare(row) for row in arrays["token_ids_with_placeholders"]]
        self.placeholder = behind[0][0]
        for text, row in zip(texts, behind, strict=True):
            self.ids[f"{text}."] = row[self.num_context :]

    def _bare(self, row: np.ndarray) -> list[int]:
        return [token for token in row.tolist() if token not in (self.bos_id, self.pad_id, self.eos_id)]

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [self._encode(text.split(" ")) for text in texts]

    def _encode(self, words: list[str]) -> list[int]:
        inner = [word for word in words if word != PLACEHOLDER]
        first = words.index(inner[0]) if inner else len(words)
        ids = self.ids[" ".join(inner)] if inner else []
        after = len(words) - first - len(inner)
        return [self.placeholder] * first + ids + [self.placeholder] * after
