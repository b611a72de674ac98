"""What the checks of ``training/environment.py`` and ``training/examination.py`` found, as a page of text or JSON."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from training.environment import examine_environment
from training.examination import load_inputs
from utils.config import Config
from utils.errors import Check, Fault, Faults

FORMAT = 1
"""Of the JSON: raised where a field changes its meaning or goes."""
AREAS = {
    "models": ("device", "vision-language model", "model"),
    "features": ("features",),
    "task": ("options", "table of slides", "descriptions", "splits of fold", "other"),
}
"""The checks of a task, by the beginnings of their names; all others are of the environment."""
WAITS = "not checked: it needs what failed above"


class Level(StrEnum):
    """FAIL: a run stops there. WARN: a run goes on, and the user should know. PASS: nothing to do."""

    PASS = "PASS"  # nosec B105: a verdict, no password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """What one check found. area: environment, models, task or features. faults: why it failed, or what it warns of,
    each with what mends it."""

    area: str
    name: str
    level: Level
    found: str
    faults: list[Fault]

    @classmethod
    def of(cls, check: Check) -> "Finding":
        area = next((area for area, names in AREAS.items() if check.name.startswith(names)), "environment")
        failed = Level.FAIL if check.faults else Level.WARN if check.warnings or not check.is_done else Level.PASS
        told = check.told if check.is_done or check.faults else [*check.told, WAITS]
        return cls(area, check.name, failed, "; ".join(told), [*check.faults, *check.warnings])

    def lines(self) -> Iterator[str]:
        yield f"  {self.level}  {self.name}{': ' if self.found else ''}{self.found}"
        yield from (f"        {fault}" for fault in self.faults)

    def to_dict(self) -> dict[str, Any]:
        own = {"area": self.area, "name": self.name, "level": self.level.value, "found": self.found}
        return {**own, "faults": [fault.to_dict() for fault in self.faults]}


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the checks; notes: what else the user should know, a line each."""

    findings: list[Finding]
    notes: list[str]

    @property
    def level(self) -> Level:
        """The worst of all."""
        levels = [*Level]
        return max((finding.level for finding in self.findings), key=levels.index, default=Level.PASS)

    def text(self) -> str:
        """A line for each check, under its area, and a line for each fault with what mends it."""
        lines: list[str] = []
        for area in ("environment", "models", "task", "features"):
            found = [finding for finding in self.findings if finding.area == area]
            lines += [area, *(line for finding in found for line in finding.lines())] if found else []
        counts = [f"{sum(one.level == level for one in self.findings)} {level}" for level in Level]
        return "\n".join([*lines, *self.notes, ", ".join(counts)])

    def json(self) -> str:
        """{"format", "level", "checks": [{"area", "name", "level", "found", "faults"}], "notes"}; faults as
        ``Fault.to_dict`` gives them."""
        checks = [finding.to_dict() for finding in self.findings]
        content = {"format": FORMAT, "level": self.level.value, "checks": checks, "notes": self.notes}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def diagnose(config: Config, given: Collection[str], sample: int | None = None) -> Diagnosis:
    """Check the machine and, where options of a run are given, all that the run needs: by the checks that main.py
    starts with.

    given: names of the options on the command line; without any the machine alone is checked. sample: check the
    features of so many slides in place of all.
    """
    faults = Faults()
    examine_environment(config, faults)
    inputs = faults.attempt(load_inputs, config, given, faults, sample) if given else None
    known = [id(fault) for check in faults.checks for fault in check.faults]
    loose = [fault for fault in faults.found if id(fault) not in known]
    checks = [*faults.checks, *([Check("other", faults=loose)] if loose else [])]
    notes = [note for note in inputs.value.notes if not note.startswith("warning: ")] if inputs else []
    return Diagnosis([Finding.of(check) for check in checks], notes)
