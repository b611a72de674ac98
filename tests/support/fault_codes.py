"""Faults that a step must raise, told by their codes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from utils.errors import Fault, UserError


@contextmanager
def refused(*codes: str) -> Iterator[list[Fault]]:
    """The block must raise a UserError whose faults have these codes, in this order; the list has them afterwards."""
    faults: list[Fault] = []
    with pytest.raises(UserError) as caught:
        yield faults
    faults += caught.value.faults
    assert [fault.code for fault in faults] == list(codes), str(caught.value)
