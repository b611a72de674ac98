"""Texts, JSON and tensors as files, written whole or not at all, and fingerprints of files."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils.errors import Fault, UserError
from utils.whole_files import write_bytes

FOLDER_BIT = 0x10  # of the attributes that DOS gives a file


def files_below(folder: Path) -> list[Path]:
    """All files in and below a folder, sorted; links to folders are followed, hidden files and folders passed over."""
    found, seen = [], set()
    for top, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(top)
        folders[:] = [] if here in seen else [name for name in folders if not name.startswith(".")]
        found += [Path(top, name) for name in names if here not in seen and not name.startswith(".")]
        seen.add(here)
    return sorted(found)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError where the file is not there, or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(Fault("file.missing", str(path), "file not found")) from error
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
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_bytes(path, buffer.getbuffer())


def file_sha256(path: Path) -> str:
    """Raises UserError where the file is not there."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UserError(Fault("file.missing", str(path), "file not found")) from error


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    """One digest over names and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
