"""How many tokens a description takes behind the context tokens, and how many it may."""

from collections.abc import Callable

import utils.torchvision_compat  # noqa: F401  (before open_clip)
from models.prompts import PLACEHOLDER
from models.text_towers import TextTower
from utils.errors import UserError


def token_limit(tower: TextTower | None, num_context_tokens: int) -> tuple[Callable[[str], int], int]:
    """A function that counts a description's tokens, and the most that are not cut (see models/prompts.py).

    Without a tower: CLIP's standard vocabulary and length (77); no weights are needed. Raises UserError where the
    context leaves no room for a description.
    """
    tokenize: Callable[[list[str]], list[list[int]]]
    if tower is None:
        from open_clip import SimpleTokenizer

        standard = SimpleTokenizer()
        length = standard.context_length
        tokenize = lambda texts: [standard.encode(text) for text in texts]  # noqa: E731
    else:
        length, tokenize = tower.context_length, tower.tokenize
    room = length - 2 - num_context_tokens
    if room < 1:
        raise UserError(
            f"--num-context-tokens {num_context_tokens}: expected at most {length - 3}, the text tower reads {length} "
            "tokens"
        )

    def count(description: str) -> int:
        return len(tokenize([" ".join([PLACEHOLDER] * num_context_tokens + [description])])[0]) - num_context_tokens

    return count, room


def room_for(tower: TextTower, num_context_tokens: int) -> Callable[[str], bool]:
    """Whether a description is read to its end behind so many context tokens. Raises UserError as ``token_limit``."""
    count, room = token_limit(tower, num_context_tokens)
    return lambda description: count(description) <= room
