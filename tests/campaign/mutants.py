"""Applies each mutant of mutants.yaml to a copy of the project and runs the tests that must see it: make mutants

    python -m tests.campaign.mutants --only HTCL bootstrap

The exit code is 1 where a mutant survives its tests, or where the tests fail without any.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("mutants.yaml")
UNSEEN = (".*", "demo", "simulation", "results", "__pycache__")
PASSED, FAILED = 0, 1  # exit codes of pytest
LIBRARIES = (
    "utils.torchvision_compat", "torch", "torch_geometric", "transformers", "open_clip", "pandas", "h5py",
    "sklearn.metrics", "scipy.stats", "statsmodels.stats.multitest", "hypothesis",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """old: a text that stands once in ``file``; new: what takes its place. tests: files, one of which must fail."""

    group: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def source(self) -> str:
        """The mutated file's content. Raises ValueError where ``old`` does not stand there once."""
        text = (PROJECT / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.old!r} stands there {text.count(self.old)} times, expected once")
        return text.replace(self.old, self.new)


def listed_mutants() -> list[Mutant]:
    groups = yaml.safe_load(LISTED.read_text(encoding="utf-8"))
    return [
        Mutant(name, group["file"], old, new, tuple(group["tests"]))
        for name, group in groups.items()
        for old, new in group["mutants"]
    ]


def import_libraries() -> None:
    """What takes longest of a run of tests: it is done once, and the runs are forked from here."""
    for name in LIBRARIES:
        importlib.import_module(name)


def outcome(copy: Path, tests: Sequence[str]) -> int:
    """pytest's exit code for some tests of a copy, run in a fork of this process."""
    pid = os.fork()
    if pid == 0:
        try:
            code = _run_tests(copy, tests)
        except BaseException:
            code = 70
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run_tests(copy: Path, tests: Sequence[str]) -> int:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.chdir(copy)
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry not in ("", str(PROJECT)))]
    ours = {file.stem for file in PROJECT.glob("*.py")} | {file.parent.name for file in PROJECT.glob("*/__init__.py")}
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


def try_mutants(copy: Path, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Run each mutant's tests in a copy of its own: -> killed, survived, or why neither can be told."""
    for tests in dict.fromkeys(mutant.tests for mutant in mutants):
        mine = [mutant for mutant in mutants if mutant.tests == tests]
        if (code := outcome(copy, tests)) != PASSED:
            yield from ((mutant, f"its tests end with {code} without it") for mutant in mine)
            continue
        for mutant in mine:
            file = copy / mutant.file
            original = file.read_bytes()
            file.write_text(mutant.source(), encoding="utf-8")
            code = outcome(copy, tests)
            file.write_bytes(original)
            yield mutant, {PASSED: "survived", FAILED: "killed"}.get(code, f"pytest ended with {code}")


def try_in_a_copy(mutants: Sequence[Mutant]) -> int:
    """Tell of each mutant how it ended; returns how many were killed."""
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(PROJECT, Path(folder, "project"), ignore=shutil.ignore_patterns(*UNSEEN)))
        for mutant, told in try_mutants(copy, mutants):
            print(f"{told}: {mutant.group}: {mutant.old.strip()}  ->  {mutant.new.strip()}", flush=True)
            killed += told == "killed"
    return killed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="GROUP")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    mutants = [mutant for mutant in listed_mutants() if not options.only or mutant.group in options.only]
    shares = [mutants[number :: options.jobs] for number in range(options.jobs)]
    os.environ["OMP_NUM_THREADS"] = "1"
    import_libraries()
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork")) as pool:
        killed = sum(pool.map(try_in_a_copy, shares))
    print(f"{len(mutants)} mutants, {killed} killed")
    return int(killed < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
