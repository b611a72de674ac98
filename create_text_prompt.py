"""Ask a language model for a task's descriptions, with the paper's prompt, until its answer is as asked for."""

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
from utils.config import Config
from utils.errors import run_script
from utils.options import named_class, path, words


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)

    add = partial(add_option, parser)
    of_main = partial(add_config_option, parser)
    of_main("task", required=True, help="name of the task", aliases=())
    add("classes", required=True, nargs="+", type=words, metavar="CLASS", help="as the table of slides labels them")
    add("class-names", nargs="+", type=named_class, default=[], metavar="CLASS=NAME", help="full names for the prompt")
    add("title", aliases=("dataset-name",), type=words, help="what the prompt calls the data set (default: the task)")
    of_main("LLM", required=True, help="folder to write to: text_prompt/HiVE_MIL/<LLM>/<task>.json")
    add("output", type=path, metavar="FILE", help="write to this file instead")
    add("model", type=words, help="the endpoint's name of the model (default: --LLM)")
    add_chat_options(parser)
    for name in ("num_low_mag_texts", "num_high_mag_subtexts", "low_mag", "high_mag"):
        of_main(name)
    of_main("num_context_tokens", help="learned tokens in main.py's prompts; they take room (default: 16)")
    of_main(
        "feature_extractor", default=None,
        help="whose text tower the length is checked with (default: CLIP's vocabulary and length)",
    )  # fmt: skip
    of_main("vlm_path")
    add("dry-run", action="store_true", help="print the prompt and ask nobody")
    options = parser.parse_args(argv)
    if len(set(options.classes)) < max(len(options.classes), 2):
        parser.error(f"--classes {' '.join(options.classes)}: expected two or more, each once")
    if unknown := [label for label, _ in options.class_names if label not in options.classes]:
        parser.error(f"--class-names {', '.join(unknown)}: not in --classes")
    if options.vlm_path and not options.feature_extractor:
        parser.error("--vlm_path: expected together with --feature_extractor")
    check_magnifications(parser, options)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.description_request import DescriptionRequest, TokenLimit
    from models.text_length import token_limit
    from models.vlms import load_text_side

    tower = load_text_side(options.feature_extractor, options.vlm_path) if options.feature_extractor else None
    full_names = dict(options.class_names)
    request = DescriptionRequest(
        options.title or options.task, {name: full_names.get(name, name) for name in options.classes},
        options.num_low_mag_texts, options.num_high_mag_subtexts, options.low_mag, options.high_mag,
        TokenLimit(*token_limit(tower, options.num_context_tokens)),
    )  # fmt: skip
    if options.dry_run:
        print(request.prompt())
        return
    from datasets.ask_descriptions import make_descriptions
    from utils.chat import ChatModel

    output = Config(task=options.task, LLM=options.LLM, text_prompt=options.output).prompt_path()
    chat = ChatModel(options.model or options.LLM, options.base_url, chat_parameters(options))
    make_descriptions(chat, request, options.attempts, output)


if __name__ == "__main__":
    sys.exit(run_script(main))
