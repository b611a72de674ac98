"""A task's descriptions judged one by one by a language model; every answer is kept, and none is asked for twice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.judge_request import Description, JudgeRequest, counts, in_order
from utils import __version__
from utils.chat import Answer, ChatModel
from utils.errors import Fault, UserError
from utils.files import read_json, write_json, write_text
from utils.outputs import check_outputs
from utils.spreadsheets import csv_text
from utils.whole_files import append_line, writing
from utils.words import listed, quoted

NO_CLASS = ""
LONGEST_SAID = 200


@dataclass
class Judge:
    """A language model that judges, with what it answered before.

    attempts: answers asked for of one description at most. kept: the file of answers, one JSON object per line.
    settled: {(prompt, model, endpoint, parameters): (guess, what was said)} of descriptions that are judged.
    """

    chat: ChatModel
    request: JudgeRequest
    attempts: int
    kept: Path
    settled: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the answers that an earlier call left; a line that a killed one left unfinished is passed over."""
        if not self.kept.is_file():
            return
        content = self.kept.read_text(encoding="utf-8", errors="replace")
        if content and not content.endswith("\n"):
            append_line(self.kept, "")
        for line in content.splitlines():
            try:
                record = json.loads(line)
                if record["is_settled"]:
                    self.settled[_key(record)] = str(record["guess"]), str(record["said"])
            except (ValueError, LookupError, TypeError, RecursionError):
                continue

    def guess(self, description: Description) -> tuple[str, str, bool]:
        """The class that the model names, ``NO_CLASS`` where it names none; what it said; whether it was asked now.

        Raises UserError where the endpoint does not answer; what was answered before is kept.
        """
        prompt = {"role": "user", "content": self.request.prompt(description)}
        settings = {"base_url": self.chat.base_url, "model": self.chat.name, "parameters": self.chat.parameters}
        asked = {**settings, "messages": [prompt]}
        if known := self.settled.get(_key(asked)):
            return *known, False
        guess, said, messages = NO_CLASS, "", [prompt]
        for attempt in range(1, self.attempts + 1):
            answer = self.chat.ask(messages)
            guess, fault = self._read(answer)
            said = (answer.text or "")[-LONGEST_SAID:]
            settled = not fault or (attempt == self.attempts and answer.text is not None)
            record: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
            record |= {
                **settings,
                "messages": messages,
                "attempt": attempt,
                "body": answer.body,
                "guess": guess,
                "said": said,
            }
            record |= {"fault": str(fault) if fault else "", "is_settled": settled}
            append_line(self.kept, json.dumps(record))
            if not fault:
                break
            if answer.text is None and attempt == self.attempts:
                raise UserError(fault)
            told = [{"role": "assistant", "content": answer.text}] if answer.text else []
            messages = [prompt, *told, {"role": "user", "content": self.request.follow_up(fault)}] if told else [prompt]
        return guess, said, True

    def _read(self, answer: Answer) -> tuple[str, Fault | None]:
        if answer.text is None:
            found = f"the endpoint sent no chat completion, but {answer.body[:LONGEST_SAID]!r}"
            return NO_CLASS, Fault("answer.no_completion", self.chat.base_url, found)
        try:
            return self.request.read_answer(answer.text), None
        except UserError as error:
            cut_off = Fault("answer.cut_off", "", "the answer was cut off at a length limit")
            return NO_CLASS, cut_off if answer.cut_off else error.faults[0]


def _key(record: Mapping[str, Any]) -> str:
    """By what an answer is known again: the question, who was asked, and how."""
    first = record["messages"][0]["content"]
    return json.dumps([first, record["model"], record["base_url"], record["parameters"]], sort_keys=True)


