"""No option of any script takes a value that has no sense: each has a type of utils/options.py, with bounds."""

import argparse
import math

import pytest

from create_dataset_csv import separator
from tests.conftest import RunMain
from tests.support.parsers import SCRIPTS, parser_of
from utils import options
from utils.config import OPTIONS, Config
from utils.names import folder_name
from utils.options import Number

WORDS = {
    options.words, options.path, options.location, options.address, options.named_class, options.one_group,
    options.regular_expression, options.shard, folder_name, separator,
}  # fmt: skip
NO_NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "",
    " ",
    "1" + 400 * "0",
    "-1" + 400 * "0",
    "9" * 5000,
    "1e400",
    "many",
    "0x10",
    "\udce9",
]


def outward(bound: float, sign: int) -> float:
    """A number beyond a bound, by one or, where one is lost in rounding, by twice the bound's size."""
    return bound + sign if bound + sign != bound else bound + sign * abs(bound)


def actions(script: str) -> list[argparse.Action]:
    """Options and arguments that take a value."""
    return [action for action in parser_of(script)._actions if action.nargs != 0]


def taken(script: str, action: argparse.Action, values: list[str]) -> list[str]:
    """Those of the values that the parser takes, or refuses with more than a line, or without the option's name."""
    found = []
    for value in values:
        try:
            parser_of(script)._get_values(action, [value])  # as parse_args reads one value
            found.append(value)
        except argparse.ArgumentError as error:
            told = str(error)
            found += [told] if len(told) > 600 or argparse._get_action_name(action) not in told else []
    return found


def test_every_option_has_a_type_of_its_own() -> None:
    """Numbers have bounds; words are not empty; other options have choices, or are flags that may be spelt out."""
    types = {(script, argparse._get_action_name(action)): action for script in SCRIPTS for action in actions(script)}
    kinds = [action.type for action in types.values()]
    others = {
        name: action.type
        for name, action in types.items()
        if not isinstance(action.type, Number) and action.type not in WORDS and not action.choices
    }
    assert {name: kind for name, kind in others.items() if kind is not options.flag} == {}
    assert sum(isinstance(kind, Number) for kind in kinds) > 100 and sum(kind in WORDS for kind in kinds) > 100


@pytest.mark.parametrize("script", SCRIPTS)
def test_values_without_sense(script: str) -> None:
    """Numbers that are none or out of bounds, words that are empty or no text."""
    for action in actions(script):
        kind = action.type
        if isinstance(kind, Number):
            assert math.isfinite(kind.lowest) and math.isfinite(kind.highest) and kind.lowest < kind.highest
            beyond = [str(outward(kind.lowest, -1)), str(outward(kind.highest, 1))]
            assert taken(script, action, [*NO_NUMBERS, *beyond]) == []
            assert [kind(str(bound)) for bound in (kind.lowest, kind.highest)] == [kind.lowest, kind.highest]
        elif kind in WORDS:
            long = [300 * "x"] if kind in (options.path, options.location, folder_name) else []
            assert taken(script, action, ["", " ", "caf\udce9", *long]) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_defaults_are_within_bounds(script: str) -> None:
    given = [action for action in actions(script) if isinstance(action.type, Number)]
    numbers = [action for action in given if isinstance(action.default, int | float)]
    assert [action.type(str(action.default)) for action in numbers] == [action.default for action in numbers]
    for action in set(given) - set(numbers):
        if isinstance(action.default, list):
            assert [action.type(str(one)) for one in action.default] == action.default


@pytest.mark.parametrize("name", OPTIONS)
def test_defaults_of_training_are_within_bounds(name: str) -> None:
    assert OPTIONS[name].refuses(getattr(Config, name)) == ""


SIMULATED = [
    ["--width", "30"],
    ["--min-parents", "50", "--max-parents", "40"],
    ["--planted-share", "0.9", "--confounder-share", "0.2"],
    ["--slides-per-class", "8", "--shots", "5"],
    ["--classes", "9"],
    ["--folds", "0"],
    ["--strength", "nan"],
    ["--missing-child", "1"],
]


@pytest.mark.parametrize("given", SIMULATED, ids=" ".join)
def test_a_simulated_task_that_cannot_be(run_main: RunMain, tmp_path, given: list[str]) -> None:
    code, _, err = run_main(["--output-dir", str(tmp_path / "task"), *given], "create_simulated_task")
    assert code == 2 and given[0] in err
    assert not list((tmp_path / "task").glob("*.csv"))


@pytest.mark.parametrize(
    ("script", "given"),
    [
        ("main", ["--task", "t", "--data_root_dir", ".", "--k", "1000000000", "--dry_run"]),
        ("create_splits", ["--task", "t", "--k", "1000000000"]),
        ("run_experiments", ["--task", "t", "--data_root_dir", ".", "--k", "1000000000", "--dry_run"]),
        ("run_experiments", ["--task", "t", "--data_root_dir", ".", "--lr", "nan", "--dry_run"]),
    ],
)
def test_numbers_that_would_take_for_ever(run_main: RunMain, script: str, given: list[str]) -> None:
    code, out, err = run_main(given, script)
    assert (code, out) == (2, "") and ("is more than 1000" in err or "nan is not a finite number" in err)
