"""What a language model that judges descriptions is asked, and which class its answer names.

The judge sees one description alone, and the names of the classes in an order that is drawn anew for each description
and does not depend on its class. The paper's Table 5 counts the right guesses; its prompt is not published.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import Fault, UserError
from utils.reasoning import without_reasoning
from utils.words import quoted

QUESTION = """One class of tissue is to be inferred from one description of what is seen in histopathology slides of it.

The classes:
{classes}

The description, of what is seen at {magnification}x magnification:
{description}

Which class does it describe? Choose one, also where you are not certain. End your answer with one JSON object on a \
line of its own, {{"class": "..."}}, that names the class exactly as it is written above{label}."""
FOLLOW_UP = """{fault}. End your answer with one JSON object on a line of its own, {{"class": "..."}}, that names one \
of: {classes}."""
KEY = "class"
SHORT = (
    3  # letters of a name up to which its case counts: EC is a class, "ec" or "A" at the start of a sentence is none
)
MARKS = " \t*_`\"'.,!()[]{}<>$"


@dataclass(frozen=True)
class Description:
    """One text of a task's descriptions. scale: low or high. term: its title. text: term and explanation."""

    class_name: str
    scale: str
    term: str
    text: str


def in_order(by_class: Mapping[str, Mapping[str, str]], num_low: int) -> list[Description]:
    """{class: {term: explanation}}, low ones first in each class, one after the other."""
    return [
        Description(name, "low" if place < num_low else "high", term, f"{term} : {explanation}")
        for name, entries in by_class.items()
        for place, (term, explanation) in enumerate(entries.items())
    ]


@dataclass(frozen=True)
class JudgeRequest:
    """How descriptions are judged.

    classes: {class: its full name, or the class again}. magnifications: by scale. seed: of the order of the classes.
    """

    classes: Mapping[str, str]
    magnifications: Mapping[str, int]
    seed: int

    def prompt(self, description: Description) -> str:
        """The question about one description, which holds nothing of the other ones."""
        generator = np.random.default_rng([self.seed, *description.text.encode()])
        names = generator.permutation(sorted(self.classes)).tolist()
        lines = [f"- {name}" if name == self.classes[name] else f"- {name}: {self.classes[name]}" for name in names]
        has_full_names = any(name != full for name, full in self.classes.items())
        return QUESTION.format(
            classes="\n".join(lines), magnification=self.magnifications[description.scale],
            description=description.text, label=", before the colon" if has_full_names else "",
        )  # fmt: skip

    def follow_up(self, fault: Fault) -> str:
        return FOLLOW_UP.format(fault=str(fault), classes=", ".join(sorted(self.classes)))

    def read_answer(self, text: str) -> str:
        """The class that an answer ends with: in its last JSON object of the asked form, else as its last line.

        Whatever is said before does not count, so a class that the reasoning only considers is none. A class may be
        given by its full name, in any case. Raises UserError where the answer names no class, or an unknown one.
        """
        text = without_reasoning(text)
        said = _last_of_form(text)
        if said is None:
            lines = [line for line in text.splitlines() if line.strip(MARKS)] or [""]
            said = lines[-1].rsplit(":", 1)[-1] if self._class_of(lines[-1]) is None else lines[-1]
        found = self._class_of(said) if isinstance(said, str) else None
        if found is None:
            expected = f"one of {', '.join(sorted(self.classes))}"
            raise UserError(Fault("answer.unknown_class", "", f"the answer names the class {quoted(said)}", expected))
        return found

    def named_in(self, description: Description) -> list[str]:
        """The classes that a description names, by label or full name, so that their names give it away."""
        return [
            name for name, full in self.classes.items() if any(_names(each, description.text) for each in {name, full})
        ]

    def _class_of(self, said: str) -> str | None:
        plain = " ".join(said.strip(MARKS).split()).casefold()
        pairs = self.classes.items()
        known = {each.casefold(): name for name, full in pairs for each in (f"{name}: {full}", full, name)}
        return known.get(plain)


def _names(name: str, text: str) -> bool:
    how = 0 if len(name) <= SHORT else re.IGNORECASE
    return bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, how))


def _last_of_form(text: str) -> Any:
    """The value under ``KEY`` of the last JSON object that has the key; None where there is none."""
    decoder = json.JSONDecoder()
    found = None
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, end = decoder.raw_decode(text, start)
            found = value.get(KEY, found)
        except (ValueError, RecursionError):
            pass
        start = text.find("{", end)
    return found


def counts(scales: Sequence[str], is_right: Sequence[bool]) -> dict[str, dict[str, int]]:
    """{scale: {correct, of}} for low, high and both together."""
    told = {}
    for name in ("low", "high", "both"):
        kept = [right for scale, right in zip(scales, is_right, strict=True) if name in (scale, "both")]
        told[name] = {"correct": sum(kept), "of": len(kept)}
    return told
