"""Faults a user can mend: reported as one message and exit code 2, never as a traceback."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from utils.redaction import redacted

EXIT_USER_ERROR = 2
MOST_SHOWN = 40

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


class Faults:
    """Gathers the faults of several steps, so that a user sees all of them at once.

    found: the faults. passed: the names of the checks that succeeded.
    """

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.passed: list[str] = []

    def add(self, fault: Fault) -> None:
        self.found.append(fault)

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
        """``attempt`` of a step that has a name; where the step succeeds, ``passed`` gets the name."""
        attempt = self.attempt(step, *args, **kwargs)
        if attempt:
            self.passed.append(name)
        return attempt

    def to_dict(self) -> dict[str, list[Any]]:
        """{"faults": [``Fault.to_dict``, ...], "passed": [name, ...]}, for programs."""
        return {"faults": [fault.to_dict() for fault in self.found], "passed": self.passed}

    def raise_any(self) -> None:
        if self.found:
            raise UserError(self.found)


def run_script(script: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a script's main function; returns its exit code: 2 after a UserError or where the system refuses a file
    (no space, no permission, a file in place of a folder), 130 after Ctrl-C."""
    try:
        script(argv)
    except (UserError, OSError) as error:
        print(error if isinstance(error, UserError) else redacted(f"error: {error}"), file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
