"""JSON files that carry a digest of each of their fields, by which damage and edits are found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.files import text_sha256, write_json

DIGESTS = "digests"
"""The field that holds the digests of the others."""


def json_sha256(value: Any) -> str:
    """A digest of a JSON value. The order of an object's members counts: that of descriptions is that of the texts."""
    return text_sha256(json.dumps(value, separators=(",", ":")))


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``content``, and their digests in the field ``DIGESTS``."""
    fields = {name: value for name, value in content.items() if name != DIGESTS}
    return {**fields, DIGESTS: {name: json_sha256(value) for name, value in fields.items()}}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with the digests of its fields."""
    write_json(path, seal(content))


def damaged_fields(content: Mapping[str, Any]) -> list[str]:
    """The fields of sealed content that are not what their digests tell, were added or are missing, sorted. Content
    without digests has none."""
    if DIGESTS not in content:
        return []
    told, found = content[DIGESTS], seal(content)[DIGESTS]
    if not isinstance(told, dict):
        return [DIGESTS]
    return sorted(name for name in {*told, *found} if told.get(name) != found.get(name))
