"""Commands that messages tell are what a shell would run."""

import argparse
import shlex
from pathlib import Path

import pytest

from utils.commands import command, options_text, paths_text

NASTY = ["a b", "$(touch x)", "`x`", "a;rm -rf *", "it's", '"', "-rf", "--help", "a\nb", "*", "~", "é"]


@pytest.mark.parametrize("value", NASTY)
def test_a_shell_gives_the_script_the_value(value: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task")
    parser.add_argument("--k", type=int)
    words = shlex.split(command("create_splits.py", task=value, k=5))
    assert words[:2] == ["python", "create_splits.py"]
    assert parser.parse_args(words[2:]) == argparse.Namespace(task=value, k=5)


@pytest.mark.parametrize("value", NASTY)
def test_paths_are_no_options(value: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", type=Path, nargs="+")
    assert parser.parse_args(shlex.split(paths_text([value, Path("b")]))).paths == [Path(value), Path("b")]


def test_lists_switches_and_what_is_not_given() -> None:
    options = {"classes": ["A", "B C"], "resume": True, "verify": False, "device": None, "k": 0}
    assert options_text(options) == "--classes A 'B C' --resume --k 0"
    assert command("main.py") == "python main.py"
