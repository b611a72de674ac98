"""How an option is declared: how the command line spells and reads it, and what it is."""

import argparse
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import urlsplit

Stage = Literal["training", "prediction", "explanation"]
STAGES: tuple[Stage, ...] = get_args(Stage)
TRAINING: tuple[Stage, ...] = ("training",)
OVER_SLIDES: tuple[Stage, ...] = ("training", "prediction")
"""Stages that go over many slides, one after the other."""
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of Linux
LONGEST_TOLD = 80
"""Characters of a value that a message quotes."""
Item = TypeVar("Item")
GIVEN = object()
"""In ``Option.unless``: any value but none."""


class Nature(Enum):
    """What an option is to a run."""

    NAME = "changes what is computed, and is part of the name of the run's folder"
    SETTING = "changes what is computed"
    SOURCE = "says where an input lies, or what is expected of it"
    MACHINE = "says how this machine does the work"
    CALL = "says which part of a run one call does, and where it writes"


@dataclass(frozen=True)
class Option:
    """What an option is.

    kind: its argparse type. readers: by stage, the models that read the option (None: all of them). unless: values of
    other options, each mapping of which takes the option's effect away. may_change: a trained model may be used with
    another value than it was trained with, though the option changes what is computed.
    """

    help: str
    kind: Callable[[str], Any]
    choices: tuple[str, ...] | None
    nature: Nature
    readers: Mapping[Stage, Collection[str] | None]
    unless: Sequence[Mapping[str, Any]]
    may_change: bool

    @property
    def is_path(self) -> bool:
        return self.kind is path

    def refuses(self, value: Any) -> str:
        """Why a value of the option's type, of a record or of code, is none that the command line takes; empty where it
        is one."""
        if self.choices and value is not None and value not in self.choices:
            return f"{value!r} is not among {', '.join(self.choices)}"
        return self.out_of_bounds(value)

    def out_of_bounds(self, value: Any) -> str:
        """As ``refuses``, of numbers alone."""
        why = self.kind.refuses(value) if isinstance(self.kind, Number) and value is not None else ""
        return f"{value} {why}" if why else ""

    def is_read(self, model_type: str, stage: Stage) -> bool:
        """Whether the model reads the option in that stage."""
        models = self.readers.get(stage, ())
        return models is None or model_type in models


def option(
    default: Any,
    text: str,
    kind: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    *,
    nature: Nature = Nature.SETTING,
    models: Collection[str] | None = None,
    stages: Collection[Stage] | Mapping[Stage, Collection[str] | None] = STAGES,
    unless: Sequence[Mapping[str, Any]] = (),
    may_change: bool = False,
) -> Any:
    """A field of a dataclass of options; see ``Option``. stages: those that read it or, where not the same models read
    it in all of them, {stage: models}."""
    readers = stages if isinstance(stages, Mapping) else dict.fromkeys(stages, models)
    told = Option(text, kind, tuple(choices) if choices else None, nature, readers, unless, may_change)
    return field(default=default, metadata={"option": told})


def switch(text: str, **more: Any) -> Any:
    """An option that is off by default."""
    return option(False, text, flag, **more)


# ---- argparse types --------------------------------------------------------------------------------------------------

MOST = 1_000_000
"""Of a count that nothing bounds more tightly."""
MOST_FOLDS = 1000
MOST_WORKERS = 1024
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Number:
    """An argparse type: a finite number not below ``lowest`` nor above ``highest``.

    kind: int or float. suffix: what may stand behind the number, as in 20x.
    """

    kind: type[int] | type[float]
    lowest: float
    highest: float
    suffix: str = ""

    def __call__(self, text: str) -> Any:
        try:
            value = self.kind(text.lower().removesuffix(self.suffix))
        except ValueError:
            expected = "an integer" if self.kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{shortened(text)!r} is not {expected}") from None
        if why := self.refuses(value):
            raise argparse.ArgumentTypeError(f"{shortened(text)} {why}")
        return value

    def refuses(self, value: float) -> str:
        """Why a number cannot be the option's value; empty where it can."""
        if isinstance(value, float) and not isfinite(value):
            return "is not a finite number"
        if value < self.lowest:
            return f"is less than {self.lowest}"
        return f"is more than {self.highest}" if value > self.highest else ""


