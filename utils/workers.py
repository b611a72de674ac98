"""The same step for many slides, in worker processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from utils.errors import Fault, UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def over_slides(step: Callable[[Job], Result], jobs: Sequence[Job], workers: int, text: str) -> list[Result]:
    """The step's result for every slide, in order, from worker processes (none for a single worker), with a progress
    bar. Raises UserError where a worker died; what other slides wrote stays."""
    bar = partial(tqdm, total=len(jobs), desc=text, unit="slide", disable=None)
    if min(workers, len(jobs)) < 2:
        return [step(job) for job in bar(jobs)]
    pool = ProcessPoolExecutor(min(workers, len(jobs)))
    try:
        return list(bar(pool.map(step, jobs)))
    except BrokenProcessPool as error:
        found = "a worker process was ended from outside, for want of memory perhaps"
        mend = "run again with fewer --workers: what is finished is not repeated"
        raise UserError(Fault("worker.ended", "", found, mend=mend)) from error
    finally:
        pool.shutdown(cancel_futures=True)
