"""Files that appear whole or not at all, and their fingerprints."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from utils.errors import Fault, UserError

FOLDER_BIT = 0x10  # of the attributes that DOS gives a file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and goes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def files_below(folder: Path) -> list[Path]:
    """All files in and below a folder, sorted; links to folders are followed, hidden files and folders passed over."""
    found, seen = [], set()
    for top, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(top)
        folders[:] = [] if here in seen else [name for name in folders if not name.startswith(".")]
        found += [Path(top, name) for name in names if here not in seen and not name.startswith(".")]
        seen.add(here)
    return sorted(found)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError where the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        found = f"not valid JSON ({error}); it is damaged, or not a file of this project"
        raise UserError(Fault("json.unreadable", str(path), found)) from error


def read_tensors(path: Path) -> Any:
    """What ``write_tensors`` or PyTorch saved, on the CPU. Raises UserError where it cannot be read, or where it is not
    what was saved."""
    if not path.is_file():
        raise UserError(Fault("file.missing", str(path), "file not found"))
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises what its unpickler meets
        found = "not readable as tensors; it is damaged, or not a checkpoint"
        raise UserError(Fault("tensors.unreadable", str(path), found)) from error


def _check_archive(path: Path) -> None:
    """Raises BadZipFile, among others, where a member of a zip archive of tensors is not what its checksum tells;
    ``torch.load`` looks at no checksum, and reads a member that is marked as a folder as zeros."""
    if not zipfile.is_zipfile(path):  # PyTorch's form of before 1.6, without checksums
        return
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() or any(member.external_attr & FOLDER_BIT for member in archive.infolist()):
            raise zipfile.BadZipFile(str(path))


def write_tensors(path: Path, value: dict[str, Any]) -> None:
    """Save tensors and plain values, so that ``torch.load(path, weights_only=True)`` reads them.

    Equal values give equal bytes: PyTorch, given a path, would write the name of the temporary file into the file.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    """One digest over names and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
