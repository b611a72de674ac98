"""Kills at events of the file system: what is there afterwards is whole, and the same call completes it."""

import random
from collections.abc import Sequence
from dataclasses import replace

from tests.campaign.events import LATEST, Disturbance
from tests.campaign.places import Finding, Place
from tests.campaign.trials import Expected, complete

KIND = "kill"


def a_kill(generator: random.Random, events: int) -> Disturbance:
    """A kill at an event, or shortly behind it."""
    delay = generator.choice([0.0, generator.uniform(0, LATEST)])
    return Disturbance(generator.randint(1, events), delay=delay)


def kill_and_complete(place: Place, expected: Expected, kills: Sequence[Disturbance]) -> list[Finding]:
    """Kill a scenario's call, look at what it left, and so on with the same call; then let it end, and compare what
    is there with what an undisturbed call leaves."""
    place.lay()
    scenario, process = place.scenario, place.world.process
    problems = []
    finished: dict[str, tuple[int, int]] = {}
    for kill in kills:
        ended = process.run(replace(scenario.call(place.path), disturbance=kill))
        if ended.code >= 0:  # the call had fewer events, or was complete
            problems.append(ended.fault((scenario.exit, 2) if scenario.once else (scenario.exit,)))
        problems += [place.orphans(), place.half_written(expected.files)]
        problems.append(_repeated(finished, place.finished(expected.files)))
        finished = place.finished(expected.files)
    problems += complete(place, expected)
    problems.append(_repeated(finished, place.finished(expected.files)))
    how = "killed at " + ", ".join(f"event {kill.event} and {1000 * kill.delay:.2f} ms" for kill in kills)
    return [Finding(KIND, scenario.name, how, problem) for problem in dict.fromkeys(problems) if problem]


def _repeated(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> str:
    repeated = [name for name, seen in before.items() if after.get(name) != seen]
    return f"written again though finished: {', '.join(repeated[:4])}" if repeated else ""
