"""What models/build.py must know of a model: how it is built, what it reads, and which options mean something to it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from models.losses import BagLoss, build_bag_loss
from models.vlms import TextSide
from utils.config import Config
from utils.interface import BagForm, SlideModel

# options that a model reads or not; those of main.py that stand nowhere here concern all models
COMMON = frozenset({"bag_loss", "drop_out"})
TEXT_OPTIONS = frozenset({"vlm_path", "text_prompt", "LLM", "num_context_tokens"})


class Inputs(NamedTuple):
    """What a model is built for. low_texts, high_texts: class-major; empty, and no tower, for a model without texts."""

    num_classes: int
    feature_dim: int
    tower: TextSide | None = None
    low_texts: Sequence[str] = ()
    high_texts: Sequence[str] = ()


class Kind(NamedTuple):
    """A ``--model_type``.

    build: from the options and the inputs, newly initialised from the global generator. form: which features it reads.
    texts: whose form of descriptions it reads ("HiVE_MIL", "ViLa_MIL" or "MSCPT"), None for none. options: the
    model-specific options that it reads. switched_off: those that others make useless.
    """

    build: Callable[[Config, Inputs], SlideModel]
    options: frozenset[str]
    form: Callable[[Config], BagForm] = lambda config: "patches"
    texts: str | None = None
    switched_off: Callable[[Config], set[str]] = lambda config: set()


def bag_loss(config: Config, inputs: Inputs) -> BagLoss:
    """The loss that ``--bag_loss`` names."""
    return build_bag_loss(config.bag_loss, inputs.num_classes)
