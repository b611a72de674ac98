"""Senseless options and damaged files for every script: it refuses with a message, or does what it should."""

import argparse
import contextlib
import importlib
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

from tests.campaign.calls import REFUSED
from tests.campaign.mutate import mutate
from tests.campaign.places import Finding, Place
from tests.campaign.scenarios import Scenario, for_fuzzing
from utils.options import path

KIND = "fuzz"
SHARE_OF_FILES = 0.4
MEMORY = 4 * 2**30
CHECKS = {"check_hierarchical_consistency", "create_splits", "run_experiments"}
"""Scripts that exit with 1 where they found faults."""
NUMBERS = ["0", "-1", "1e400", "9" * 400, "nan", "inf", "-inf", "1.5", "1e9", "0x10", "１", "1_000", "-0", "1e-320"]
NAMES = ["", " ", "..", ".", "../../evil", "a/b", "a\\b", "é", "e\u0301", "\udcff", "x" * 300, "-", "--", "=1", "%s",
         "{}", "a b", "$(x)", "CON", "*", "\u202e", "a\nb", "nan", "None", "True"]  # fmt: skip
PATHS = ["", " ", "nowhere", "nowhere/deeper", ".", "strange/folder", "strange/empty", "strange/noise",
         "strange/loop", "strange/dangling", "strange/null.json", "strange/table.csv", "x" * 300, "-",
         "a\nb"]  # fmt: skip
LARGE = "1000000000"
COUNTS_OF_WORK = {
    "max_epochs",
    "slides_per_class",
    "folds",
    "shots",
    "draws",
    "min_parents",
    "max_parents",
    "resamples",
}
"""Options whose large values ask for much work, and get it."""


class _Caught(Exception):  # noqa: N818
    pass


@cache
def options_of(script: str) -> tuple[argparse.Action, ...]:
    """The options of a script, as its parser knows them."""
    caught: list[argparse.ArgumentParser] = []

    def catch(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        caught.append(self)
        raise _Caught

    module = importlib.import_module(script)
    with mock.patch.object(argparse.ArgumentParser, "parse_args", catch), contextlib.suppress(_Caught):
        module.parse([])
    return tuple(action for action in caught[0]._actions if action.option_strings and action.dest != "help")


def strange_value(action: argparse.Action, generator: random.Random) -> str:
    if action.type in (Path, path):
        return generator.choice(PATHS)
    if action.dest not in COUNTS_OF_WORK and generator.random() < 0.1:
        return LARGE
    return generator.choice(generator.choice([NUMBERS, NAMES, list(map(str, action.choices or ["a"]))]))


def strange_argv(scenario: Scenario, generator: random.Random) -> tuple[list[str], str]:
    """The scenario's options with one or two of them strange: -> the options, and which are."""
    argv, changed = list(scenario.argv), []
    for _ in range(generator.choice([1, 1, 2])):
        action = generator.choice(options_of(scenario.script))
        name = action.option_strings[0]
        if action.nargs == 0:
            new = [name]
        else:
            count = (
                action.nargs if isinstance(action.nargs, int) else generator.choice([1, 1, 2]) if action.nargs else 1
            )
            new = [name, *(strange_value(action, generator) for _ in range(count))]
            new = [f"{name}={new[1]}"] if len(new) == 2 else new
        argv += new
        changed.append(" ".join(word[:60] for word in new))
    return argv, " ".join(changed)


def refused_by_the_parser(script: str, argv: Sequence[str]) -> bool:
    """Whether the parser of a script's options refuses them as it should, which takes no process to see."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            importlib.import_module(script).parse(list(argv))
    except SystemExit as stop:
        return stop.code == REFUSED and "error: " in told.getvalue()
    except Exception:  # the call shows it
        return False
    return False


def strange_files(folder: Path, generator: random.Random) -> None:
    """What PATHS names."""
    (folder / "folder").mkdir(parents=True)
    (folder / "empty").touch()
    (folder / "noise").write_bytes(generator.randbytes(1000))
    (folder / "null.json").write_text("null")
    (folder / "table.csv").write_text("case_id,slide_id\n")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")


def damaged_file(place: Place, generator: random.Random) -> str:
    """Damage one of a scenario's inputs: -> which, and how."""
    below = (file for name in place.scenario.inputs for file in (place.path / name).rglob("*"))
    file = generator.choice(sorted(file for file in below if file.is_file() and file.stat().st_size))
    return f"{file.relative_to(place.path)}: {mutate(file, generator)}"


def fuzz(place: Place, generator: random.Random, seconds: float) -> list[Finding]:
    """Make a call with strange options, or with a damaged file."""
    scenario = for_fuzzing(place.scenario)
    argv, how = strange_argv(scenario, generator)
    is_file = bool(scenario.inputs) and generator.random() < SHARE_OF_FILES
    if not is_file and refused_by_the_parser(scenario.script, argv):
        return []
    place.lay()
    strange_files(place.path / "strange", generator)
    if is_file:
        argv, how = list(scenario.argv), damaged_file(place, generator)
    beside = set(place.path.parent.iterdir())
    call = replace(scenario.call(place.path), argv=tuple(argv), memory=MEMORY, seconds=seconds)
    ended = place.world.process.run(call)
    allowed = (0, 2, 1) if scenario.script in CHECKS else (0, 2)
    problems = [ended.fault(allowed), place.orphans()]
    if new := set(place.path.parent.iterdir()) - beside:
        problems.append(f"wrote outside: {', '.join(sorted(file.name for file in new))}")
    return [Finding(KIND, scenario.name, how, problem) for problem in problems if problem]
