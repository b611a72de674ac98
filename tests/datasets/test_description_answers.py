"""Answers within reasoning and wrappers, and the JSON schema of an answer."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from datasets.description_request import DescriptionRequest, TokenLimit
from tests.support.description_answers import FLAT, GOOD, answer
from tests.support.faults import expect_faults

REQUEST = DescriptionRequest("DATA", {"A": "A", "B": "B"}, 4, 3, 5, 20, TokenLimit(lambda text: len(text.split()), 12))


@pytest.mark.parametrize(
    "text",
    [
        f"<think>A draft: {GOOD}, or {GOOD}</think>{GOOD}",
        f"A draft: {GOOD}\n</think>\n{GOOD}",
        f'<think>{{"A": []}}</think>\n```json\n{GOOD}\n```',
        f'{{"DATA": {GOOD}}}',
        f'{{"result": {{"classes": [{GOOD}], "number": 2}}}}',
        f'{{"note": {{"A": 1}}, "answer": {GOOD}}}',
        f"[{GOOD}]",
        f'<think>{GOOD}</think>{{"answer": {GOOD}}}',
        f"```json\n[THINK]{GOOD}[/THINK]\n{GOOD}```",
    ],
    ids=[
        *("drafts", "a draft closed alone", "a draft of a part", "wrapped", "wrapped twice", "beside a part"),
        *("in a list", "a draft, and wrapped", "other marks"),
    ],
)  # fmt: skip
def test_the_answer_is_found_behind_drafts_and_in_wrappers(text: str) -> None:
    assert REQUEST.read_answer(text) == FLAT


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f'{{"draft": {GOOD}, "final": {GOOD}}}', "found 2"),
        (f"{GOOD} or {GOOD}", "found 2"),
        (f"<think>{GOOD}", "found none: it holds reasoning alone"),
        (f"<think>{GOOD}</think>\n", "found none: it holds reasoning alone"),
        (f"<think>{GOOD}</think>\nI am done.", "found none: it holds none"),
    ],
)
def test_what_is_no_single_answer(text: str, found: str) -> None:
    with expect_faults("answer.form") as faults:
        REQUEST.read_answer(text)
    assert faults[0].found == found


def test_the_schema_is_the_form_that_is_asked_for() -> None:
    """Every object is closed and all its properties are required, as strict schemas must be."""
    schema = REQUEST.schema()
    by_class = schema["properties"]["B"]
    feature = by_class["items"]
    sub_features = feature["properties"]["sub_features"]
    assert (by_class["minItems"], by_class["maxItems"]) == (4, 4)
    assert (sub_features["minItems"], sub_features["maxItems"]) == (3, 3)
    for one, names in (
        (schema, ["A", "B"]),
        (feature, ["term", "explanation", "sub_features"]),
        (sub_features["items"], ["term", "explanation"]),
    ):
        assert (one["type"], one["required"], one["additionalProperties"]) == ("object", names, False)
        assert list(one["properties"]) == names


SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "class": lambda value: value.pop("B"),
    "another class": lambda value: value.update(C=value["A"]),
    "number": lambda value: value["A"][0]["sub_features"].pop(),
    "key": lambda value: value["A"][0]["sub_features"][0].update(more="x"),
    "kind": lambda value: value["A"][0].update(term=3),
}


@pytest.mark.parametrize("case", SPOILT)
def test_the_schema_takes_answers_as_asked_for_alone(case: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = jsonschema.Draft202012Validator(REQUEST.schema())
    spoilt = json.loads(GOOD)
    SPOILT[case](spoilt)
    assert (schema.is_valid(answer()), schema.is_valid(spoilt)) == (True, False)
