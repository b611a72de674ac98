"""A step over many slides, alone and in worker processes."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import PROJECT
from tests.support.faults import expect_faults
from utils.workers import over_slides


def double(number: int) -> int:
    return 2 * number


def die(number: int) -> int:
    os._exit(3)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert over_slides(double, list(range(20)), workers, "doubling") == list(range(0, 40, 2))
    assert over_slides(double, [], workers, "doubling") == []


def test_a_worker_that_dies_is_told_of() -> None:
    with expect_faults("worker.ended") as faults:
        over_slides(die, [1, 2, 3], 2, "dying")
    assert "--workers" in faults[0].mend


# ---- a parent that dies ----------------------------------------------------------------------------------------------

PARENT = """
import multiprocessing, os, sys, time
from utils import workers
if sys.argv[1] == "without the system's help":
    workers.LIBC = None
from utils.workers import over_slides
def work(number):
    os.write(1, f"{os.getpid()}\\n".encode())  # a line is one write: two workers share the pipe
    time.sleep(600)
over_slides(work, [1, 2], 2, "waiting")
"""


def is_alive(number: int) -> bool:
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("way", ["as it is", "without the system's help"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_die_with_their_parent(end: signal.Signals, way: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, way], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, workers))
    parent.send_signal(end)
    assert parent.wait() == -end
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [worker for worker in workers if is_alive(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert left == []
