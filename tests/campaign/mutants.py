"""Applies each mutant of mutants.yaml to a copy of the project and runs the tests that must see it: make mutants

    python -m tests.campaign.mutants --only HTCL bootstrap

The exit code is 1 where a mutant survives its tests, or where the tests fail without any.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("mutants.yaml")
UNSEEN = (".*", "demo", "simulation", "results", "__pycache__")
PASSED, FAILED = 0, 1  # exit codes of pytest


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


def outcome(copy: Path, tests: Sequence[str]) -> int:
    """pytest's exit code for some tests of a copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=variables, capture_output=True).returncode


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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="GROUP")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    mutants = [mutant for mutant in listed_mutants() if not options.only or mutant.group in options.only]
    not_killed = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:

        def run(number: int) -> None:
            copy = Path(shutil.copytree(PROJECT, Path(folder, str(number)), ignore=shutil.ignore_patterns(*UNSEEN)))
            for mutant, told in try_mutants(copy, mutants[number :: options.jobs]):
                print(f"{told}: {mutant.group}: {mutant.old.strip()}  ->  {mutant.new.strip()}", flush=True)
                not_killed.extend([mutant] if told != "killed" else [])

        list(pool.map(run, range(options.jobs)))
    print(f"{len(mutants)} mutants, {len(mutants) - len(not_killed)} killed")
    return int(bool(not_killed))


if __name__ == "__main__":
    sys.exit(main())
