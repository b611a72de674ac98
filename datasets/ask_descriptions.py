"""A task's descriptions asked of a language model until its answer is as asked for; every answer is kept."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets.description_request import DescriptionRequest, follow_up
from utils import __version__
from utils.chat import Answer, ChatModel
from utils.errors import Fault, UserError
from utils.files import write_json
from utils.whole_files import append_line, writing

ByClass = dict[str, dict[str, str]]  # {class: {term: explanation}}


def make_descriptions(chat: ChatModel, request: DescriptionRequest, attempts: int, output: Path) -> None:
    """Ask for the descriptions and write them to ``output``; the answers go to <output>.answers.jsonl beside it.

    attempts: answers asked for at most. Raises UserError where the file is there already, where the endpoint does not
    answer, and where all answers have faults.
    """
    kept = output.with_suffix(".answers.jsonl")
    _refuse_existing(output)
    with writing(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
    print(f"asking {chat.name} at {chat.base_url}")
    by_class = _ask(chat, request, attempts, kept)
    _refuse_existing(output)
    write_json(output, by_class)
    print(f"written: {output}\nanswers kept: {kept}\nnot reviewed: have a pathologist read them before use")


def _ask(chat: ChatModel, request: DescriptionRequest, attempts: int, kept: Path) -> ByClass:
    """The first answer without faults; the model is told the faults of the one before. One line for each answer is
    added to the file ``kept``."""
    prompt = {"role": "user", "content": request.prompt()}
    messages = [prompt]
    faults: list[Fault] = []
    for attempt in range(1, attempts + 1):
        record: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
        record |= {"base_url": chat.base_url, "model": chat.name, "parameters": chat.parameters}
        record |= {"messages": messages, "attempt": attempt}
        try:
            answer = chat.ask(messages, request.schema())
            record["with_schema"] = chat.takes_schemas
            record["body"] = answer.body
            by_class, faults = _read(answer, request)
            record["faults"] = list(map(str, faults))
        except UserError as error:
            record["failure"] = str(error)
            raise
        finally:
            append_line(kept, json.dumps(record))
        if not faults:
            return by_class
        print(f"answer {attempt} of {attempts} at most: {len(faults)} faults, such as: {faults[0]}")
        messages = [prompt, *_told(answer, faults)]
    found = f"{attempts} answers of {chat.name}, each with faults; nothing else was written. Those of the last follow"
    raise UserError([Fault("answer.faults", str(kept), found), *faults])


def _read(answer: Answer, request: DescriptionRequest) -> tuple[ByClass, list[Fault]]:
    """The descriptions of an answer, or what is wrong with it."""
    if answer.text is None:
        found = f"the endpoint sent no chat completion, but {answer.body[:200]!r}"
        return {}, [Fault("answer.no_completion", "", found)]
    try:
        return request.read_answer(answer.text), []
    except UserError as error:
        cut_off = Fault("answer.cut_off", "", "the answer was cut off at a length limit")
        return {}, [cut_off] * answer.cut_off + error.faults


def _told(answer: Answer, faults: Sequence[Fault]) -> list[dict[str, str]]:
    """The messages that follow a faulty answer."""
    if not answer.text:
        return []
    return [{"role": "assistant", "content": answer.text}, {"role": "user", "content": follow_up(faults)}]


def _refuse_existing(output: Path) -> None:
    if output.exists():
        mend = "move it away, or name another --LLM"
        raise UserError(Fault("prompt.exists", str(output), "is there already, and is never overwritten", mend=mend))
