"""What a language model is asked for a task's descriptions, and whether its answer is as asked for.

The answer is nested, class -> low features -> their high sub-features, so that which belongs to which is explicit; it
is laid out as datasets/descriptions.py reads it.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.descriptions import TEXT_FORMATS
from utils.errors import Fault, UserError
from utils.files import without_doubles
from utils.reasoning import without_reasoning

# the paper's prompt; its numbers and magnifications are options here
TEMPLATE = (
    "The task is to summarize the morphological features of the {dataset_name} dataset for the classes {class_names} "
    "classes. For each class, list {num_low} representative morphological features observed at {low_mag}x "
    "magnification, followed by {num_subtexts} finer sub-features observed at {high_mag}x magnification for each. Each "
    "description should include the morphological term along with an explanation of its defining visual features."
)
FORM = """
Answer with one JSON object and nothing else, of this form:

{{
  {first_class}: [
    {{"term": "...", "explanation": "...", "sub_features": [{{"term": "...", "explanation": "..."}}, ...]}},
    ...
  ],
  ...
}}

Its keys are the classes, written exactly so: {classes}. Each class has a list of {num_low} features ({low_mag}x), \
each feature a list of {num_subtexts} sub-features ({high_mag}x) that are seen within it. A term has two to four \
words; a term and its explanation together have at most {most_words} words. No term stands twice in a class, no \
explanation twice anywhere."""
FOLLOW_UP = """Your answer has these faults:

{faults}

Answer again, with the whole corrected JSON object and nothing else."""
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TOKENS_PER_WORD = 2  # of medical English in CLIP's vocabulary, generously

Entries = list[tuple[str, str]]


@dataclass(frozen=True)
class TokenLimit:
    """count: the tokens that a description takes. most: how many fit the text tower behind the context tokens."""

    count: Callable[[str], int]
    most: int


@dataclass(frozen=True)
class DescriptionRequest:
    """Which descriptions are wanted.

    classes: {class: its full name, or the class again}. num_low: O low descriptions a class. num_subtexts: S high
    ones a low one. low_mag, high_mag: magnifications.
    """

    dataset_name: str
    classes: Mapping[str, str]
    num_low: int
    num_subtexts: int
    low_mag: int
    high_mag: int
    limit: TokenLimit

    def prompt(self) -> str:
        """The published prompt, and the form of the answer."""
        names = [name if full == name else f"{full} ({name})" for name, full in self.classes.items()]
        numbers = {"low_mag": self.low_mag, "high_mag": self.high_mag}
        task = TEMPLATE.format(
            dataset_name=self.dataset_name, class_names=", ".join(names), num_low=in_words(self.num_low),
            num_subtexts=in_words(self.num_subtexts), **numbers,
        )  # fmt: skip
        keys = [json.dumps(name, ensure_ascii=False) for name in self.classes]
        form = FORM.format(
            first_class=keys[0], classes=", ".join(keys), num_low=self.num_low, num_subtexts=self.num_subtexts,
            most_words=max(self.limit.most // TOKENS_PER_WORD, 1), **numbers,
        )  # fmt: skip
        return f"{task}\n{form}"

    def schema(self) -> dict[str, Any]:
        """The form of the answer as a JSON schema, strict as OpenAI's endpoint wants it."""
        texts = {"term": {"type": "string"}, "explanation": {"type": "string"}}
        feature = _object({**texts, "sub_features": _list(_object(texts), self.num_subtexts)})
        return _object({name: _list(feature, self.num_low) for name in self.classes})

    def read_answer(self, text: str) -> dict[str, dict[str, str]]:
        """{class: {term: explanation}} in the order of the request: O low ones, then S high ones for each.

        Raises UserError with every fault of the answer, in words that the model understands.
        """
        answer = find_object(text, list(self.classes))
        unknown = [name for name in answer if name not in self.classes]
        faults = [
            Fault("answer.unknown_class", "", f"unknown class {name!r}", str([*self.classes])) for name in unknown
        ]
        entries = {}
        for name in self.classes:
            if name in answer:
                entries[name] = self._flatten(f"class {name!r}", answer[name], faults)
            else:
                faults.append(Fault("answer.missing_class", "", f"class {name!r} is missing"))
        faults += description_faults(entries, self.limit)
        if faults:
            raise UserError(faults)
        return {name: dict(pairs) for name, pairs in entries.items()}

    def _flatten(self, where: str, features: Any, faults: list[Fault]) -> Entries:
        low: Entries = []
        high: Entries = []
        for place, feature in numbered(features, self.num_low, where, "features", faults):
            here = f"{where}, feature {place}"
            low += entry(here, feature, faults)
            children = feature.get("sub_features") if isinstance(feature, dict) else None
            for number, child in numbered(children, self.num_subtexts, here, "sub_features", faults):
                high += entry(f"{here}, sub-feature {number}", child, faults)
        return low + high


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object that has these properties and no others."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _list(items: dict[str, Any], number: int) -> dict[str, Any]:
    """The JSON schema of a list of so many items."""
    return {"type": "array", "items": items, "minItems": number, "maxItems": number}


