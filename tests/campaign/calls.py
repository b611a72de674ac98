"""Calls of scripts, each in a process forked from a warm one (tests/campaign/warm.py)."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from tests.campaign.events import Disturbance

REFUSED = 2


@dataclass(frozen=True)
class Call:
    """One call of a script's main.

    place: the working directory; events of the file system count below it. arrange: "module:function" to call before
    the script, with the arguments ``arranged_with``. seconds: after them the call is killed. memory: bytes above what
    the warm process takes. file_size: bytes that a file can have, as on a full disk. read_only: folders below the
    place that are mounted read-only. after: seconds to wait before the call starts.
    """

    script: str
    argv: tuple[str, ...]
    place: str
    arrange: str = ""
    arranged_with: tuple[str, ...] = ()
    seconds: float = 120
    memory: int | None = None
    file_size: int | None = None
    read_only: tuple[str, ...] = ()
    disturbance: Disturbance | None = None
    after: float = 0

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Call":
        """From its JSON."""
        disturbance = given.pop("disturbance")
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**{**given, **lists}, disturbance=Disturbance(**disturbance) if disturbance else None)


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    code: of the exit, negative where a signal ended it. said: standard output and error. codes: of the faults that were
    raised. events: those of the file system. memory: the most that was resident, in bytes; in_time: False where the
    call was killed for its time.
    """

    code: int
    said: str
    codes: tuple[str, ...]
    events: int
    seconds: float
    cpu: float
    memory: int
    in_time: bool

    def fault(self, allowed: Sequence[int] = (0, REFUSED)) -> str:
        """What no call may do: a traceback, an end by a signal, by time, or with an exit code that is not allowed;
        "" where it did nothing of it."""
        if not self.in_time:
            return f"did not end within {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.said:
            return f"traceback: {self.said.strip().splitlines()[-1][:200]}"
        if self.code not in allowed:
            last = (self.said.strip().splitlines() or ["nothing said"])[-1]
            return f"exit code {self.code}: {last[:200]}"
        if self.code == REFUSED and not self.said.strip():
            return "refused without a word"
        return ""


class WarmProcess:
    """Runs calls in children of a warm process, which is forked from this one: it has the modules that are imported
    here, and none of the threads. cpu: seconds that the calls took so far."""

    def __init__(self) -> None:
        self.cpu = 0.0
        (requests, self._requests), (self._answers, answers) = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _be_warm(requests, answers, (self._requests, self._answers))
        os.close(requests), os.close(answers)
        self._lines = os.fdopen(self._answers)

    def run(self, call: Call) -> Ended:
        return self.run_at_once(call)[0]

    def run_at_once(self, *calls: Call) -> list[Ended]:
        """Calls that run side by side."""
        os.write(self._requests, f"{json.dumps([asdict(call) for call in calls])}\n".encode())
        answer = self._lines.readline()
        assert answer, "the warm process has ended"
        ended = [Ended(**{**given, "codes": tuple(given["codes"])}) for given in json.loads(answer)]
        self.cpu += sum(one.cpu for one in ended)
        return ended

    def close(self) -> None:
        os.close(self._requests)
        os.waitpid(self._pid, 0)
        self._lines.close()


def _be_warm(requests: int, answers: int, of_the_other: Sequence[int]) -> None:
    """The life of the warm process: it never returns."""
    try:
        for pipe in of_the_other:
            os.close(pipe)
        os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg", TOKENIZERS_PARALLELISM="false")
        from tests.campaign.warm import serve_calls

        serve_calls(requests, answers)
    finally:
        os._exit(1)


@contextmanager
def warm_process() -> Iterator[WarmProcess]:
    process = WarmProcess()
    try:
        yield process
    finally:
        process.close()
