"""A small release in place of the authors', and the options that fetch it."""

import hashlib
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import gdown
import pytest

from datasets import released as released_files
from tests.conftest import RunMain
from tests.support.archive_files import write_files
from tests.support.run_contents import files_below

SCRIPT = "fetch_released_assets"


MADE = {
    "dataset_csv/a.csv": b"case_id,slide_id\n",
    "splits/a/a_16/splits_0.csv": b",train\n",
    "text_prompt/a.json": b"{}",
}


def files(folder: Path) -> list[str]:
    return sorted(files_below(folder))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(name="made")
def made_fixture(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small release in place of the authors'."""
    names = {name: sha256(content) for name, content in MADE.items()}
    monkeypatch.setitem(released_files.RELEASED, "files", names)
    return write_files(tmp_path_factory.mktemp("made"), MADE)


def options(url: str, folder: Path, *more: str) -> list[str]:
    return ["--base-url", url, "--output-dir", str(folder), *more]


Disk = namedtuple("Disk", "total used free")


@pytest.fixture(name="roomy")
def roomy_fixture(monkeypatch: pytest.MonkeyPatch, made: Path, tmp_path: Path) -> Path:
    """A data root with room for everything; the small files are there already. No cookies are kept anywhere."""
    monkeypatch.setattr(sys.modules[gdown.download.__module__], "DEFAULT_COOKIES_FILE", str(tmp_path / "cookies"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**13, 0, 10**13))
    write_files(tmp_path / "project", MADE)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def fetch(run_main: RunMain, data: Path, *more: str) -> tuple[int, str, str]:
    arguments = options("http://unused", data.parent / "project", "--data-root-dir", str(data), *more)
    return run_main(arguments, SCRIPT)