def numbered(items: Any, expected: int, where: str, kind: str, faults: list[Fault]) -> list[tuple[int, Any]]:
    """A list's items with their places from 1; a fault where it is no list, or one of another length."""
    if not isinstance(items, list):
        faults.append(Fault("answer.form", where, f"found a {type(items).__name__}", f"a list of {expected} {kind}"))
        return []
    if len(items) != expected:
        faults.append(Fault("answer.number", where, f"found {len(items)} {kind}", str(expected)))
    return list(enumerate(items, start=1))


def entry(where: str, item: Any, faults: list[Fault]) -> Entries:
    """An item's term and explanation, white space made plain; nothing and a fault where one of them is no text."""
    values = [item.get("term"), item.get("explanation")] if isinstance(item, dict) else []
    texts = [" ".join(value.split()) for value in values if isinstance(value, str) and value.strip()]
    if len(texts) < 2:
        expected = "an object with a term and an explanation, neither of them empty"
        faults.append(Fault("answer.form", where, f"found a {type(item).__name__}", expected))
        return []
    return [(texts[0], texts[1])]


def find_object(text: str, keys: Sequence[str]) -> dict[str, Any]:
    """The JSON object with at least one of the keys, within whatever else the text says (reasoning, Markdown, a
    preamble), or else the object with all of the keys that another one wraps.

    Raises UserError where there is none, or more than one.
    """
    said, text = text, without_reasoning(text)
    decoder = json.JSONDecoder(object_pairs_hook=without_doubles)
    found: list[dict[str, Any]] = []
    others: list[Any] = []
    problem = "it holds none"
    if not text.strip():
        problem = "it holds reasoning alone" if said.strip() else "it is empty"
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, end = decoder.raw_decode(text, start)
            (others if value.keys().isdisjoint(keys) else found).append(value)
        except ValueError as error:
            if problem == "it holds none":
                problem = str(error)
        except RecursionError:
            raise UserError(Fault("answer.form", "", "the answer is nested too deeply")) from None
        start = text.find("{", end)
    found = found or _wrapped(others, keys)
    if len(found) == 1:
        return found[0]
    number = f"found {len(found)}" if found else f"found none: {problem}"
    raise UserError(Fault("answer.form", "", number, expected=f"one JSON object with the keys {list(keys)}"))


def _wrapped(values: Sequence[Any], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects within some values that have all of the keys; of an object that is found, none within it."""
    found, inner = [], list(values)
    while inner:
        value = inner.pop(0)
        if isinstance(value, dict) and value.keys() >= set(keys):
            found.append(value)
        elif isinstance(value, dict | list):
            inner += value.values() if isinstance(value, dict) else value
    return found


def description_faults(entries: Mapping[str, Sequence[tuple[str, str]]], limit: TokenLimit) -> list[Fault]:
    """What is wrong with the texts of {class: [(term, explanation)]}: characters that are not printable, a term twice
    in a class, an explanation twice anywhere (both whatever their case), a description that the text tower cuts."""
    faults: list[Fault] = []
    first: dict[str, str] = {}  # explanation -> where it stood first
    for name, pairs in entries.items():
        terms = Counter(term.casefold() for term, _ in pairs)
        for term, number in terms.items():
            if number > 1:
                found = f"the term {term!r} stands {number} times"
                faults.append(Fault("answer.repeated", f"class {name!r}", found))
        for term, explanation in pairs:
            where = f"class {name!r}, {term!r}"
            if not (term + explanation).isprintable():
                faults.append(Fault("answer.unprintable", where, "found characters that are not printable"))
            earlier = first.setdefault(explanation.casefold(), where)
            if earlier != where:
                faults.append(Fault("answer.repeated", where, f"the same explanation as {earlier}"))
            tokens = limit.count(TEXT_FORMATS["both"].format(term=term, explanation=explanation))
            if tokens > limit.most:
                long = f"{tokens} tokens long"
                faults.append(Fault("answer.long", where, long, f"at most {limit.most}", "shorten the explanation"))
    return faults


def follow_up(faults: Sequence[Fault]) -> str:
    """What a model is told of its faulty answer."""
    return FOLLOW_UP.format(faults="\n".join(f"- {fault}" for fault in faults))


def in_words(number: int) -> str:
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)
