"""How messages name what was found: quoted, the first few listed, and the others counted."""

from collections.abc import Iterable

MOST_LISTED = 5
LONGEST = 120
"""Characters of one value."""


def quoted(value: object) -> str:
    """A value as messages show it: a string as Python would write it, so that blanks and unprintable signs are seen;
    the text of any other. The middle of a long one is left out."""
    text = repr(value) if isinstance(value, str) else str(value)
    half = (LONGEST - 3) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def listed(values: Iterable[object], most: int = MOST_LISTED, *, quote: bool = True) -> str:
    """The first values of a list, and how many there are beside them: 'a', 'b', 'c' and 27 more.

    quote: show strings by ``quoted``, as is right for all that a user wrote; without it strings stand as they are, as
    is right for names that this project gives (options, columns, files of a run).
    """
    texts = [quoted(value) if quote else str(value) for value in values]
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"
