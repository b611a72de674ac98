"""Faults that a test expects."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from utils.errors import Fault, UserError


@contextmanager
def expect_faults(*codes: str) -> Iterator[list[Fault]]:
    """``with expect_faults("file.missing") as faults``: a UserError of faults with these codes, in this order, which
    are in the list behind the block."""
    faults: list[Fault] = []
    with pytest.raises(UserError) as caught:
        yield faults
    faults += caught.value.faults
    assert [fault.code for fault in faults] == list(codes)
