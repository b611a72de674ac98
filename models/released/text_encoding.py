"""How the released code reads prompts (``--variant released``); it differs from how the models read texts."""

from torch import Tensor, nn

from models.prompts import PromptTokens
from models.vlms import TextSide
from models.vlms.sides import ReleasedReading
from utils.errors import Fault, UserError


def released_position(tower: TextSide, position: str) -> str:
    """What ``PromptTokens`` calls a place of the description as the released code lays it out. Raises UserError where
    the released code fails with it."""
    places = released_reading(tower).places
    if position not in places:
        raise UserError(
            Fault(
                "prompt.not_released",
                f"--variant released --class_token_position {position}",
                "the released code fails with this place of the description and a text tower of this kind",
                expected=" or ".join(places),
                mend="train with --variant paper, or leave --class_token_position out",
            )
        )
    return places[position]


def released_reading(tower: TextSide) -> ReleasedReading:
    """How the released code reads prompts with this tower. Raises UserError where it knows no such tower."""
    reading = tower.released_reading()
    if reading is None:
        raise UserError(
            Fault(
                "vlm.not_released",
                "--variant released",
                "the released code reads no text tower of this kind",
                expected="CLIP or CONCH",
                mend="train with --variant paper",
            )
        )
    return reading


class ReleasedEncoding(nn.Module):
    """Prompts stand class by class.

    is_constant: whether no context token can reach a feature. So it is with a CLIP tower and the context in front.
    """

    pooled: Tensor

    def __init__(self, tower: TextSide, tokens: PromptTokens, num_classes: int, contexts: Tensor):
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("pooled", tokens.pooled.to(tower.logit_scale.device), persistent=False)
        self.is_constant = released_reading(tower).is_constant(tokens.pooled, tokens.context_positions)

    def forward(self, tower: TextSide, embeddings: Tensor, token_ids: Tensor) -> Tensor:
        """(N, L, W) prompt embeddings of (N, L) ids -> (N, D) features."""
        return released_reading(tower).encode(embeddings, token_ids, self.pooled, self.num_classes)
