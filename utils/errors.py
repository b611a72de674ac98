"""Faults a user can mend: reported as one message and exit code 2, never as a traceback."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

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
    (no space, no permission, a file in place of a folder), 130 after Ctrl-C."""
    try:
        script(argv)
    except (UserError, OSError) as error:
        print(error if isinstance(error, UserError) else f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
