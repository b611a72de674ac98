"""The trials of scenarios, as many as asked for, counted."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock

from tests.campaign import disks, fuzz, kills, mutations, pairs
from tests.campaign.counts import Counts
from tests.campaign.places import Finding, Place
from tests.campaign.trials import Expected, undisturbed


@dataclass(frozen=True)
class Amounts:
    """How many trials a scenario has.

    kills: calls that are killed, each ``chained`` times before it may end. disks: full disks, and as many without
    inodes. read_only: whether folders are mounted read-only. pairs: of calls at once. mutations: damaged inputs.
    fuzzed: calls with strange options or files, each of ``seconds`` at most.
    """

    kills: int = 0
    chained: int = 1
    disks: int = 0
    read_only: bool = False
    pairs: int = 0
    mutations: int = 0
    fuzzed: int = 0
    seconds: float = 60


class Campaign:
    """The trials of scenarios, counted; several scenarios may have theirs at once. The same seed makes the same
    trials."""

    def __init__(self, seed: int, aloud: bool = False):
        self.seed, self.aloud, self.counts, self._lock = seed, aloud, Counts(), Lock()

    def run(self, place: Place, amounts: Amounts) -> None:
        """All trials of a scenario."""
        generator = random.Random(f"{self.seed} {place.scenario.name}")
        expected = undisturbed(place)
        self._disturb(place, amounts, expected, generator)
        for _ in range(amounts.mutations if place.scenario.name in mutations.READERS else 0):
            verdict = mutations.damage_an_input(place, expected, generator)
            self._tell(mutations.KIND, place, [verdict.finding] if verdict.finding else [], verdict.name)
        for _ in range(amounts.fuzzed):
            self._tell(fuzz.KIND, place, fuzz.fuzz(place, generator, amounts.seconds))

    def _disturb(self, place: Place, amounts: Amounts, expected: Expected, generator: random.Random) -> None:
        for _ in range(amounts.kills):
            chain = [kills.a_kill(generator, expected.events) for _ in range(amounts.chained)]
            self._tell(kills.KIND, place, kills.kill_and_complete(place, expected, chain))
        for size in disks.sizes(generator, expected, amounts.disks):
            self._tell(disks.FULL, place, disks.full(place, expected, size))
        for _ in range(amounts.disks):
            event = generator.randint(1, expected.events)
            self._tell(disks.NO_INODES, place, disks.without_inodes(place, expected, event))
        if amounts.read_only and disks.can_mount():
            found = [*disks.read_only_place(place), *disks.read_only_inputs(place, expected)]
            self._tell(disks.READ_ONLY, place, found)
        for _ in range(amounts.pairs):
            self._tell(pairs.KIND, place, pairs.two_at_once(place, expected, generator.uniform(0, 0.5)))

    def _tell(self, kind: str, place: Place, findings: Iterable[Finding], verdict: str = "") -> None:
        findings = list(findings)
        with self._lock:
            self.counts.add(kind, place.scenario.name, findings, verdict)
            if self.aloud:
                print("".join(f"{finding}\n" for finding in findings), end="", flush=True)
