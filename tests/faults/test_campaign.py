"""A small campaign: every script killed twice, full and read-only disks, two at once, damage, strange options.

It takes a minute. Full and read-only disks and two processes are tried on one script of each kind, and most
strange options on the quick scripts. `make campaign CAMPAIGN="--kills 3 --disks 1 --pairs 1 --mutations 50 --fuzz 500"`
tries all of them on every script, in some minutes, and `make campaign` is the long form; tests/campaign/ says what a
trial is.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.campaign.calls import warm_process
from tests.campaign.campaign import Amounts, Campaign
from tests.campaign.mutations import READERS
from tests.campaign.places import Place
from tests.campaign.scenarios import scenarios
from tests.campaign.stand_ins import BLANK_FIGURES
from tests.campaign.world import World, made_world

SEED = 1
KILLED = Amounts(kills=1, chained=2)
DISTURBED = Amounts(kills=1, chained=2, disks=1, read_only=True, pairs=1)
SCRIPTS = {
    "main, ABMIL": DISTURBED, "predict": KILLED, "explain": KILLED, "results_page": KILLED, "report_results": KILLED,
    "create_simulated_task": KILLED, "link, two workers": DISTURBED, "extract": KILLED, "check --fix": KILLED,
    "create_splits": DISTURBED, "create_dataset_csv, folder": KILLED, "create_dataset_csv, GDC": KILLED,
    "create_mil_task": KILLED, "create_text_prompt": KILLED, "fetch, features": DISTURBED, "fetch, weights": KILLED,
    "run_experiments": KILLED,
}  # fmt: skip
DRAWN = {"predict", "report_results"}
"""Their figures are blank where they are killed: to draw them takes longer than everything else."""
MUTATIONS = {"main, finished": 4, "main, stopped": 4, "predict": 2, "explain": 2, "report_results": 3, "link": 3,
             "create_splits": 4}  # fmt: skip
FUZZED = {"main": 5, "predict": 2, "explain": 2, "report_results": 1, "create_simulated_task": 16, "link": 4,
          "extract": 2, "create_splits": 9, "create_dataset_csv, folder": 9, "create_mil_task": 5,
          "create_text_prompt": 14, "run_experiments": 2}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        process = stack.enter_context(warm_process())
        yield stack.enter_context(made_world(tmp_path_factory.mktemp("world"), process))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a strange option makes lies in no folder of the project."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def findings(world: World, folder: Path, name: str, amounts: Amounts) -> list[str]:
    """What the trials of a scenario found."""
    (scenario,) = scenarios(world, [name])
    if amounts.kills and name in DRAWN:
        scenario = replace(scenario, arrange=BLANK_FIGURES)
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


def test_the_small_form_has_all_scripts(world: World) -> None:
    scripts = {scenario.script for scenario in scenarios(world)}
    assert {scenario.script for scenario in scenarios(world, list(SCRIPTS))} == scripts
    assert READERS.keys() <= {scenario.name for scenario in scenarios(world)}
