"""MUSK (Xiang et al., Nature 2025), a BEiT3, with the networks of its authors' package where that is installed.

The package is not at PyPI, where ``musk`` is another project.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before timm)
from models.vlms.catalogue import MUSK
from models.vlms.heads import linear_layer, make_head
from models.vlms.loading import build, check_file, only_tensor
from models.vlms.places import ModelFiles
from models.vlms.prefix_tree import PrefixTree
from models.vlms.preprocessing import HALF, Preprocessing
from models.vlms.sides import Family, ImageSide, TextSide
from utils.errors import Fault, UserError
from utils.image_head import ImageHead

ARCHITECTURE = "musk_large_patch16_384"
CONTEXT_LENGTH = 100
TOKENIZER_FILE = "tokenizer.spm"
HOW_TO_INSTALL = "pip install git+https://github.com/lilab-stanford/MUSK fairscale (PyPI's musk is another project)"


class MuskTokenizer:
    """SentencePiece with fairseq's ids: <s> 0, <pad> 1, </s> 2, <unk> 3; other pieces have one more than their own."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __init__(self, file: Path):
        from sentencepiece import SentencePieceProcessor

        self._pieces = SentencePieceProcessor(model_file=str(file))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        unknown = self._pieces.unk_id()
        return [
            [self.unk_id if piece == unknown else piece + 1 for piece in self._pieces.encode(text)] for text in texts
        ]


class MuskTextSide(TextSide):
    """Every token sees every other, but for padding; the state of the first, projected, is the text's feature."""

    def __init__(self, musk: Any, tokenizer: MuskTokenizer):
        width, output_dim = musk.language_head.in_features, musk.language_head.out_features
        super().__init__(tokenizer, musk.logit_scale.reshape(()), CONTEXT_LENGTH, width, output_dim)
        self.musk = musk

    @property
    def token_embedding(self) -> nn.Module:
        embedding: nn.Module = self.musk.beit3.text_embed
        return embedding

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        padding = token_ids == self.special_tokens.padding
        length = int((~padding).sum(1).max())
        given = self.musk.beit3.encoder(
            src_tokens=None,
            token_embeddings=embeddings[:, :length],
            encoder_padding_mask=padding[:, :length],
            multiway_split_position=0,
        )
        features: Tensor = self.musk.language_head(given["encoder_out"][:, 0])
        return features


class MuskImageTower(nn.Module):
    """What the package gives ``with_head=True``: projected and of unit length."""

    def __init__(self, musk: Any):
        super().__init__()
        self.musk = musk

    def forward(self, images: Tensor) -> Tensor:
        given = self.musk(image=images, with_head=True, out_norm=True, ms_aug=False, return_global=True)[0]
        return F.normalize(given, dim=-1)


def _make() -> Any:
    """The network of the authors' package, as it registers it with timm."""
    import timm

    import_module("musk.modeling")
    return timm.create_model(ARCHITECTURE)


def check_installed() -> None:
    """Raises UserError where the authors' package is not installed, or another project of its name is."""
    other = find_spec("musk") is not None
    if not other or find_spec("musk.modeling") is None:
        found = "the package musk that is installed is not its authors'" if other else "needs its authors' package musk"
        raise UserError(Fault("vlm.package_missing", MUSK, found, mend=HOW_TO_INSTALL))


def _build(files: ModelFiles, side: str, make: Callable[[], Any]) -> Any:
    return build(make, files.tensors, side, files.told)


def load_text(files: ModelFiles) -> MuskTextSide:
    """The text side. Raises UserError where weights or the tokenizer are missing or do not fit."""
    only_tensor(files.tensors, "language_head.weight", files.told)
    return MuskTextSide(_build(files, "text", _make), MuskTokenizer(_tokenizer_file(files.folder)))


def load_image(files: ModelFiles) -> ImageSide:
    """The image side; its features are projected and of unit length. Raises UserError where weights do not fit."""
    only_tensor(files.tensors, "vision_head.weight", files.told)
    musk = _build(files, "image", _make)
    patches = len(files.tensors["beit3.encoder.embed_positions.A.weight"]) - 3  # two are fairseq's, one the class's
    size = files.tensors["beit3.vision_embed.proj.weight"].shape[-1] * round(patches**0.5)
    return ImageSide(
        MuskImageTower(musk), musk.vision_head.out_features, Preprocessing(size, size, HALF, HALF), {}, normalised=True
    )


def load_head(files: ModelFiles) -> ImageHead:
    """What the package does ``with_head=True``; it may have given two scales side by side (``ms_aug=True``), the class
    token of the first of which is the image's. The package is not needed. Raises UserError where it is not there."""
    return make_head(files, linear_layer(files, "vision_head"), normalised=True, scales=2)


def _tokenizer_file(folder: Path) -> Path:
    """The tokenizer beside the weights, or in the package. Raises UserError where it is in neither place."""
    package = find_spec("musk")
    places = [folder, *(Path(place) / "models" for place in (package and package.submodule_search_locations) or [])]
    found = next((place / TOKENIZER_FILE for place in places if (place / TOKENIZER_FILE).is_file()), None)
    if found is None:
        mend = f"put {TOKENIZER_FILE} of the hub repository xiangjx/musk beside the weights"
        raise UserError(Fault("vlm.tokenizer", str(folder), f"no {TOKENIZER_FILE} found", mend=mend))
    check_file(found, "vlm.tokenizer")
    return found


FAMILY = Family(
    name=MUSK,
    recognises=lambda names: any(name.startswith("beit3.") for name in names),
    load_text=load_text,
    load_image=load_image,
    check_installed=check_installed,
    load_head=load_head,
)
