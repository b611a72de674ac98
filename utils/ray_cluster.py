"""Tasks on a Ray cluster: each is run by a free worker, and again where its worker is lost."""

import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from utils.errors import Fault, UserError

if TYPE_CHECKING:
    import ray

CONNECT_SECONDS = 10
GRACE_SECONDS = 20  # for a task to end after Ctrl-C
OBJECT_STORE_BYTES = 80 * 1024**2  # of a cluster on this machine alone: little passes through the store

Job = TypeVar("Job")
Result = TypeVar("Result")


class Lost(Generic[Job]):
    """A task that ended without a result. job: what it was to do. fault: why it ended, in one line."""

    def __init__(self, job: Job, fault: str):
        self.job, self.fault = job, fault


class Cluster:
    """A cluster that this process has joined. nodes: how many CPUs and GPUs each has, by these names."""

    def __init__(self, nodes: Sequence[Mapping[str, float]]):
        self.nodes = nodes

    def number(self, kind: str) -> float:
        """Of all nodes together."""
        return sum(node.get(kind, 0) for node in self.nodes)

    def largest(self, kind: str) -> float:
        """Of the node that has most: a task that needs more would wait for ever."""
        return max((node.get(kind, 0) for node in self.nodes), default=0)

    def run(
        self,
        step: Callable[..., Result],
        jobs: Sequence[Job],
        *more: Any,
        cpus: float,
        gpus: float,
        retries: int,
        retry_on: Sequence[type[Exception]] = (),
    ) -> Generator[list[tuple[Job, Result | Lost[Job]]], None, None]:
        """Call ``step(job, *more)`` for every job, in processes of the cluster.

        cpus, gpus: what a call needs. retries: how often a call is made again whose process was lost, or that raised
        an exception of ``retry_on``. Yields about every second the jobs that ended since, each with its result or, for
        another exception, a Lost. A caller that stops early takes the tasks that still run with it.
        """
        import ray

        task = ray.remote(step).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=list(retry_on) or False
        )
        shared = [ray.put(value) for value in more]
        pending = {task.remote(job, *shared): job for job in jobs}
        try:
            while pending:
                done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=1)
                yield [(job, _outcome(reference, job)) for reference in done for job in [pending.pop(reference)]]
        finally:
            for reference in pending:
                ray.cancel(reference)
            if pending:
                ray.wait(list(pending), num_returns=len(pending), timeout=GRACE_SECONDS)


@contextmanager
def joined(address: str | None, cpus: int | None = None, mend: str = "") -> Iterator[Cluster]:
    """Join a running cluster for the length of the block, or start one on this machine.

    address: auto, or HOST:PORT; None starts one here. cpus: of the one here (None: as many as there are). mend: what
    the messages advise. Raises UserError where Ray is not installed or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        install = "pip install ray==2.60.0 (requirements.txt)"
        raise UserError(Fault("ray.missing", "Ray", "is not installed", mend=f"{install}, or {mend}")) from error
    here: dict[str, Any] = {} if address else {"num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES}
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            _knock(address)
        ray.init(address or "local", **quiet, **here)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"--address {address}" if address else "Ray on this machine"
        raise UserError(Fault("ray.no_answer", where, f"no answer ({error})", mend=mend)) from error
    try:
        nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
        yield Cluster([node["Resources"] for node in nodes() if node["Alive"]])
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.partition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _outcome(reference: "ray.ObjectRef[Result]", job: Job) -> Result | Lost[Job]:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return Lost(job, str(error.cause))
    except ray.exceptions.RayError as error:
        return Lost(job, f"{type(error).__name__}: {error}".splitlines()[0])
