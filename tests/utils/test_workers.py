"""A step over many slides, alone and in worker processes."""

import os

import pytest

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
