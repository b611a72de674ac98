"""What all trials share: the undisturbed call, and the call that completes what a disturbed one left."""

from dataclasses import dataclass

from tests.campaign.calls import REFUSED
from tests.campaign.places import Files, Place


@dataclass(frozen=True)
class Expected:
    """What an undisturbed call leaves, how many events of the file system it takes, and the largest file it writes."""

    files: Files
    events: int
    largest: int


def undisturbed(place: Place) -> Expected:
    """Make a scenario's call without a disturbance."""
    place.lay()
    before = place.files()
    ended = place.world.process.run(place.scenario.call(place.path))
    fault = ended.fault((place.scenario.exit,))
    assert not fault, f"{place.scenario.name} fails undisturbed: {fault}\n{ended.said}"
    files = place.files()
    written = [len(content) for name, content in files.items() if before.get(name) != content]
    return Expected(files, ended.events, max(written, default=0))


def complete(place: Place, expected: Expected) -> list[str]:
    """Make a scenario's call again: -> what is wrong then."""
    scenario = place.scenario
    is_there = scenario.once and not place.differences(expected.files)
    ended = place.world.process.run(scenario.call(place.path))
    fault = ended.fault((scenario.exit, REFUSED) if is_there else (scenario.exit,))
    problem = f"the call after it: {fault}" if fault else place.differences(expected.files)
    return [problem] if problem else []
