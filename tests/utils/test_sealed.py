"""JSON with a digest of each field: what is found to be damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from utils.sealed import DIGESTS, damaged_fields, seal, write_sealed

CONTENT = {"a": 1, "texts": {"z": "last first", "b": "ä"}, "ratio": 0.1, "none": None}


def test_what_was_written_is_whole(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file.json", CONTENT)
    read = json.loads((tmp_path / "file.json").read_text(encoding="utf-8"))
    assert list(read) == [*CONTENT, DIGESTS] and damaged_fields(read) == []
    assert seal(read) == read
    assert len(set(read[DIGESTS].values())) == len(CONTENT)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"a": 2}, ["a"]),
        ({"a": 1.0}, ["a"]),
        ({"a": "1"}, ["a"]),
        ({"a": None, "none": 1}, ["a", "none"]),
        ({"texts": {"b": "ä", "z": "last first"}}, ["texts"]),  # another order of the texts
        ({"texts": {"z": "last first", "b": "a"}}, ["texts"]),
        ({"more": 1}, ["more"]),
        ({DIGESTS: 3}, [DIGESTS]),
        ({DIGESTS: {}}, sorted(CONTENT)),
    ],
)
def test_what_changed_is_named(change: dict[str, Any], fields: list[str]) -> None:
    assert damaged_fields({**seal(CONTENT), **change}) == fields


def test_what_is_missing_is_named() -> None:
    sealed = seal(CONTENT)
    del sealed["a"]
    assert damaged_fields(sealed) == ["a"]
    assert damaged_fields(CONTENT) == []  # without digests nothing is known
