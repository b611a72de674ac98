"""Two calls at once in one folder: both end well, or one is told of the other; the results are as of one."""

from dataclasses import replace

from tests.campaign.calls import REFUSED
from tests.campaign.places import Finding, Place
from tests.campaign.trials import Expected, complete

KIND = "two processes"


def two_at_once(place: Place, expected: Expected, delay: float) -> list[Finding]:
    """The second call starts ``delay`` seconds after the first."""
    place.lay()
    scenario = place.scenario
    first, second = scenario.call(place.path), replace(scenario.call(place.path), after=delay)
    ended = place.world.process.run_at_once(first, second)
    problems = [f"call {number}: {fault}" for number, one in enumerate(ended, 1)
                if (fault := one.fault((scenario.exit, REFUSED)))]  # fmt: skip
    if all(one.code == REFUSED for one in ended):
        problems.append("both were refused")
    problems += [place.orphans(), place.half_written(expected.files), *complete(place, expected)]
    return [Finding(KIND, scenario.name, f"{delay:.2f} s apart", problem) for problem in problems if problem]
