"""Faults a user can mend: reported as one message and exit code 2, never as a traceback."""

import sys
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

EXIT_USER_ERROR = 2
MOST_SHOWN = 40

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class UserError(Exception):
    """One or several faults in what the user gave; each says what was found, what was expected and how to mend it."""

    def __init__(self, faults: str | Sequence[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"error: {self.faults[0]}"
        lines = [f"error: {len(self.faults)} faults"] + [f"  - {fault}" for fault in self.faults[:MOST_SHOWN]]
        if len(self.faults) > MOST_SHOWN:
            lines.append(f"  ... and {len(self.faults) - MOST_SHOWN} more")
        return "\n".join(lines)


class Faults:
    """Gathers the faults of several steps, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        self.found.append(fault)

    def attempt(
        self, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        """The step's result, or None where it raised a UserError, whose faults are kept."""
        try:
            return step(*args, **kwargs)
        except UserError as error:
            self.found += error.faults
            return None

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
