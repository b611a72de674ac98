"""Faults a user can mend: reported as one message and exit code 2, never as a traceback."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from utils.redaction import redacted

EXIT_USER_ERROR, EXIT_UNFORESEEN, EXIT_INTERRUPTED = 2, 3, 130
MOST_SHOWN = 40
LONGEST_TOLD = 300

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    """Something the user can mend.

    code: its stable name, ``subject.problem``, by which programs and tests know it. where: the file, folder, slide or
    option that is at fault. found: what is there, in words. expected: what should be, in words. mend: what to do about
    it, a sentence that mostly ends in a command.
    """

    code: str
    where: str
    found: str
    expected: str = ""
    mend: str = ""

    def __post_init__(self) -> None:
        """Take passwords, keys and tokens out of the texts: a fault is shown, and kept in logs and files."""
        for name in ("where", "found", "expected", "mend"):
            object.__setattr__(self, name, redacted(getattr(self, name)))

    def __str__(self) -> str:
        """where: found; expected ...; mend"""
        parts = [f"{self.where}: {self.found}" if self.where else self.found]
        parts += [f"expected {self.expected}"] if self.expected else []
        parts += [self.mend] if self.mend else []
        return "; ".join(parts)

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


class UserError(Exception):
    """One or several faults. Without any: a step that cannot be done because of faults that were gathered before."""

    def __init__(self, faults: Fault | Sequence[Fault]):
        self.faults = [faults] if isinstance(faults, Fault) else list(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"error: {self.faults[0]}"
        lines = [f"error: {len(self.faults)} faults"] + [f"  - {fault}" for fault in self.faults[:MOST_SHOWN]]
        if len(self.faults) > MOST_SHOWN:
            lines.append(f"  ... and {len(self.faults) - MOST_SHOWN} more")
        return "\n".join(lines)


class Attempt(Generic[Result]):
    """What a step gave, or that it failed. ``value`` may be asked for in a later step, which then fails as well,
    without a fault of its own; once ``Faults.raise_any`` was passed it is always there."""

    def __init__(self, *result: Result):
        self._result = result

    def __bool__(self) -> bool:
        """Whether the step succeeded."""
        return bool(self._result)

    @property
    def value(self) -> Result:
        """Raises UserError, without faults, where the step failed."""
        if not self._result:
            raise UserError([])
        return self._result[0]


@dataclass
class Check:
    """A step that has a name.

    told: what was found, in words. faults: why the step failed; none where it waits for one that failed. warnings: what
    the user should know though the step succeeded.
    """

    name: str
    told: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    is_done: bool = False


class Faults:
    """Gathers the faults of several steps, so that a user sees all of them at once.

    found: the faults. checks: the steps that have a name, in their order.
    """

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.checks: list[Check] = []

    @property
    def passed(self) -> list[str]:
        """The names of the checks that succeeded."""
        return [check.name for check in self.checks if check.is_done]

    @property
    def warnings(self) -> list[Fault]:
        """Those of all checks."""
        return [warning for check in self.checks for warning in check.warnings]

    def add(self, fault: Fault) -> None:
        self.found.append(fault)

    def tell(self, text: str) -> None:
        """What the latest check found."""
        self.checks[-1].told.append(text)

    def warn(self, fault: Fault) -> None:
        """What the user should know of what the latest check found: no reason to stop."""
        self.checks[-1].warnings.append(fault)

    def attempt(
        self, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Attempt[Result]:
        """Take a step; where it raises a UserError, its faults are kept."""
        try:
            return Attempt(step(*args, **kwargs))
        except UserError as error:
            self.found += error.faults
            return Attempt()

    def check(
        self, name: str, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Attempt[Result]:
        """``attempt`` of a step that has a name; ``checks`` gets what came of it."""
        check, before = Check(name), len(self.found)
        self.checks.append(check)
        attempt = self.attempt(step, *args, **kwargs)
        check.faults, check.is_done = self.found[before:], bool(attempt)
        return attempt

    def to_dict(self) -> dict[str, list[Any]]:
        """{"faults": [``Fault.to_dict``, ...], "passed": [name, ...]}, for programs."""
        return {"faults": [fault.to_dict() for fault in self.found], "passed": self.passed}

    def raise_any(self) -> None:
        if self.found:
            raise UserError(self.found)


def run_script(script: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a script's main function; returns its exit code: 2 after a UserError or where the system refuses a file
    (no space, no permission, a file in place of a folder), 3 after what nobody foresaw, 130 after Ctrl-C.

    Of the unforeseen standard error gets one line; the traceback goes to a file in the folder for temporary files.
    """
    try:
        script(argv)
        sys.stdout.flush()
    except (UserError, OSError) as error:
        _tell(error if isinstance(error, UserError) else redacted(f"error: {error}"))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        _tell("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        _tell(_unforeseen(error))
        return EXIT_UNFORESEEN
    finally:
        _leave_no_output()
    return 0


def _tell(message: object) -> None:
    with suppress(OSError):
        print(message, file=sys.stderr)


def _leave_no_output() -> None:
    """Where standard output takes no more (a full disk, a closed pipe), drop what is left of it: Python would try again
    at its end, and say so at length."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unforeseen(error: Exception) -> str:
    """The line about an error that nobody foresaw, whose traceback is kept."""
    told = redacted(" ".join(f"{type(error).__name__}: {error}".split()))
    if len(told) > LONGEST_TOLD:
        told = f"{told[:LONGEST_TOLD]}..."
    last = traceback.extract_tb(error.__traceback__)[-1]
    kept = _keep_traceback(error)
    where = f"the traceback is in {kept}" if kept else f"raised in {last.filename}, line {last.lineno}"
    return f"error: unforeseen, so a fault of this program: {told}; {where}; please report it"


def _keep_traceback(error: Exception) -> Path | None:
    """Write a traceback to a new file that its user alone can read; where. None where it cannot be written."""
    text = redacted("".join(traceback.format_exception(error)))
    for folder in _folders_of_tracebacks():
        with suppress(OSError):
            handle, name = tempfile.mkstemp(".log", f"{Path(sys.argv[0]).stem}-", folder)
            kept = Path(name)
            try:
                with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
            except OSError:
                kept.unlink()
                raise
            return kept
    return None


def _folders_of_tracebacks() -> list[Path]:
    """The folder for temporary files, and home; not the current folder, which may hold data."""
    folders = []
    with suppress(OSError):
        folders.append(Path(tempfile.gettempdir()))
    with suppress(RuntimeError):
        folders.append(Path.home())
    return [folder for folder in folders if folder.resolve() != Path.cwd()]
