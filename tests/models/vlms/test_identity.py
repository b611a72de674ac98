"""A model's identity is computed once, and again where its files are others."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.vlms import identity as module
from models.vlms import load_image_side
from models.vlms.identity import CACHE_VARIABLE, MEMORY, image_identity
from models.vlms.registry import Source
from tests.support.vlm_examples import save_clip


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / MEMORY


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose image side was loaded."""
    found: list[str] = []

    def load(name: str, path: str | None) -> object:
        found.append(str(path))
        return load_image_side(name, path)

    monkeypatch.setattr(module, "load_image_side", load)
    return found


def test_it_is_what_the_image_side_says_and_loaded_once(tmp_path: Path, memory: Path, loads: list[str]) -> None:
    source = Source("any", str(save_clip(tmp_path / "model", 0)))
    other = Source("any", str(save_clip(tmp_path / "other", 1)))
    first = image_identity(source)
    assert first == load_image_side("any", source.vlm_path).identity() and memory.is_file()
    assert [image_identity(source), image_identity(other), image_identity(source)] == [
        first,
        image_identity(other),
        first,
    ]
    assert loads == [source.vlm_path, other.vlm_path]


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "weights": lambda model, _: save_clip(model, 1),
    "times": lambda model, _: os.utime(model / "model.safetensors", (1, 1)),
    "configuration": lambda model, _: os.utime(model / "config.json", (1, 1)),
    "memory cut off": lambda _, memory: memory.write_bytes(memory.read_bytes()[:40]),
    "memory of another form": lambda _, memory: memory.write_text('["x"]'),
    "memory gone": lambda _, memory: memory.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_looked_at_again(tmp_path: Path, memory: Path, loads: list[str], change: str) -> None:
    path = save_clip(tmp_path / "model", 0)
    image_identity(Source("any", str(path)))
    CHANGES[change](path, memory)
    assert image_identity(Source("any", str(path))) == load_image_side("any", str(path)).identity()
    assert len(loads) == 2


def test_a_folder_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    source = Source("any", str(save_clip(tmp_path / "model", 0)))
    assert image_identity(source) == image_identity(source)
    assert len(loads) == 2
