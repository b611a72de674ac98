"""How this project writes: a file appears whole or not at all, and what the system refuses is a fault that names it.

A file is written under a hidden name beside its own, ``.<name>.<8 digits>.writing``, and then renamed. Its writer holds
a lock on it meanwhile. So whoever gets that lock knows that the writer is dead, and removes what the writer left.
"""

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from utils.errors import Fault, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.writing")
LONGEST_NAME = 200  # bytes of a file's name in that of its temporary file; file systems take 255
SECONDS_OF_A_WRITER = 24 * 3600  # after which a temporary file is left over where the file system has no locks
KEPT = "and run the command again: what is finished stays"
MENDS = {
    errno.ENOSPC: f"make room on its disk (df -h, and df -i for the number of files), {KEPT}",
    errno.EDQUOT: f"make room in your quota, {KEPT}",
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), {KEPT}",
    errno.EROFS: "name a folder on a file system that is not read-only",
    errno.EACCES: "mend the permissions of its folder, or name another folder",
}
_swept: set[Path] = set()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises UserError, which names ``path``, for what the system refuses in the block: no space, no quota, no
    permission, a file in place of a folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error.filename, str | Path) and Path(error.filename).parent != path.parent:
            reason = f"{reason}: {error.filename}"
        raise UserError(
            Fault("file.not_written", str(path), f"not written ({reason})", mend=MENDS.get(error.errno or 0, ""))
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and goes when it does not.

    Folders above it are made. What dead writers left in its folder is removed, once in a process. Raises UserError
    where ``path`` is a folder, a device or another thing that is no regular file, and as ``writing``.
    """
    require_regular(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            remove_left_over(path.parent)
        temporary, hold = _new_temporary(path)
        try:
            yield temporary
            if os.name == "nt":  # Windows renames no open file
                hold.close()
            temporary.replace(path)
        finally:
            hold.close()
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file or none. Raises UserError as ``whole_file``.

    What other libraries write goes through their memory and then here: many of them end the process, or say nothing,
    where a disk is full.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, or leave the file as it is. Raises UserError as ``whole_file``."""
    require_regular(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            left = memoryview(f"{line}\n".encode())
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(size)
                raise


def require_regular(path: Path) -> None:
    """Raises UserError where there is something else than a file at ``path``, or behind the link there."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        raise UserError(Fault("output.folder", str(path), "is a folder", "the name of a file"))
    if not stat.S_ISREG(mode):
        raise UserError(Fault("output.special", str(path), f"is {_kind(mode)}", "the name of a file"))


def remove_left_over(folder: Path) -> None:
    """Remove the temporary files of dead writers from a folder; those of living ones stay."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_if_left(Path(entry.path))


def _remove_if_left(file: Path) -> None:
    with file.open("rb+") as opened:
        try:
            is_left = _lock(opened.fileno(), wait=False)
        except OSError:
            is_left = time.time() - file.stat().st_mtime > SECONDS_OF_A_WRITER
        if is_left:
            file.unlink()


def _new_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """An empty file beside ``path``, as readable as others, opened and, where there are locks, locked."""
    name = os.fsencode(path.name)[:LONGEST_NAME].decode(errors="ignore")
    while True:
        temporary = path.with_name(f".{name}.{secrets.token_hex(4)}.writing")
        hold = temporary.open("xb")
        with suppress(OSError):
            _lock(hold.fileno(), wait=True)
        if os.fstat(hold.fileno()).st_nlink:  # else another process took it for left over, before it was locked
            return temporary, hold
        hold.close()


def _lock(handle: int, wait: bool) -> bool:
    """Take the lock of an open file: -> whether it is taken. Raises OSError where the file system has no locks."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _kind(mode: int) -> str:
    kinds = {stat.S_ISCHR: "a device", stat.S_ISBLK: "a device", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "no file")
