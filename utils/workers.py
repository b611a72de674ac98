"""The same step for many slides, in worker processes that live no longer than their parent."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

import psutil
from tqdm import tqdm

from utils.errors import Fault, UserError

SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG, see man 2 prctl
WATCH_SECONDS = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Job = TypeVar("Job")
Result = TypeVar("Result")


def over_slides(step: Callable[[Job], Result], jobs: Sequence[Job], workers: int, text: str) -> list[Result]:
    """The step's result for every slide, in order, from worker processes (none for a single worker), with a progress
    bar. Raises UserError where a worker died; what other slides wrote stays."""
    bar = partial(tqdm, total=len(jobs), desc=text, unit="slide", disable=None)
    if min(workers, len(jobs)) < 2:
        return [step(job) for job in bar(jobs)]
    pool = ProcessPoolExecutor(min(workers, len(jobs)), initializer=tie_worker, initargs=(os.getpid(),))
    try:
        return list(bar(pool.map(step, jobs)))
    except BrokenProcessPool as error:
        found = "a worker process was ended from outside, for want of memory perhaps"
        mend = "run again with fewer --workers: what is finished is not repeated"
        raise UserError(Fault("worker.ended", "", found, mend=mend)) from error
    finally:
        pool.shutdown(cancel_futures=True)


def tie_worker(parent: int) -> None:
    """Called in a worker process: it dies when its parent does, however the parent ends, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    threading.Thread(target=_watch, args=(parent, os.getppid()), daemon=True).start()


def die_with_parent() -> None:
    """Let the system kill this process when the one that started it ends. Only Linux knows how."""
    if LIBC is not None:
        LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _watch(parent: int, started_by: int) -> None:
    """End this process soon after its parent. started_by: the parent, or the server that forks for it."""
    while os.getppid() == started_by and psutil.pid_exists(parent):
        time.sleep(WATCH_SECONDS)
    os._exit(1)
