"""How many trials there were of each kind and scenario, and what was found."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.campaign.places import Finding


@dataclass
class Counts:
    """trials: by (kind, scenario). verdicts: by (kind, scenario, verdict), of kinds that have some."""

    trials: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, scenario: str, findings: Iterable[Finding], verdict: str = "") -> None:
        """Count a trial."""
        self.trials[kind, scenario] += 1
        if verdict:
            self.verdicts[kind, scenario, verdict] += 1
        self.findings += findings

    def table(self) -> str:
        """Markdown: a row for each scenario and kind."""
        lines = ["| kind | scenario | trials | of them | findings |", "| --- | --- | --- | --- | --- |"]
        for (kind, scenario), trials in sorted(self.trials.items()):
            verdicts = {name: number for (*where, name), number in self.verdicts.items() if where == [kind, scenario]}
            told = ", ".join(f"{number} {name}" for name, number in sorted(verdicts.items()))
            found = sum((finding.kind, finding.scenario) == (kind, scenario) for finding in self.findings)
            lines.append(f"| {kind} | {scenario} | {trials} | {told} | {found} |")
        kinds = sorted({kind for kind, _ in self.trials})
        totals = {kind: sum(number for (of, _), number in self.trials.items() if of == kind) for kind in kinds}
        total = ", ".join(f"{number} of {kind}" for kind, number in totals.items())
        return "\n".join([*lines, "", f"Trials: {total}. Findings: {len(self.findings)}.", ""])
