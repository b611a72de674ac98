"""Locks that keep processes of this project from the same work, on one machine or on several that share a folder."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from utils.whole_files import writing

WAIT = "wait until that process has ended"
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What file systems answer that have no locks."""


class LockedError(Exception):
    """Another process holds the lock. remedy: what to do about it."""

    def __init__(self, remedy: str):
        super().__init__(remedy)
        self.remedy = remedy


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which stays there; its content counts for nothing and is left as it is.

    The system's lock ends with its process. Where a file system has none, the lock is that <path>.soft is there: it
    names its process, so that the lock of a dead one on the same machine is broken; that of a machine that crashed has
    to be removed by hand. Folders above are made. Raises LockedError, or with ``wait`` waits, where another process
    holds the lock, and UserError where the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = _acquire(FileLock(path, fallback_to_soft=False), wait, WAIT)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
                raise
            soft = path.with_name(f"{path.name}.soft")
            remedy = f"{WAIT}; if its machine has crashed, remove {soft}"
            lock = _acquire(SoftFileLock(soft), wait, remedy)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, wait: bool, remedy: str) -> BaseFileLock:
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise LockedError(remedy) from error
    return lock