@dataclass(frozen=True)
class GpuShare(Number):
    """An argparse type: a part of a GPU, or whole ones."""

    def refuses(self, value: float) -> str:
        whole = super().refuses(value)
        return whole or ("is neither a part of a GPU (0.25) nor whole ones" if value > 1 and value % 1 else "")


def at_least(lowest: float, kind: type[int] | type[float] = int, highest: float = MOST) -> Number:
    """An argparse type: a number not below ``lowest`` nor above ``highest``."""
    return Number(kind, lowest, highest)


def within(lowest: float, highest: float, kind: type[int] | type[float] = int) -> Number:
    """As ``at_least``, for bounds of the option's own."""
    return Number(kind, lowest, highest)


magnification = Number(int, 1, 160, suffix="x")
"""An argparse type: 5 or 5x."""
seed = Number(int, 0, LARGEST_SEED)
"""An argparse type: of a generator of random numbers."""
any_seed = Number(int, -(2**63), 2**63 - 1)
"""As ``seed``, where the generator takes any integer of 64 bits."""


def words(given: str) -> str:
    """An argparse type: words, in Unicode's form NFC."""
    if not given.strip():
        raise argparse.ArgumentTypeError("it is empty")
    if unfit := {sign for sign in given if not sign.isprintable()}:
        raise argparse.ArgumentTypeError(f"{shortened(given)!r} has {', '.join(map(ascii, sorted(unfit)[:3]))}")
    return unicodedata.normalize("NFC", given)


def path(given: str) -> str:
    """An argparse type: a file or folder; some name a hub id in its place."""
    if not given.strip():
        raise argparse.ArgumentTypeError("it is empty, expected the name of a file or folder")
    try:
        written = given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{given!a} is not UTF-8, so reports could not name it") from None
    if len(written) > LONGEST_PATH or any(len(name) > LONGEST_NAME for name in written.split(b"/")):
        raise argparse.ArgumentTypeError(f"{shortened(given)!r} is longer than names of files can be")
    return given


def location(given: str) -> Path:
    """An argparse type: ``path``, as a Path."""
    return Path(path(given))


def shortened(given: str) -> str:
    """A value for a message."""
    return given if len(given) <= LONGEST_TOLD else f"{given[:LONGEST_TOLD]}..."


def flag(text: str) -> bool:
    """The value behind a flag, for those who write ``--early_stopping True``."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{shortened(text)!r} is neither true nor false")
    return values[text.lower()]


def named_class(given: str) -> tuple[str, str]:
    """An argparse type: CLASS=full name -> the two."""
    label, equals, name = words(given).partition("=")
    if not (label and equals and name.strip()):
        raise argparse.ArgumentTypeError(f"{shortened(given)!r}: expected CLASS=full name")
    return label, name.strip()


def address(given: str) -> str:
    """An argparse type: the address of a server."""
    try:
        parts = urlsplit(given)
        is_whole = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and given.isprintable()
        )
    except ValueError:
        is_whole = False
    if not is_whole or " " in given:
        raise argparse.ArgumentTypeError(f"{shortened(given)!r}: expected http://... or https://...")
    return given


class Shard(NamedTuple):
    """Part ``number`` (from 1) of ``parts``, written 3/16."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    def part(self, items: Sequence[Item]) -> list[Item]:
        """Every ``parts``-th of the items, from the ``number``-th on; all parts together are all items."""
        return list(items[self.number - 1 :: self.parts])


def shard(given: str) -> Shard:
    """An argparse type: 3/16 -> the third part of sixteen."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", given, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{shortened(given)!r}: expected K/N, with K from 1 to N, as 3/16")
    return Shard(int(found[1]), int(found[2]))


def regular_expression(pattern: str) -> str:
    """An argparse type: a regular expression that is no blank and UTF-8."""
    if not pattern.strip():
        raise argparse.ArgumentTypeError("it is empty")
    try:
        pattern.encode()
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise argparse.ArgumentTypeError(f"{shortened(pattern)!r} is no regular expression ({error})") from error
    return pattern


def one_group(pattern: str) -> str:
    """An argparse type: a regular expression whose one group is the patient."""
    groups = re.compile(regular_expression(pattern)).groups
    if groups != 1:
        raise argparse.ArgumentTypeError(f"{pattern!r} has {groups} groups, expected one, the patient: '^([^_]+)_'")
    return pattern
