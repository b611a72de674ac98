"""Names that become files and folders: of tasks, feature extractors, slides, and what servers call their files."""

import argparse
import unicodedata
from collections.abc import Iterable

from utils.errors import Fault, UserError

MOST_BYTES = 200  # of a file's 255, which also holds endings and the marks of temporary files
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # categories of Unicode: controls, lone surrogates, ends of lines and paragraphs
REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # code points that show a name otherwise than it is
MOST_SHOWN = 3


def name_problem(name: object) -> str | None:
    """Why ``name`` cannot be the name of one file or folder, in words; None where it can."""
    if not isinstance(name, str):
        return f"is a {type(name).__name__}"
    if any(unicodedata.category(sign) in CONTROLS or ord(sign) in REORDERING for sign in name):
        return "holds characters that cannot be printed"
    if not name or name != name.strip():
        return "begins or ends with a blank" if name else "is empty"
    if "/" in name or "\\" in name:
        return "holds slashes"
    if name.startswith("."):
        return "begins with a dot"
    if len(name.encode()) > MOST_BYTES:
        return f"is longer than {MOST_BYTES} bytes"
    return None


def folder_name(text: str) -> str:
    """An argparse type: a name that files or folders carry."""
    if problem := name_problem(text):
        raise argparse.ArgumentTypeError(f"{text!r} {problem}: expected a name without slashes or a leading dot")
    return text


def check_names(names: Iterable[object], where: str, kind: str) -> None:
    """Raises UserError where one of the names cannot be that of a file.

    where: what holds the names, for the message. kind: what they are, in the plural: "slide ids".
    """
    wrong = [(name, problem) for name in names if (problem := name_problem(name))]
    if wrong:
        shown = ", ".join(f"{name!r} {problem}" for name, problem in wrong[:MOST_SHOWN])
        more = f", and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        found = f"{len(wrong)} {kind} cannot be names of files: {shown}{more}"
        expected = f"names without slashes or a leading dot, of at most {MOST_BYTES} bytes"
        raise UserError(Fault("name.unusable", where, found, expected))
