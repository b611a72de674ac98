"""Numbers that files and tables hold as text."""

from math import isfinite


def positive_number(text: str) -> float | None:
    """A finite number above 0, also written as a magnification (20x); None for any other text."""
    try:
        value = float(text.lower().removesuffix("x"))
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None
