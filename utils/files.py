"""Texts, JSON and tensors as files, written whole or not at all, and fingerprints of files."""

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import Fault, UserError
from utils.whole_files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

# how files begin that are no text
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
}
UTF8, UTF16 = "utf-8-sig", "utf-16"
UTF16_MARKS = b"\xff\xfe", b"\xfe\xff"
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
DEEPEST_JSON = 50  # no file of this project is nested deeper than 6
NO_JSON = "is it damaged, or not a file of this project?"


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
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(code: str, path: Path, mend: str, encoding_of: Callable[[bytes], str] | None = None) -> str:
    """A file's text, without a byte order mark.

    code: of the fault where it has none. mend: what a user does about a file of another kind. encoding_of: tells the
    encoding of the file's bytes; by default UTF-8 alone is read. Raises UserError where the path is no file, and where
    the file is not text in that encoding or holds NUL.
    """
    if path.is_dir():
        raise UserError(Fault(code, str(path), "is a folder", "a file"))
    data = path.read_bytes()
    kind = next((words for start, words in OTHER_KINDS.items() if data.startswith(start)), None)
    if kind is None and encoding_of is None and data.startswith(UTF16_MARKS):
        kind = "text in UTF-16"
    if kind:
        raise UserError(Fault(code, str(path), kind, "text in UTF-8", mend))
    encoding = encoding_of(data) if encoding_of else UTF8
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding == UTF8 else encoding
        found = f"not text in {name} (line {line} has the byte {data[error.start]:#04x})"
        raise UserError(Fault(code, str(path), found, mend=mend)) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(Fault(code, str(path), f"a NUL character in line {line}", "text in UTF-8", mend))
    return text


def read_json(path: Path, code: str = "json.unreadable", expected: str = "") -> Any:
    """The value of a JSON file; a byte order mark is passed over.

    code: of the fault where the file is not JSON. expected: what it should be, for the fault. Raises UserError where
    the file is missing, is not JSON in UTF-8, has a key twice in one object, is nested deeper than ``DEEPEST_JSON``, or
    has text that no file in UTF-8 can have (NUL, half of a surrogate pair).
    """
    if not path.exists():
        raise UserError(Fault("file.missing", str(path), "file not found"))
    text = read_text(code, path, NO_JSON)
    try:
        value = json.loads(text, object_pairs_hook=without_doubles)
        _check_json(value)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(Fault(code, str(path), f"not valid JSON ({why})", expected, NO_JSON)) from error
    return value


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file, for ``object_pairs_hook``. Raises ValueError where a key stands in it twice."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key {key!r} stands {count} times in one object")
    return dict(pairs)


def _check_json(value: Any, depth: int = 0) -> None:
    """Raises RecursionError or ValueError where a value is nested too deeply, or has text that cannot be written."""
    if depth > DEEPEST_JSON:
        raise RecursionError
    if isinstance(value, str) and UNWRITABLE.search(value):
        raise ValueError(f"text with NUL or half of a surrogate pair: {value[:60]!r}")
    if isinstance(value, dict):
        for name, member in value.items():
            _check_json(name, depth + 1)
            _check_json(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check_json(member, depth + 1)


def write_tensors(path: Path, value: dict[str, Any]) -> None:
    """Save tensors and plain values, so that ``torch.load(path, weights_only=True)`` reads them.

    Equal values give equal bytes: PyTorch, given a path, would write the name of the temporary file into the file.
    """
    import torch  # takes seconds, and most scripts that write a text have no tensors

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


def tensors_sha256(tensors: "dict[str, Tensor]") -> str:
    """One digest over names and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
