"""Commands that messages tell a user to run, quoted for a shell."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any


def options_text(options: dict[str, Any]) -> str:
    """{"task": "a b", "k": 5, "resume": True} -> --task 'a b' --k 5 --resume

    An option that is None or False is left out; a list gives several values.
    """
    return " ".join(text for name, value in options.items() if (text := _option(name, value)))


def command(script: str, **options: Any) -> str:
    """ "create_splits.py", task="a b" -> python create_splits.py --task 'a b'"""
    return " ".join(filter(None, ["python", quote(script), options_text(options)]))


def paths_text(paths: Sequence[Path | str]) -> str:
    """Arguments of a command, each quoted. A path that begins with - is not read as an option."""
    return " ".join(quote(f"./{path}" if str(path).startswith("-") else str(path)) for path in paths)


def _option(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f"--{name}"
    values = [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
    if len(values) == 1 and values[0].startswith("-"):  # argparse would take it for an option
        return f"--{name}={quote(values[0])}"
    return " ".join([f"--{name}", *map(quote, values)])
