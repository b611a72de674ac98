"""How an option is declared: how the command line spells and reads it, and what it is."""

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf, isfinite
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

Stage = Literal["training", "prediction", "explanation"]
STAGES: tuple[Stage, ...] = get_args(Stage)
TRAINING: tuple[Stage, ...] = ("training",)
OVER_SLIDES: tuple[Stage, ...] = ("training", "prediction")
"""Stages that go over many slides, one after the other."""
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


def path(text: str) -> str:
    """A file or folder; some name a hub id in its place."""
    return text


def magnification(text: str) -> int:
    """5 or 5x -> 5."""
    return int(text.lower().removesuffix("x"))


def flag(text: str) -> bool:
    """The value behind a flag, for those who write ``--early_stopping True``."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def at_least(lowest: float, kind: type = int, highest: float = inf) -> Any:
    """An argparse type: a number not below ``lowest`` nor above ``highest``."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not a finite number")
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        if value > highest:
            raise argparse.ArgumentTypeError(f"{text} is more than {highest}")
        return value

    parse.__name__ = kind.__name__
    return parse


def named_class(text: str) -> tuple[str, str]:
    """An argparse type: CLASS=full name -> the two."""
    label, equals, name = text.partition("=")
    if not (label and equals and name.strip()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected CLASS=full name")
    return label, name.strip()


def address(text: str) -> str:
    """An argparse type: the address of a server."""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of the port, or of an IPv6 address
        is_one = False
    if not is_one or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r}: expected http://... or https://...")
    return text


def one_group(pattern: str) -> str:
    """An argparse type: a regular expression whose one group is the patient."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{pattern!r} is no regular expression ({error})") from error
    if groups != 1:
        raise argparse.ArgumentTypeError(f"{pattern!r} has {groups} groups, expected one, the patient: '^([^_]+)_'")
    return pattern
