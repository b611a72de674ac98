"""What models/build.py must know of a model: how it is built, and which features it reads."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from models.losses import BagLoss, build_bag_loss
from models.vlms import TextSide
from utils.config import Config
from utils.interface import BagForm, SlideModel


class Inputs(NamedTuple):
    """What a model is built for. low_texts, high_texts: class-major; empty, and no tower, for a model without texts."""

    num_classes: int
    feature_dim: int
    tower: TextSide | None = None
    low_texts: Sequence[str] = ()
    high_texts: Sequence[str] = ()


class Kind(NamedTuple):
    """A ``--model_type``; its options and descriptions stand in utils/config.py.

    build: from the options and the inputs, newly initialised from the global generator. form: which features it reads.
    """

    build: Callable[[Config, Inputs], SlideModel]
    form: Callable[[Config], BagForm] = lambda config: "patches"


def bag_loss(config: Config, inputs: Inputs) -> BagLoss:
    """The loss that ``--bag_loss`` names."""
    return build_bag_loss(config.bag_loss, inputs.num_classes)
