"""Events of the file system, counted within a script's process and its workers, and faults at a chosen one."""

import os
import signal
import struct
import sys
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

PATH_OF = {
    "open": 0, "os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0, "os.chmod": 0,
    "os.symlink": 1, "os.link": 1,
}  # fmt: skip
"""The audit events that change a file system, and which of their arguments is the path."""
MAKING = ("os.rename", "os.mkdir", "os.symlink", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
COUNT = struct.Struct("q")
LATEST = 0.004  # seconds behind an event


@dataclass(frozen=True)
class Disturbance:
    """What happens at an event, counted from 1.

    errno: from the event on nothing new can be made, which fails with it; 0: the script's process is killed. delay:
    seconds between the event and the kill; within them the process works on, so that the kill finds it between two
    events, in the middle of writing say.
    """

    event: int
    errno: int = 0
    delay: float = 0.0


def watch(folder: Path, counter: mmap, disturbance: Disturbance | None) -> None:
    """Count the events below ``folder`` from now on, in this process and those it forks, and disturb one of them.

    counter: shared memory with room for ``COUNT``. The hook cannot be taken away again.
    """
    script = os.getpid()
    below = f"{folder}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in PATH_OF or not _counts(event, arguments, below):
            return
        (number,) = COUNT.unpack_from(counter)
        number += 1
        COUNT.pack_into(counter, 0, number)
        if disturbance is None or number < disturbance.event:
            return
        if disturbance.errno:
            if not _makes(event, arguments):
                return
            raise OSError(disturbance.errno, os.strerror(disturbance.errno), str(arguments[PATH_OF[event]]))
        if number == disturbance.event:
            _kill(script, disturbance.delay)

    sys.addaudithook(hook)


def _counts(event: str, arguments: tuple[Any, ...], below: str) -> bool:
    """Whether an event changes something below a folder."""
    path = arguments[PATH_OF[event]]
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return False
    return os.path.abspath(os.fsdecode(path)).startswith(below)  # noqa: PTH100  (links are not followed)


def _makes(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an event needs room for a new name."""
    return bool(arguments[2] & os.O_CREAT) if event == "open" else event in MAKING


def _kill(script: int, delay: float) -> None:
    if delay and script == os.getpid():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it is
        signal.setitimer(signal.ITIMER_REAL, delay)
    else:
        os.kill(script, signal.SIGKILL)
