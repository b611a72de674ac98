"""How the scripts take options: under the same names and spellings everywhere."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from utils.config import OPTIONS, Config
from utils.names import folder_name
from utils.options import address, any_seed, at_least, flag, location, path, within, words
from utils.redaction import redacted

MOST_ATTEMPTS = 100
HOTTEST = 100  # endpoints have bounds of their own, mostly 2
ALIASES = {
    "task": ("dataset_name",),
    "data_root_dir": ("dataset_root_path",),
    "feature_extractor": ("feature_extractor_name",),
    "wsi_dir": ("slides_dir",),
}
"""Other names of an option, in every script that takes it."""


class Parser(argparse.ArgumentParser):
    """The parser of a script; what the parser says of a faulty command line holds no passwords, keys and tokens."""

    def __init__(self, **settings: Any):
        super().__init__(**{"allow_abbrev": False, **settings})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuses ``--name=--``, of which argparse makes an empty list, whatever the option's type is."""
        given = sys.argv[1:] if args is None else list(args)
        for word in given[: given.index("--") if "--" in given else None]:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word.removesuffix('=--')}: expected a value, not --")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        super().error(redacted(message))


def add_option(
    parser: argparse._ActionsContainer, name: str, *, aliases: Sequence[str] | None = None, **settings: Any
) -> None:
    """One option, spelt with - and with _, under all its names; the namespace has it under ``name`` with _.

    aliases: in place of those of ``ALIASES``. settings: as ``add_argument`` takes them.
    """
    dest = name.replace("-", "_")
    names = [name, *(ALIASES.get(dest, ()) if aliases is None else aliases)]
    spelt = [f"--{one}" for main in names for one in (main, main.replace("_", "-"), main.replace("-", "_"))]
    parser.add_argument(*dict.fromkeys(spelt), dest=dest, **settings)


def add_config_option(parser: argparse._ActionsContainer, name: str, **changes: Any) -> None:
    """An option of main.py, for another script too. changes: what is other there, as ``add_argument`` takes it."""
    told, default = OPTIONS[name], getattr(Config, name)
    metavar = {str: "NAME", folder_name: "NAME", words: "NAME", path: "PATH", flag: "BOOL"}.get(told.kind, "N")
    settings: dict[str, Any] = {"type": told.kind, "default": default, "help": told.help}
    if told.kind is flag:
        settings |= {"nargs": "?", "const": True}
    if told.choices:
        metavar = "{" + ",".join(told.choices) + "}"
        settings["choices"] = told.choices
    if default not in (None, "", False) and not changes.get("required"):
        settings["help"] += f" (default: {default})"
    settings = {**settings, "metavar": metavar, **changes}
    add_option(parser, name, **{**settings, "help": settings["help"].replace("%", "%%")})


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add every option. What is not given stays out of the namespace."""
    for name in OPTIONS:
        add_config_option(parser, name, default=argparse.SUPPRESS)


def add_folder_options(parser: argparse._ActionsContainer) -> None:
    """The options by which the preprocessing scripts name a task's feature folders."""
    add = partial(add_config_option, parser)
    add("data_root_dir", type=location, required=True)
    add("task", required=True, help="name of the task")
    add("feature_extractor", required=True, help="a published model, or the name of another")
    add("low_mag")
    add("high_mag")


def add_labels_optional(parser: argparse._ActionsContainer) -> None:
    """The option by which the scripts that use a trained run pass over labels that are no class of the run."""
    add_option(
        parser, "labels-optional", action="store_true",
        help="count a slide whose label is no class of the run (unknown, NA) as unlabelled, as one with a blank label "
        "always is; without this option such labels are refused",
    )  # fmt: skip


def add_chat_options(parser: argparse._ActionsContainer) -> None:
    """The options by which a language model is asked: its endpoint, what is sent with each request, and how often. The
    option that names the model is the script's own."""
    add = partial(add_option, parser)
    add("base-url", type=address, help="OpenAI-compatible endpoint (default: OPENAI_BASE_URL, else OpenAI's own)")
    add("temperature", type=at_least(0, float, HOTTEST), metavar="T", help="sent where given")
    add("seed", type=any_seed, metavar="N", help="sent where given; not every endpoint knows it")
    add(
        "attempts", default=3, type=within(1, MOST_ATTEMPTS), metavar="N",
        help="answers asked for until one has no faults (default: 3)",
    )  # fmt: skip


def chat_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What ``add_chat_options`` sends with each request."""
    given = {name: getattr(options, name) for name in ("temperature", "seed")}
    return {name: value for name, value in given.items() if value is not None}


def check_magnifications(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse a magnification of the children that is not above that of the parents."""
    if not 0 < options.low_mag < options.high_mag:
        parser.error(f"--low_mag {options.low_mag} --high_mag {options.high_mag}: expected the first to be lower")
