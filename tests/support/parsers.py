"""The parsers of the scripts, as ``parse`` builds them."""

import argparse
import importlib
from functools import cache

import pytest

from tests.conftest import PROJECT

SCRIPTS = sorted(file.stem for file in PROJECT.glob("*.py"))


@cache
def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser of a script, which has parsed nothing."""
    parsers = []

    def keep(parser: argparse.ArgumentParser, *arguments: object) -> None:
        parsers.append(parser)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", keep)
        with pytest.raises(InterruptedError):
            importlib.import_module(script).parse([])
    return parsers[0]
