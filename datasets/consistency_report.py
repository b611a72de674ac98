"""All slides of a task checked for consistency, repaired where asked for, and reported on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.consistency import SlideCheck, check_slide
from datasets.folders import FeatureFolders
from datasets.projection import Projection
from datasets.repair import repair_slide
from datasets.slide_names import slide_name
from datasets.task import read_level0_magnifications
from utils.errors import Fault, UserError
from utils.words import listed
from utils.workers import over_slides


@dataclass(frozen=True)
class CheckJob:
    """A slide to check. level0: magnification of its level 0, where the table has it. fix: repair what can be.
    projection: where it is asked for."""

    folders: FeatureFolders
    slide_id: str
    level0: float | None
    fix: bool
    projection: Projection | None


@dataclass
class CheckOutcome:
    """before: what was found. after: what is left once the file was repaired. refusal: why it was not."""

    before: SlideCheck
    after: SlideCheck | None = None
    refusal: str = ""

    @property
    def last(self) -> SlideCheck:
        return self.after or self.before

    def verdict(self) -> str:
        """ok, the kinds of fault, or what a repair led to."""
        kinds = ", ".join(dict.fromkeys(fault.kind for fault in self.last.faults))
        if self.after:
            return f"repaired, but: {kinds}" if kinds else "repaired"
        return kinds or "ok"


def check_slides(
    folders: FeatureFolders,
    table: Path | None,
    fix: bool = False,
    projection: Projection | None = None,
    workers: int = 1,
) -> bool:
    """Check every slide that has a low or a hierarchical file, print a report, and say whether all are free of faults.

    With ``fix`` a slide that could not be repaired counts as faulty, whatever the repair was to mend.

    table: the table of slides, read for level0_mag. fix: repair what can be repaired; old files stay as .bak.
    projection: with ``fix``, applied to features from before it. Raises UserError where there are no files.
    """
    kinds = folders.low_file, folders.hierarchical_file
    slide_ids = sorted({slide_name(path.name) for kind in kinds for path in kind("*").parent.glob("[!.]*.h5")})
    if not slide_ids:
        where = " and ".join(str(kind("*").parent) for kind in kinds)
        mend = f"make them with: {folders.hierarchy_command()}"
        raise UserError(Fault("features.missing", where, "no feature files", mend=mend))
    level0 = read_level0_magnifications(table) if table else {}
    jobs = [CheckJob(folders, slide_id, level0.get(slide_id), fix, projection) for slide_id in slide_ids]
    outcomes = over_slides(check_and_repair, jobs, workers, "checking")
    _show(outcomes)
    if not any(outcome.last.faults or outcome.refusal for outcome in outcomes):
        return True
    if not fix and any(outcome.before.is_repairable for outcome in outcomes):
        print("--fix repairs hierarchical files from the low and high ones, and keeps the old ones as .bak")
    return False


def check_and_repair(job: CheckJob) -> CheckOutcome:
    """Check a slide, and with ``fix`` repair it and check it again."""
    outcome = CheckOutcome(check_slide(job.folders, job.slide_id, job.level0, job.projection))
    if not job.fix or not (outcome.before.is_repairable or outcome.before.to_project):
        return outcome
    try:
        repair_slide(job.folders, job.slide_id, job.level0, job.projection)
    except UserError as error:
        outcome.refusal = "; ".join(map(str, error.faults))
    else:
        outcome.after = check_slide(job.folders, job.slide_id, job.level0)
    return outcome


def _show(outcomes: Sequence[CheckOutcome]) -> None:
    """Print one row per slide, the summary, and every fault and note."""
    width = max(len("slide"), *(len(outcome.before.slide_id) for outcome in outcomes))
    print(f"{'slide':<{width}} {'parents':>8} {'children':>9} {'childless':>9}  result")
    for outcome in outcomes:
        last = outcome.last
        print(f"{last.slide_id:<{width}} {last.parents:>8} {last.children:>9} {last.childless:>9}  {outcome.verdict()}")
    faulty = sum(bool(outcome.last.faults) for outcome in outcomes)
    repaired = sum(outcome.after is not None for outcome in outcomes)
    print(f"\n{len(outcomes)} slides: {len(outcomes) - faulty} consistent ({repaired} repaired), {faulty} with faults")
    kinds = Counter(kind for outcome in outcomes for kind in {fault.kind for fault in outcome.last.faults})
    for kind, number in kinds.most_common():
        print(f"  {kind}: {number} slides")
    for outcome in outcomes:
        for fault in outcome.last.faults:
            print(f"{outcome.before.slide_id}: {fault.kind}: {fault.text}")
        if outcome.refusal:
            print(f"{outcome.before.slide_id}: not repaired: {outcome.refusal}")
    _show_notes({outcome.before.slide_id: outcome.last.notes for outcome in outcomes})


def _show_notes(notes: Mapping[str, Sequence[str]]) -> None:
    """Print each note once, with the slides that have it; numbers of rows in front are added up. notes: by slide_id."""
    rows: dict[str, dict[str, int]] = {}
    for slide_id, of_slide in notes.items():
        for note in of_slide:
            number, _, rest = note.partition(" ")
            text = rest if number.isdigit() else note
            rows.setdefault(text, {})[slide_id] = int(number) if number.isdigit() else 0
    for text, by_slide in rows.items():
        total = sum(by_slide.values())
        which = "" if len(by_slide) == len(notes) else f": {listed(by_slide)}"
        print(f"note: {f'{total:,} ' if total else ''}{text} ({len(by_slide)} slides{which})")