def judge_descriptions(
    chat: ChatModel, request: JudgeRequest, source: Path, sha256: str, by_class: Mapping[str, Mapping[str, str]],
    num_low: int, attempts: int, output: Path,
) -> None:  # fmt: skip
    """Judge all descriptions; write ``output`` (JSON), the table beside it (.csv), and print the counts.

    The answers go to <output>.answers.jsonl at once, each; the same command goes on where an interrupted one stopped.
    source: the file of descriptions, sha256: its digest. Raises UserError where ``output`` holds the judgement of
    another file, model or setting, and where the endpoint does not answer.
    """
    table, kept = output.with_suffix(".csv"), output.with_suffix(".answers.jsonl")
    check_outputs(f"--output {output}", [output, table, kept], [source])
    asked: dict[str, Any] = {"descriptions": source.name, "sha256": sha256, "model": chat.name}
    asked |= {
        "base_url": chat.base_url,
        "parameters": chat.parameters,
        "classes": dict(request.classes),
        "seed": request.seed,
    }
    asked |= {"magnifications": dict(request.magnifications)}
    _refuse_another(output, asked)
    with writing(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
    print(f"{source}: judged by {chat.name} at {chat.base_url}")
    descriptions = in_order(by_class, num_low)
    judge = Judge(chat, request, attempts, kept)
    guesses = [judge.guess(description) for description in descriptions]
    if before := sum(not is_new for _, _, is_new in guesses):
        print(f"answered before: {before} of {len(guesses)}")
    rows = [
        {
            "magnification": f"{request.magnifications[one.scale]}x", "class": one.class_name,
            "term": one.term, "guess": guess, "is_correct": guess == one.class_name,
            "names_its_class": one.class_name in request.named_in(one),
            "classes_named": "; ".join(request.named_in(one)), "end_of_answer": " ".join(said.split()),
        }
        for one, (guess, said, _) in zip(descriptions, guesses, strict=True)
    ]  # fmt: skip
    told = {**asked, **_summary(descriptions, rows)}
    write_text(table, csv_text(pd.DataFrame(rows), index=False))
    write_json(output, told)
    print(f"{_told(told, request)}\nwritten: {output}, {table.name}; answers kept: {kept.name}")


def _summary(descriptions: Sequence[Description], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the paper prints, and beside it: what was missed, and where names gave a class away."""
    right = [bool(row["is_correct"]) for row in rows]
    fair = [bool(row["is_correct"]) for row in rows if not row["names_its_class"]]
    names = ("magnification", "class", "term", "guess", "end_of_answer")
    return {
        "correct": counts([one.scale for one in descriptions], right),
        "by_class": {
            name: {"correct": sum(row["is_correct"] for row in rows if row["class"] == name),
                   "of": sum(row["class"] == name for row in rows)}
            for name in dict.fromkeys(one.class_name for one in descriptions)
        },
        "without_class": sum(row["guess"] == NO_CLASS for row in rows),
        "naming_their_class": len(rows) - len(fair),
        "others": {"correct": sum(fair), "of": len(fair)},
        "missed": [{name: row[name] for name in names} for row in rows if not row["is_correct"]],
    }  # fmt: skip


def _told(told: Mapping[str, Any], request: JudgeRequest) -> str:
    """The counts in words: 30 of 32 (8 of 8 at 5x / 22 of 24 at 20x)."""
    both, low, high = (f"{told['correct'][part]['correct']} of {told['correct'][part]['of']}" for part in
                       ("both", "low", "high"))  # fmt: skip
    at = request.magnifications
    lines = [f"correct: {both} ({low} at {at['low']}x / {high} at {at['high']}x)"]
    for row in told["missed"]:
        guessed = row["guess"] or f"no class ({quoted(row['end_of_answer'])})"
        lines.append(f"  missed: {row['magnification']} {row['class']}, {row['term']!r}: guessed {guessed}")
    if number := told["naming_their_class"]:
        others = told["others"]
        lines.append(
            f"note: {number} descriptions name their own class, which gives it away (column names_its_class); of the "
            f"others {others['correct']} of {others['of']} are correct"
        )
    if number := told["without_class"]:
        lines.append(f"note: {number} descriptions got no answer with a class, and count as missed")
    return "\n".join(lines)


def _refuse_another(output: Path, asked: Mapping[str, Any]) -> None:
    """Raises UserError where a file is there that is not the judgement of the same question."""
    if not output.exists():
        return
    there = read_json(output, "judgement.unreadable", "a judgement that this script wrote")
    other = [name for name, value in asked.items() if not isinstance(there, dict) or there.get(name) != value]
    if other:
        found = f"holds another judgement, by {listed(other, quote=False)}"
        raise UserError(Fault("judgement.exists", str(output), found, mend="name another --output, or move it away"))
