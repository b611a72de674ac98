"""The scripts take the same thing under the same names, each spelt with - and with _."""

import pytest

from tests.conftest import RunMain, SimulatedTask
from tests.support.parsers import SCRIPTS, parser_of
from utils.arguments import ALIASES

# names that came to mean something else in one script before they were other names of an option
OTHERS = {("create_dataset_csv", "slides_dir"), ("create_text_prompt", "dataset_name")}


def options_of(script: str) -> dict[str, str]:
    """{name with its dashes: what the namespace calls it}, of all options of a script."""
    actions = parser_of(script)._actions
    return {name: action.dest for action in actions for name in action.option_strings if len(name) > 2}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_has_both_spellings(script: str) -> None:
    names = options_of(script)
    for name, dest in names.items():
        for spelling in (name[2:].replace("-", "_"), name[2:].replace("_", "-")):
            assert names[f"--{spelling}"] == dest


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_option_has_all_its_names(script: str) -> None:
    names = {(name.removeprefix("--").replace("-", "_"), dest) for name, dest in options_of(script).items()}
    for dest, aliases in ALIASES.items():
        if dest in options_of(script).values():
            assert {dest, *aliases} == {name for name, other in names if other == dest} | {
                alias for alias in aliases if (script, alias) in OTHERS
            }


def test_a_name_means_the_same_in_all_scripts() -> None:
    meanings: dict[str, set[str]] = {}
    for script in SCRIPTS:
        for name, dest in options_of(script).items():
            if (script, name.removeprefix("--").replace("-", "_")) not in OTHERS:
                meanings.setdefault(name, set()).add(dest)
    assert {name: dests for name, dests in meanings.items() if len(dests) > 1} == {}
    assert {"create_splits", "extract_features", "main", "predict", "run_experiments"} <= set(SCRIPTS)


def test_main_takes_the_other_names(simulated: SimulatedTask, run_main: RunMain, tmp_path) -> None:
    given = simulated.options(tmp_path, "--dry_run")
    other = {"--task": "--dataset-name", "--data_root_dir": "--dataset_root_path"}
    code, out, _ = run_main([other.get(word, word) for word in given])
    assert (code, out) == (0, run_main(given)[1])


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_dashes_are_no_value(script: str, run_main: RunMain) -> None:
    """argparse would make an empty list of them, whatever the option's type is."""
    for name, action in parser_of(script)._option_string_actions.items():
        if name.startswith("--"):
            code, _, err = run_main([f"{name}=--"], script)
            assert code == 2 and err.splitlines()[-1].endswith(f"argument {name}: expected a value, not --"), action
