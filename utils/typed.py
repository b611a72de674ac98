"""What was read from a JSON file, held against the type that it should have."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

MOST_SHOWN = 3
Kind = TypeVar("Kind")


def mistakes(kind: Any, content: Any, place: str = "") -> list[str]:
    """Where a JSON value is not of a type, and why, a sentence each: "runs.0.path: a string is expected, found 3".

    kind: a dataclass or any other type that annotations can say. A float may be written as an integer; nothing else is
    taken for what it is not. Members that a dataclass does not have are passed over. place: of the value, for the
    sentences.
    """
    try:
        _adapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        said = error.errors(include_url=False, include_context=False)
        return [f"{_place(place, one['loc'])}{one['msg'].lower()}{_found(one)}" for one in said[:MOST_SHOWN]]
    return []


def read_as(kind: Callable[..., Kind], content: Any) -> Kind | None:
    """A JSON value as a dataclass, its members too; None where it is not of that type."""
    try:
        read: Kind = _adapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError:
        return None
    return read


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _place(place: str, steps: tuple[Any, ...]) -> str:
    names = [place, *(str(step) for step in steps)]
    return f"{'.'.join(filter(None, names))}: " if any(names) else ""


def _found(said: Any) -> str:
    return "" if said["type"] == "missing" else f", found {json.dumps(said['input'])[:60]}"
