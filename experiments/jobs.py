"""Folds as processes of their own: on this machine, or wherever Ray puts them."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from utils.errors import EXIT_USER_ERROR, Fault, UserError
from utils.ray_cluster import Lost, joined
from utils.redaction import redacted
from utils.whole_files import append_line
from utils.workers import die_with_parent

PROMPT = "$ python "
POLL_SECONDS = 0.2
GRACE_SECONDS = 20  # for a fold to end after Ctrl-C
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}

Outcomes = list[tuple["FoldJob", str]]  # folds that ended: what went wrong, empty where nothing did


@dataclass(frozen=True)
class FoldJob:
    """One fold of one run. command: what follows ``python``; folder: where it is run; threads: of PyTorch."""

    name: str
    command: tuple[str, ...]
    folder: Path
    log: Path
    threads: int


class LostFoldError(Exception):
    """A fold ended in another way than by itself or by a user's mistake; it is worth another try."""


def start(job: FoldJob, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a fold, with some environment variables of its own; what it prints is added to its log. Ctrl-C does not
    reach it, and it dies with its parent."""

    def tie() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # Ray blocks it in its workers
        die_with_parent()

    append_line(job.log, redacted(f"{PROMPT}{shlex.join(job.command)}"))
    with job.log.open("ab") as log:
        # a list without a shell; its options are those of the grid
        return subprocess.Popen(  # nosec B603
            [sys.executable, *job.command], cwd=job.folder, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=tie,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads), **variables},
        )  # fmt: skip


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End folds as Ctrl-C would, so that they leave nothing half-written; by force where they do not follow."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fault_of(code: int) -> str:
    """What an exit code says: '' for success."""
    return "" if code == 0 else f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def last_lines(log: Path, count: int) -> list[str]:
    """The end of what a fold printed when it was last started."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    begin = max((number for number, line in enumerate(lines, 1) if line.startswith(PROMPT)), default=0)
    return lines[begin:][-count:]


def run_job(job: FoldJob, variables: Mapping[str, str]) -> str:
    """Run a fold to its end: -> what went wrong, empty where nothing did. Raises LostFoldError where it is worth
    another try. Interrupted, it takes the fold with it."""
    process = start(job, variables)
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
    finally:
        stop([process])
    if process.returncode in (0, EXIT_USER_ERROR):
        return fault_of(process.returncode)
    raise LostFoldError(fault_of(process.returncode))


# ---- this machine ----------------------------------------------------------------------------------------------------


def gpu_shares(gpus: Sequence[str], gpus_per_fold: float) -> list[str]:
    """CUDA_VISIBLE_DEVICES of every fold that fits: ["0", "1"] and 0.5 -> ["0", "1", "0", "1"]; ["0", "1"] and 2 ->
    ["0,1"]."""
    if gpus_per_fold <= 1:
        return [*gpus] * int(1 / gpus_per_fold)
    size = int(gpus_per_fold)
    return [",".join(gpus[first : first + size]) for first in range(0, len(gpus) - size + 1, size)]


def on_this_machine(
    jobs: Sequence[FoldJob], shares: Sequence[Mapping[str, str]], retries: int
) -> Generator[Outcomes, None, None]:
    """Run folds as subprocesses, as many at a time as there are shares, each with its share's environment variables.
    Yields several times a second. A fold that was lost is started again, ``retries`` times at most."""
    waiting, free = deque(jobs), deque(shares)
    running: dict[FoldJob, tuple[subprocess.Popen[bytes], Mapping[str, str]]] = {}
    losses: Counter[FoldJob] = Counter()
    try:
        while waiting or running:
            while waiting and free:
                share = free.popleft()
                job = waiting.popleft()
                running[job] = start(job, share), share
            time.sleep(POLL_SECONDS)
            ended = []
            for job, (process, share) in list(running.items()):
                if (code := process.poll()) is None:
                    continue
                del running[job]
                free.append(share)
                losses[job] += code not in (0, EXIT_USER_ERROR)
                if code in (0, EXIT_USER_ERROR) or losses[job] > retries:
                    ended.append((job, fault_of(code)))
                else:
                    waiting.appendleft(job)
            yield ended
    finally:
        stop([process for process, _ in running.values()])


# ---- Ray -------------------------------------------------------------------------------------------------------------


def on_ray(
    jobs: Sequence[FoldJob],
    cpus: int,
    gpus: float | None,
    retries: int,
    address: str | None = None,
    at_once: int | None = None,
) -> Generator[Outcomes, None, None]:
    """Run folds as Ray tasks of ``cpus`` CPUs and ``gpus`` GPUs (None: one where the cluster has any).

    address: of a running cluster; without one Ray starts on this machine, for ``at_once`` folds at a time (None: as
    many as fit). Yields about every second. A fold that was lost, or whose worker was, is started again, ``retries``
    times at most. Raises UserError where Ray is not installed or cannot be reached.
    """
    with joined(address, at_once and at_once * cpus, "use --local, which does without Ray") as cluster:
        if gpus is None:
            gpus = float(cluster.number("GPU") > 0)
        for name, number in {} if address else {"CPU": cpus, "GPU": gpus}.items():
            if number > (there := cluster.number(name)):
                found = f"Ray finds {there:g} {name}s on this machine"
                raise UserError(Fault("grid.resources", f"--{name.lower()}s_per_fold {number:g}", found))
        variables = {} if gpus else NO_GPU
        stream = cluster.run(
            run_job, jobs, variables, cpus=cpus, gpus=gpus, retries=retries, retry_on=[LostFoldError]
        )  # fmt: skip
        with closing(stream):
            for ended in stream:
                yield [(job, result.fault if isinstance(result, Lost) else result) for job, result in ended]
