"""Disks without room, and folders that cannot be written to."""

import errno
import os
import random
from dataclasses import replace
from itertools import pairwise

from tests.campaign.calls import REFUSED, Call, Ended
from tests.campaign.events import Disturbance
from tests.campaign.places import Finding, Place
from tests.campaign.trials import Expected, complete

FULL, NO_INODES, READ_ONLY = "full disk", "no inodes", "read-only"


def full(place: Place, expected: Expected, size: int) -> list[Finding]:
    """No file can have more than ``size`` bytes: the call is refused, or needs no more; with room the same call
    completes what it left."""
    call = replace(place.scenario.call(place.path), file_size=size)
    return _disturbed(place, expected, call, FULL, f"files of at most {size} bytes")


def without_inodes(place: Place, expected: Expected, event: int) -> list[Finding]:
    """From an event on, no file or folder can be made."""
    call = replace(place.scenario.call(place.path), disturbance=Disturbance(event, errno.ENOSPC))
    return _disturbed(place, expected, call, NO_INODES, f"no room from event {event} on")


def _disturbed(place: Place, expected: Expected, call: Call, kind: str, how: str) -> list[Finding]:
    place.lay()
    ended = place.world.process.run(call)
    # a script may do without a file that it does not need, a memory of checks say
    problems = [ended.fault((place.scenario.exit, REFUSED)), place.orphans(), place.half_written(expected.files)]
    problems += complete(place, expected)
    return [Finding(kind, place.scenario.name, how, problem) for problem in problems if problem]


def read_only_place(place: Place) -> list[Finding]:
    """Everything is on a file system that cannot be written to: the call is refused, and changes nothing."""
    place.lay()
    before = place.files()
    ended = place.world.process.run(replace(place.scenario.call(place.path), read_only=(".",)))
    problems = [ended.fault((REFUSED,)), place.differences(before)]
    return [Finding(READ_ONLY, place.scenario.name, "all of it", problem) for problem in problems if problem]


def read_only_inputs(place: Place, expected: Expected) -> list[Finding]:
    """The inputs, to which nothing is written, cannot be written to: the call does what it does anyway."""
    place.lay()
    given = dict(pairwise(place.scenario.argv))
    untouched = [
        name
        for name in place.scenario.inputs
        if name != given.get("--results_dir") and not _changes(place, expected, name)
    ]
    if not untouched:
        return []
    ended: Ended = place.world.process.run(replace(place.scenario.call(place.path), read_only=tuple(untouched)))
    problems = [ended.fault((place.scenario.exit,)) or place.differences(expected.files)]
    how = f"{', '.join(untouched)}"
    return [Finding(READ_ONLY, place.scenario.name, how, problem) for problem in problems if problem]


def _changes(place: Place, expected: Expected, name: str) -> bool:
    """Whether an undisturbed call writes to an input."""
    before = {file: content for file, content in place.files().items() if file.startswith(f"{name}{os.sep}")}
    after = {file: content for file, content in expected.files.items() if file.startswith(f"{name}{os.sep}")}
    return before != after


def sizes(generator: random.Random, expected: Expected, number: int) -> list[int]:
    """Limits below the largest file, from the smallest on."""
    return [0, *sorted(generator.randrange(1, max(2, expected.largest)) for _ in range(number - 1))][:number]


def can_mount() -> bool:
    """Whether this user may mount folders read-only in a name space of its own."""
    return os.geteuid() == 0
