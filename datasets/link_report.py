"""What became of slides whose features were linked: a table of numbers, warnings and faults."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from utils.errors import Fault
from utils.words import listed

MOST_NAMED = 5
COUNTED = (
    "parents", "childless parents", "children", "children linked", "children dropped, parent full",
    "children without parent", "children repeated",
)  # fmt: skip


@dataclass
class LinkOutcome:
    """What became of a slide. state: done, skipped or failed. warnings: {kind: sentence}; slides of the same sentence
    share a line."""

    slide_id: str
    state: str
    faults: list[Fault] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    sizes: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def show_outcomes(outcomes: Sequence[LinkOutcome]) -> None:
    """Print the summary table and what should be looked at."""
    states = Counter(outcome.state for outcome in outcomes)
    totals = sum((outcome.counts for outcome in outcomes), Counter[str]())
    rows = {f"slides {state}": states[state] for state in ("done", "skipped", "failed")}
    for name, number in {**rows, **{name: totals[name] for name in COUNTED}}.items():
        print(f"{name:<30} {number:>10,}")
    for sizes, number in Counter(outcome.sizes for outcome in outcomes if outcome.sizes).most_common():
        print(f"patch sizes in level-0 pixels: {sizes} ({number} slides)")
    for kind in dict.fromkeys(kind for outcome in outcomes for kind in outcome.warnings):
        warned = [outcome for outcome in outcomes if kind in outcome.warnings]
        print(f"warning: {kind}: {len(warned)} slides")
        told: dict[str, list[str]] = {}
        for outcome in warned:
            told.setdefault(outcome.warnings[kind], []).append(outcome.slide_id)
        for sentence, slide_ids in list(told.items())[:MOST_NAMED]:
            print(f"  {listed(slide_ids, quote=False)}: {sentence}")
        if more := sum(map(len, list(told.values())[MOST_NAMED:])):
            print(f"  ... and {more} slides more")
