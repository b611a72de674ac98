"""Let a language model guess the class from one description at a time, and count (the paper's Table 5)."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from utils.arguments import (
    Parser,
    add_chat_options,
    add_config_option,
    add_option,
    chat_parameters,
    check_magnifications,
)  # fmt: skip
from utils.errors import run_script
from utils.options import location, named_class, seed, words


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("descriptions", type=location, help="JSON file of {class: {term: explanation}}")
    add = partial(add_option, parser)
    add(
        "output", required=True, type=location, metavar="FILE.json",
        help="counts and what was missed; beside it FILE.csv, a row for each description, and FILE.answers.jsonl",
    )  # fmt: skip
    add("class-names", nargs="+", type=named_class, default=[], metavar="CLASS=NAME", help="full names for the prompt")
    add("order-seed", type=seed, default=1, metavar="N", help="of the order in which classes are named (default: 1)")
    add("model", required=True, type=words, help="the endpoint's name of the model that judges")
    add_chat_options(parser)
    for name in ("num_low_mag_texts", "num_high_mag_subtexts", "low_mag", "high_mag"):
        add_config_option(parser, name)
    options = parser.parse_args(argv)
    if options.output.suffix.casefold() != ".json":
        parser.error(f"--output {options.output}: expected a name that ends in .json")
    check_magnifications(parser, options)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.descriptions import read_descriptions
    from datasets.judge import judge_descriptions
    from datasets.judge_request import JudgeRequest
    from utils.chat import ChatModel
    from utils.errors import Fault, UserError
    from utils.files import file_sha256

    number = options.num_low_mag_texts
    texts = read_descriptions(options.descriptions, None, number, options.num_high_mag_subtexts)
    full_names = dict(options.class_names)
    if unknown := sorted(full_names.keys() - texts.by_class.keys()):
        where = f"--class-names {', '.join(unknown)}"
        raise UserError(Fault("option.value", where, f"no class of {options.descriptions}", ", ".join(texts.by_class)))
    classes = {name: full_names.get(name, name) for name in texts.by_class}
    request = JudgeRequest(classes, {"low": options.low_mag, "high": options.high_mag}, options.order_seed)
    digest = file_sha256(options.descriptions)
    chat = ChatModel(options.model, options.base_url, chat_parameters(options))
    judge_descriptions(
        chat, request, options.descriptions, digest, texts.by_class, number, options.attempts, options.output
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
