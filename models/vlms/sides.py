"""What a family of vision-language models offers: a text side, an image side, and the rule by which it is known.

Both sides of a model share a joint space of width D, in which cosines of texts and images mean something. A family is a
module of this package that makes a ``Family``; the registry lists the families.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from models.vlms.prefix_tree import PrefixTree
from models.vlms.preprocessing import Preprocessing
from utils.files import tensors_sha256


class SpecialTokens(NamedTuple):
    """Ids of the tokens around a text. start: None where the model puts nothing in front of a text."""

    start: int | None
    end: int
    padding: int


class Tokenizer(Protocol):
    """Texts to token ids, and the ids of the special tokens as in ``SpecialTokens``."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""


class Side(nn.Module):
    """One side of a vision-language model. output_dim: the width D of the joint space."""

    def __init__(self, output_dim: int):
        super().__init__()
        self.output_dim = output_dim

    def fingerprint(self) -> str:
        """A digest over the names and the contents of all weights."""
        return tensors_sha256(self.state_dict())


# ---- images ----------------------------------------------------------------------------------------------------------


class ImageSide(Side):
    """An image tower with its preprocessing. It takes patches as they are read from a slide.

    tower: preprocessed images (N, 3, S, S) -> features (N, D). transform: the preprocessing, to S pixels. normalised:
    whether the features are of unit length. projected: whether they lie in the joint space.
    """

    def __init__(self, tower: nn.Module, output_dim: int, transform: Preprocessing, normalised: bool = False):
        super().__init__(output_dim)
        self.tower = tower
        self.transform = transform
        self.projected = True
        self.normalised = normalised

    def encode_images(self, images: Tensor) -> Tensor:
        """Features of patches: uint8 (N, 3, H, W) on the module's device -> float32 (N, D).

        Raises TypeError for images of another kind.
        """
        features: Tensor = self.tower(self.transform(images))
        return features.float()

    forward = encode_images


# ---- texts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReleasedReading:
    """How the authors' released code reads prompts with a text tower; it differs from how the model reads texts.

    encode: ((N, L, W) embeddings, (N, L) ids, number of classes) -> (N, D) features; prompts stand class by class.
    is_constant: ((N, L) ids, (N, context tokens) places of the context) -> whether no context token can reach a
    feature. checkpoint_names: the released checkpoint's name of each part of the tower that it holds. xavier: whether
    the released model of this family initialises its attention by Xavier's rule.
    """

    encode: Callable[[Tensor, Tensor, int], Tensor]
    is_constant: Callable[[Tensor, Tensor], bool]
    checkpoint_names: Mapping[str, str]
    xavier: bool


class TextSide(Side, ABC):
    """A text tower with its tokenizer.

    Sizes: N texts, L at most ``context_length`` tokens with the special ones, W the tower's ``width``, D the joint
    space's. logit_scale: the logarithm of the factor of cosines, a buffer.
    """

    logit_scale: Tensor
    pools_at_end = False  # whether a text's feature is the state of its end token

    def __init__(self, tokenizer: Tokenizer, logit_scale: Tensor, context_length: int, width: int, output_dim: int):
        super().__init__(output_dim)
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.width = width
        self.register_buffer("logit_scale", logit_scale.detach().clone().float())

    @property
    def special_tokens(self) -> SpecialTokens:
        return SpecialTokens(self.tokenizer.bos_id, self.tokenizer.eos_id, self.tokenizer.pad_id)

    @property
    def room(self) -> int:
        """The most tokens of a text that are read, the special ones apart."""
        return self.context_length - (1 if self.special_tokens.start is None else 2)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return self.tokenizer.encode(texts)

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Module:
        """(N, L) ids -> (N, L, W), without positions."""

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings without positions: (N, L) -> (N, L, W)."""
        embeddings: Tensor = self.token_embedding(token_ids)
        return embeddings

    @abstractmethod
    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        """Text features, projected and not normalised: (N, L, W) embeddings of (N, L) ids -> (N, D).

        The embeddings are those of the ids, or learned vectors in place of some. tree: what ``prefix_tree`` gives.
        """

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree | None:
        """What (N, L) ids have in common, for ``encode_prompts`` to compute once; None where the tower is not causal.

        groups: (N,) int64; texts share within a group only, and by default not at all.
        """
        return None

    def attention_norms(self) -> Sequence[nn.Module]:
        """The norm in front of each layer's attention, whose input is the states (U, W) of the prefix tree's nodes;
        empty where the tower has none of that kind."""
        return ()

    def released_reading(self) -> ReleasedReading | None:
        """How the released code reads prompts; None where it does not know the family."""
        return None


# ---- families --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What the user says of a model: ``--feature_extractor`` and ``--vlm_path``."""

    feature_extractor: str
    vlm_path: str | None

    @property
    def folder(self) -> Path | None:
        """The path, where it is a folder."""
        return Path(self.vlm_path) if self.vlm_path and Path(self.vlm_path).is_dir() else None

    def holds(self, file: str) -> bool:
        """Whether the path is a folder with that file."""
        return self.folder is not None and (self.folder / file).exists()

    def starts_with(self, prefixes: tuple[str, ...]) -> bool:
        """Whether one of the two options has one of the prefixes."""
        return self.feature_extractor.startswith(prefixes) or (self.vlm_path or "").startswith(prefixes)

    def __str__(self) -> str:
        given = f"--feature_extractor {self.feature_extractor}"
        return f"{given} --vlm_path {self.vlm_path}" if self.vlm_path else given


@dataclass(frozen=True)
class Family:
    """Vision-language models that are stored and loaded alike.

    reads: what ``--vlm_path`` names a model of the family by, in words. recognises: whether a source is the family's.
    prefixes: of either option; one of them names the family whatever other families recognise. load_text, load_image:
    raise UserError where the side cannot be had; None where the family has no such side.
    """

    name: str
    reads: str
    recognises: Callable[[Source], bool]
    load_text: Callable[[Source], TextSide] | None
    load_image: Callable[[Source], ImageSide] | None
    prefixes: tuple[str, ...] = ()
