"""What extraction tells of the slides, before it reads them and at its end."""

from collections import Counter
from collections.abc import Sequence

from datasets.extraction_plan import SlidePlan
from utils.errors import MOST_SHOWN, Fault, UserError
from utils.words import listed


def show_notes(notes: Sequence[Fault]) -> None:
    for note in notes:
        print(f"note: {note}")


def show_plans(plans: Sequence[SlidePlan], finished: int) -> None:
    parents = sum(len(plan.grid.parents) for plan in plans)
    children = sum(plan.grid.num_patches for plan in plans) - parents
    print(f"{len(plans)} slides to extract, {finished} are there already; {parents:,} parents, {children:,} children")
    found = Counter((plan.magnification.value, plan.magnification.origin) for plan in plans)
    for (value, origin), number in found.most_common():
        print(f"  {number} slides: level 0 has {value:g}x by {origin}")
    notes: dict[tuple[bool, str], list[str]] = {}
    for plan in plans:
        if plan.reader.note:
            notes.setdefault((plan.reader.by_tiles, plan.reader.note), []).append(plan.slide_id)
    for (by_tiles, note), names in notes.items():
        way = "their tiles, as --reader asks" if by_tiles else "OpenSlide"
        print(f"  {len(names)} slides are read by {way} ({note}): {listed(names, MOST_SHOWN)}")


def show_failures(failed: dict[str, UserError], total: int) -> None:
    print(f"failed: {len(failed)} of {total} slides")
    width = max(map(len, failed), default=0)
    for slide_id, error in failed.items():
        print(f"  {slide_id:<{width}}  {'; '.join(map(str, error.faults))}")
    print("main.py refuses slides without features: take their rows out of the table, and make the splits anew")
