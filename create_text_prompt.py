"""Ask a language model for a task's descriptions, with the paper's prompt, until its answer is as asked for."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Config, add_option, at_least, folder_name, magnification
from utils.errors import UserError, run_script

if TYPE_CHECKING:
    from datasets.description_request import DescriptionRequest
    from utils.chat import Answer, ChatModel


def class_name(text: str) -> tuple[str, str]:
    """CLASS=full name -> the two."""
    label, equals, name = text.partition("=")
    if not (label and equals and name.strip()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected CLASS=full name")
    return label, name.strip()


def address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected http://... or https://...")
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)

    add = partial(add_option, parser)
    count: dict[str, Any] = {"type": at_least(1), "metavar": "N"}
    add("task", required=True, type=folder_name, help="name of the task")
    add("classes", required=True, nargs="+", metavar="CLASS", help="as the table of slides labels them")
    add("class-names", nargs="+", type=class_name, default=[], metavar="CLASS=NAME", help="full names for the prompt")
    add("dataset-name", help="name of the data set for the prompt (default: the task)")
    add("LLM", required=True, type=folder_name, help="folder to write to: text_prompt/HiVE_MIL/<LLM>/<task>.json")
    add("output", metavar="FILE", help="write to this file instead")
    add("model", help="the endpoint's name of the model (default: --LLM)")
    add("base-url", type=address, help="OpenAI-compatible endpoint (default: OPENAI_BASE_URL, else OpenAI's own)")
    add("temperature", type=at_least(0, float), metavar="T", help="sent where given")
    add("seed", type=int, metavar="N", help="sent where given; not every endpoint knows it")
    add("attempts", default=3, **count, help="answers asked for until one has no faults (default: 3)")
    add("num-low-mag-texts", default=Config.num_low_mag_texts, **count, help="low descriptions a class (default: 4)")
    add("num-high-mag-subtexts", default=Config.num_high_mag_subtexts, **count, help="high ones a low one (default: 3)")
    add("low-mag", type=magnification, default=Config.low_mag, metavar="N", help="default: 5")
    add("high-mag", type=magnification, default=Config.high_mag, metavar="N", help="default: 20")
    add("num-context-tokens", default=Config.num_context_tokens, **count, help="main.py's; they take room (default 16)")
    add("feature-extractor", help="whose text tower the length is checked with (default: CLIP's vocabulary and length)")
    add("vlm-path", help="its Hugging Face CLIP folder, CONCH pytorch_model.bin, or hub id")
    add("dry-run", action="store_true", help="print the prompt and ask nobody")
    options = parser.parse_args(argv)
    if len(set(options.classes)) < max(len(options.classes), 2):
        parser.error(f"--classes {' '.join(options.classes)}: expected two or more, each once")
    if unknown := [label for label, _ in options.class_names if label not in options.classes]:
        parser.error(f"--class-names {', '.join(unknown)}: not in --classes")
    if options.vlm_path and not options.feature_extractor:
        parser.error("--vlm_path: expected together with --feature_extractor")
    if not 0 < options.low_mag < options.high_mag:
        parser.error(f"--low-mag {options.low_mag} --high-mag {options.high_mag}: expected the first to be lower")
    return options


def build_request(options: argparse.Namespace) -> "DescriptionRequest":
    from datasets.description_request import DescriptionRequest, TokenLimit
    from models.text_length import token_limit
    from models.vlms import load_text_side

    tower = load_text_side(options.feature_extractor, options.vlm_path) if options.feature_extractor else None
    full_names = dict(options.class_names)
    return DescriptionRequest(
        options.dataset_name or options.task,
        {name: full_names.get(name, name) for name in options.classes},
        options.num_low_mag_texts,
        options.num_high_mag_subtexts,
        options.low_mag,
        options.high_mag,
        TokenLimit(*token_limit(tower, options.num_context_tokens)),
    )


def ask(chat: "ChatModel", request: "DescriptionRequest", attempts: int, kept: Path) -> dict[str, dict[str, str]]:
    """The first answer without faults; the model is told the faults of the one before.

    Every answer is added to the file ``kept``, a line each. Raises UserError where all have faults or none comes.
    """
    from datasets.description_request import follow_up
    from utils import __version__

    prompt = {"role": "user", "content": request.prompt()}
    messages = [prompt]
    faults: list[str] = []
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        for attempt in range(1, attempts + 1):
            record: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
            record |= {"base_url": chat.base_url, "model": chat.name, "parameters": chat.parameters}
            record |= {"messages": messages, "attempt": attempt}
            try:
                answer = chat.ask(messages)
                record["body"] = answer.body
                by_class, faults = read(answer, request)
                record["faults"] = faults
            except UserError as error:
                record["failure"] = str(error)
                raise
            finally:
                file.write(json.dumps(record) + "\n")
                file.flush()
            if not faults:
                return by_class
            print(f"answer {attempt} of {attempts} at most: {len(faults)} faults, such as: {faults[0]}")
            messages = [prompt]
            if answer.text:
                told = {"role": "user", "content": follow_up(faults)}
                messages += [{"role": "assistant", "content": answer.text}, told]
    found = f"{kept}: {attempts} answers of {chat.name}, each with faults; nothing else was written. Those of the last"
    raise UserError("\n  - ".join([f"{found} ({len(faults)}):", *faults]))


def read(answer: "Answer", request: "DescriptionRequest") -> tuple[dict[str, dict[str, str]], list[str]]:
    """The descriptions of an answer, or what is wrong with it."""
    if answer.text is None:
        return {}, [f"the endpoint sent no chat completion, but {answer.body[:200]!r}"]
    try:
        return request.read_answer(answer.text), []
    except UserError as error:
        return {}, ["the answer was cut off at a length limit"] * answer.cut_off + list(map(str, error.faults))


def refuse_existing(output: Path) -> None:
    if output.exists():
        raise UserError(f"{output}: is there already, and is never overwritten; move it away, or name another --LLM")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    request = build_request(options)
    if options.dry_run:
        print(request.prompt())
        return
    from utils.chat import ChatModel
    from utils.files import write_json

    output = Config(task=options.task, LLM=options.LLM, text_prompt=options.output).prompt_path()
    kept = output.with_suffix(".answers.jsonl")
    refuse_existing(output)
    given = {name: getattr(options, name) for name in ("temperature", "seed")}
    parameters = {name: value for name, value in given.items() if value is not None}
    chat = ChatModel(options.model or options.LLM, options.base_url, parameters)
    print(f"asking {chat.name} at {chat.base_url}")
    by_class = ask(chat, request, options.attempts, kept)
    refuse_existing(output)
    write_json(output, by_class)
    print(f"written: {output}\nanswers kept: {kept}\nnot reviewed: have a pathologist read them before use")


if __name__ == "__main__":
    sys.exit(run_script(main))
