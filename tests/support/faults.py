"""Faults that a test expects, raised by a function or by a script."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from utils.errors import Fault, UserError

Refused = Callable[..., list[Fault]]


@contextmanager
def expect_faults(*codes: str) -> Iterator[list[Fault]]:
    """``with expect_faults("file.missing") as faults``: a UserError of faults with these codes, in this order, which
    are in the list behind the block."""
    faults: list[Fault] = []
    with pytest.raises(UserError) as caught:
        yield faults
    faults += caught.value.faults
    assert [fault.code for fault in faults] == list(codes)


def check_told(fault: Fault, code: str, *words: str) -> None:
    """A fault is of a kind, and its sentence holds some words."""
    assert fault.code == code, fault
    assert all(word in str(fault) for word in words), fault


def check_fault(fault: Fault, code: str, where: object, *words: str) -> None:
    """A fault is of a kind and at a place, and its sentence holds some words."""
    check_told(fault, code, str(where), *words)
    assert fault.where == str(where), fault
