"""Numbers that files and tables hold as text."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import Fault, UserError


def positive_number(text: str) -> float | None:
    """A finite number above 0, also written as a magnification (20x); None for any other text."""
    try:
        value = float(text.lower().removesuffix("x"))
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None


def attribute_number(file: Path, attributes: Mapping[str, Any], name: str) -> float | None:
    """An attribute's (first) number, written 20 or 20x; None where it is absent. Raises UserError for anything else."""
    if name not in attributes:
        return None
    text = str(next(iter(np.ravel(attributes[name])), ""))
    number = positive_number(text)
    if number is None:
        found = f"attribute {name} is {text!r}"
        raise UserError(Fault("features.attribute", str(file), found, expected="a number above 0"))
    return number
