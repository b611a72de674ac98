"""A small campaign: every script killed three times, full and read-only disks, two at once, damage, strange options.

`make campaign` runs the long form; tests/campaign/ says what a trial is.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.campaign.calls import warm_process
from tests.campaign.campaign import Amounts, Campaign
from tests.campaign.mutations import READERS
from tests.campaign.places import Place
from tests.campaign.scenarios import scenarios
from tests.campaign.world import World, made_world

SEED = 1
KILLED = Amounts(kills=1, chained=3)
DISTURBED = Amounts(kills=1, chained=3, disks=1, read_only=True, pairs=1)
SCRIPTS = {
    "main, ABMIL": DISTURBED, "predict": KILLED, "explain": KILLED, "results_page": KILLED, "report_results": KILLED,
    "create_simulated_task": DISTURBED, "link, two workers": DISTURBED, "extract": DISTURBED, "check --fix": KILLED,
    "create_splits": DISTURBED, "create_dataset_csv, folder": KILLED, "create_dataset_csv, GDC": DISTURBED,
    "create_mil_task": KILLED, "create_text_prompt": DISTURBED, "fetch, features": DISTURBED, "fetch, weights": KILLED,
    "run_experiments": KILLED,
}  # fmt: skip
MUTATIONS = {"main, finished": 12, "main, stopped": 10, "predict": 4, "explain": 4, "report_results": 6, "link": 6,
             "create_splits": 8}  # fmt: skip
FUZZED = {"main": 60, "predict": 40, "explain": 30, "report_results": 20, "create_simulated_task": 50, "link": 50,
          "extract": 30, "create_splits": 80, "create_dataset_csv, folder": 40, "create_mil_task": 40,
          "create_text_prompt": 40, "run_experiments": 20}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        process = stack.enter_context(warm_process())
        yield stack.enter_context(made_world(tmp_path_factory.mktemp("world"), process))


def findings(world: World, folder: Path, name: str, amounts: Amounts) -> list[str]:
    """What the trials of a scenario found."""
    (scenario,) = scenarios(world, [name])
    campaign = Campaign(SEED)
    campaign.run(Place(world, scenario, folder), amounts)
    return list(map(str, campaign.counts.findings))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_is_disturbed_loses_nothing(world: World, tmp_path: Path, name: str) -> None:
    assert findings(world, tmp_path, name, SCRIPTS[name]) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_to_an_input_is_refused_or_harmless(world: World, tmp_path: Path, name: str) -> None:
    assert findings(world, tmp_path, name, Amounts(mutations=MUTATIONS[name])) == []


@pytest.mark.parametrize("name", FUZZED)
def test_strange_options_and_files_are_told(world: World, tmp_path: Path, name: str) -> None:
    assert findings(world, tmp_path, name, Amounts(fuzzed=FUZZED[name], seconds=20)) == []


def test_the_small_form_has_its_numbers(world: World) -> None:
    scripts = {scenario.script for scenario in scenarios(world)}
    assert {scenario.script for scenario in scenarios(world, list(SCRIPTS))} == scripts
    assert sum(MUTATIONS.values()) == 50 and sum(FUZZED.values()) == 500
    assert READERS.keys() <= {scenario.name for scenario in scenarios(world)}
