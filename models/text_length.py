"""How many tokens a description takes behind the context tokens, and how many it may."""

from collections.abc import Callable

from models.prompts import check_room, tokens_behind
from models.vlms import TextSide
from models.vlms.tokenizers import CLIP_ROOM, StandardTokenizer


def token_limit(tower: TextSide | None, num_context_tokens: int) -> tuple[Callable[[str], int], int]:
    """A function that counts a description's tokens, and the most that are not cut (see models/prompts.py).

    Without a tower: CLIP's standard vocabulary and length (77); no weights are needed. Raises UserError where the
    context leaves no room for a description.
    """
    tokenize = tower.tokenize if tower else StandardTokenizer().encode
    room = tower.room if tower else CLIP_ROOM
    check_room(num_context_tokens, room)

    def count(description: str) -> int:
        return len(tokens_behind(tokenize, [description], num_context_tokens)[1][0])

    return count, room - num_context_tokens


def room_for(tower: TextSide, num_context_tokens: int) -> Callable[[str], bool]:
    """Whether a description is read to its end behind so many context tokens. Raises UserError as ``token_limit``."""
    count, room = token_limit(tower, num_context_tokens)
    return lambda description: count(description) <= room
