"""What a family of vision-language models offers: a text side, an image side, and the rule by which it is known.

Both sides of a model share a joint space of width D, in which cosines of texts and images mean something. A family is a
module of this package that makes a ``Family``; the registry lists the families.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from models.vlms.heads import no_head
from models.vlms.places import ModelFiles
from models.vlms.prefix_tree import PrefixTree
from models.vlms.preprocessing import Preprocessing
from utils.files import tensors_sha256, text_sha256
from utils.image_head import ImageHead
from utils.model_identity import ModelIdentity


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


@dataclass(frozen=True)
class Origin:
    """Where a side is from. family: the family's name. name: the published model's, "" where it is none that is known.
    told: how the user named it. revision: the hub's commit, "" of files. weights: the files."""

    family: str = ""
    name: str = ""
    told: str = ""
    revision: str = ""
    weights: tuple[Path, ...] = ()

    def __str__(self) -> str:
        kind = f"{self.name} ({self.family})" if self.name else f"a model of the family {self.family}"
        return f"{kind} from {self.told}"


class Side(nn.Module):
    """One side of a vision-language model. output_dim: the width D of the joint space. origin: set by the registry."""

    origin = Origin()

    def __init__(self, output_dim: int):
        super().__init__()
        self.output_dim = output_dim

    def fingerprint(self) -> str:
        """A digest over the names and the contents of all weights."""
        return tensors_sha256(self.state_dict())


# ---- images ----------------------------------------------------------------------------------------------------------


class ImageSide(Side):
    """An image tower with its preprocessing. It takes patches as they are read from a slide.

    tower: preprocessed images (N, 3, S, S) -> features (N, D). transform: the preprocessing, to S pixels. settings:
    what the tower computes and its weights do not tell, as the activation and the number of heads. normalised: whether
    the features are of unit length. projected: whether they lie in the joint space.
    """

    def __init__(
        self,
        tower: nn.Module,
        output_dim: int,
        transform: Preprocessing,
        settings: Mapping[str, Any],
        normalised: bool = False,
    ):
        super().__init__(output_dim)
        self.tower = tower
        self.transform = transform
        self.settings = dict(settings)
        self.projected = True
        self.normalised = normalised

    def identity(self) -> ModelIdentity:
        """What features must have in common to be those of one model."""
        how = {"preprocessing": asdict(self.transform), "settings": self.settings, "normalised": self.normalised}
        told = json.dumps({**how, "weights": self.fingerprint()}, sort_keys=True, default=list)
        return ModelIdentity(self.origin.family, self.origin.name, text_sha256(told), self.projected, self.normalised)

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

    encode: ((N, L, W) embeddings, (N, L) ids, (N,) ``PromptTokens.pooled``, number of classes) -> (N, D) features;
    prompts stand class by class. is_constant: (``PromptTokens.pooled``, (N, context tokens) places of the context) ->
    whether no context token can reach a feature. places: of each --class_token_position with which the released code
    runs, what ``PromptTokens`` calls it. checkpoint_names: the released checkpoint's name of each part of the tower
    that it holds. xavier: whether the released model of this family initialises its attention by Xavier's rule.
    """

    encode: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    is_constant: Callable[[Tensor, Tensor], bool]
    places: Mapping[str, str]
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
    def unknown_token(self) -> int | None:
        """The id that stands for what the vocabulary lacks; None where the vocabulary lacks nothing."""
        unknown: int | None = getattr(self.tokenizer, "unk_id", None)
        return unknown

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


def always() -> None:
    """Of a family that needs nothing but this project's requirements."""


@dataclass(frozen=True)
class Family:
    """Vision-language models that are stored and loaded alike.

    recognises: whether weights of these names are the family's. load_text, load_image: raise UserError where the side
    cannot be had. model_types: what the family's config.json says. check_installed: raises UserError where a package
    that the family needs is not installed. own_weights: where this project keeps the weights of the family. load_head:
    what the image side does to its tower's own features; raises UserError where the weights hold no such projection.
    """

    name: str
    recognises: Callable[[Collection[str]], bool]
    load_text: Callable[[ModelFiles], TextSide]
    load_image: Callable[[ModelFiles], ImageSide]
    model_types: tuple[str, ...] = ()
    check_installed: Callable[[], None] = always
    own_weights: Callable[[], Path] | None = None
    load_head: Callable[[ModelFiles], ImageHead] = no_head
