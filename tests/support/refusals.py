"""What a script refuses, as faults."""

import importlib
from collections.abc import Sequence

import pytest

from utils.errors import Fault, UserError


def faults_of(script: str, arguments: Sequence[object]) -> list[Fault]:
    """The faults with which a script ends that is called with these arguments."""
    with pytest.raises(UserError) as error:
        importlib.import_module(script).main([str(argument) for argument in arguments])
    return error.value.faults
