"""The prompt, and answers that break the wanted form in every way."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.description_request import DescriptionRequest, TokenLimit, description_faults, follow_up
from datasets.descriptions import read_descriptions
from models.text_length import token_limit
from tests.conftest import PROJECT, SHARED
from utils.errors import Fault, UserError

BUILTIN = sorted((PROJECT / "text_prompt" / "HiVE_MIL" / "builtin").glob("*.json"))
WORDS = TokenLimit(lambda text: len(text.split()), 12)


def request(**changes: Any) -> DescriptionRequest:
    """Two classes, two low descriptions, three high ones each; at most 12 words."""
    settings = {"dataset_name": "DATA", "classes": {"A": "A", "B": "B"}, "num_low": 2, "num_subtexts": 3}
    return DescriptionRequest(**{**settings, "low_mag": 5, "high_mag": 20, "limit": WORDS, **changes})


def text(name: str) -> dict[str, Any]:
    return {"term": f"Term {name}", "explanation": f"what {name} looks like"}


def good() -> dict[str, Any]:
    """An answer as asked for; texts are named by class, low place and high place."""
    return {
        name: [{**text(f"{name}{low}"), "sub_features": [text(f"{name}{low}{high}") for high in "123"]} for low in "12"]
        for name in "AB"
    }


ORDER = ["1", "2", "11", "12", "13", "21", "22", "23"]
FLAT = {name: {f"Term {name}{place}": f"what {name}{place} looks like" for place in ORDER} for name in "AB"}


def faults_of_answer(answer: Any, **changes: Any) -> list[Fault]:
    with pytest.raises(UserError) as caught:
        request(**changes).read_answer(answer if isinstance(answer, str) else json.dumps(answer))
    return caught.value.faults


# ---- the prompt ------------------------------------------------------------------------------------------------------


def test_the_prompt_begins_with_the_published_one() -> None:
    prompt = request(
        dataset_name="TCGA-NSCLC", classes={"LUAD": "lung adenocarcinoma", "LUSC": "LUSC"}, num_low=4
    ).prompt()
    published = (
        "The task is to summarize the morphological features of the TCGA-NSCLC dataset for the classes lung "
        "adenocarcinoma (LUAD), LUSC classes. For each class, list four representative morphological features observed "
        "at 5x magnification, followed by three finer sub-features observed at 20x magnification for each. Each "
        "description should include the morphological term along with an explanation of its defining visual features."
    )
    assert prompt.startswith(published + "\n\nAnswer with one JSON object")
    assert '"LUAD", "LUSC". Each class has a list of 4 features (5x), each feature a list of 3 sub-features' in prompt


def test_numbers_and_magnifications_follow_the_options() -> None:
    prompt = request(num_low=11, num_subtexts=2, low_mag=10, high_mag=40, limit=TokenLimit(len, 31)).prompt()
    assert "list 11 representative morphological features observed at 10x" in prompt
    assert "two finer sub-features observed at 40x" in prompt
    assert "a list of 11 features (10x), each feature a list of 2 sub-features (40x)" in prompt
    assert "at most 15 words" in prompt


def test_names_with_braces_and_quotes_stay_as_they_are() -> None:
    name = '{x} "y" é'
    asked = request(dataset_name="{set}", classes={name: "{full}", "B": "B"})
    assert f"of the {{set}} dataset for the classes {{full}} ({name}), B classes" in asked.prompt()
    key = '"{x} \\"y\\" é"'
    assert f"exactly so: {key}, " in asked.prompt()
    assert f"{{\n  {key}: [\n" in asked.prompt()
    answer = {name: good()["A"], "B": good()["B"]}
    assert asked.read_answer(json.dumps(answer)) == {name: FLAT["A"], "B": FLAT["B"]}


def test_the_form_in_the_prompt_is_the_form_that_is_read() -> None:
    form = request().prompt().split("of this form:")[1].split("Its keys are")[0]
    for dots in (", ...", ",\n    ...", ",\n  ..."):
        form = form.replace(dots, "")
    shown = json.loads(form)
    (feature,) = shown["A"]
    (child,) = feature["sub_features"]
    feature.update(text("A1"))
    child.update(text("A11"))
    shown["B"] = [{**text("B1"), "sub_features": [text("B11")]}]
    by_class = request(num_low=1, num_subtexts=1).read_answer(json.dumps(shown))
    assert [list(terms) for terms in by_class.values()] == [["Term A1", "Term A11"], ["Term B1", "Term B11"]]


# ---- answers as asked for --------------------------------------------------------------------------------------------


WHOLE = json.dumps(good(), indent=1)


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        f"```json\n{WHOLE}\n```",
        f"Here you are {{as asked}}:\n\n{WHOLE}\n\nAnything else? {{}} {{'a': 1}}",
        f'First {{"note": {{"A": 1}}}}, then:{WHOLE}',
        json.dumps(dict(reversed(good().items()))),
        WHOLE.replace('"Term A1"', '"  Term \\n A1\\u00a0 "'),
        WHOLE.replace('"term"', '"magnification": 5, "term"'),
    ],
    ids=["plain", "fences", "prose", "another object", "classes in another order", "white space", "more keys"],
)
def test_one_object_is_found_and_laid_out(answer: str) -> None:
    by_class = request().read_answer(answer)
    assert by_class == FLAT
    assert [list(by_class), list(by_class["A"])] == [["A", "B"], list(FLAT["A"])], "the order counts"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(request().read_answer(WHOLE)))
    texts = read_descriptions(file, ["A", "B"], 2, 3, "term")
    assert texts.low_texts == ["Term A1", "Term A2", "Term B1", "Term B2"]
    assert texts.high_texts[3 * 3 : 3 * 3 + 3] == ["Term B21", "Term B22", "Term B23"]


@pytest.mark.parametrize("file", BUILTIN, ids=lambda file: file.stem)
def test_the_own_files_would_be_accepted(file: Path) -> None:
    check_file(file)


@pytest.mark.parametrize("task", ["tcga_brca", "tcga_nsclc", "tcga_rcc"])
def test_the_released_files_would_be_accepted(task: str) -> None:
    file = SHARED / "released_assets" / "text_prompt" / "HiVE_MIL" / "gpt4o" / f"{task}.json"
    if not file.is_file():
        pytest.skip("the released assets (../shared/released_assets) are not here")
    check_file(file)


def check_file(file: Path) -> None:
    """Nested as a model would answer, a file of four low and three high ones each comes out as it is."""
    by_class = json.loads(file.read_text(encoding="utf-8"))
    limit = TokenLimit(*token_limit(None, 16))
    assert description_faults({name: list(entries.items()) for name, entries in by_class.items()}, limit) == []
    answer = {}
    for name, entries in by_class.items():
        texts = [{"term": term, "explanation": explanation} for term, explanation in entries.items()]
        answer[name] = [{**texts[low], "sub_features": texts[4 + 3 * low : 7 + 3 * low]} for low in range(4)]
    asked = request(classes={name: name for name in by_class}, num_low=4, num_subtexts=3, limit=limit)
    assert json.dumps(asked.read_answer(json.dumps(answer))) == json.dumps(by_class)


# ---- answers with faults ---------------------------------------------------------------------------------------------


def change(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(answer: Any) -> None:
        for key in path[:-1]:
            answer = answer[key]
        answer[path[-1]] = value

    return apply


def move_a_sub_feature(answer: dict[str, Any]) -> None:
    answer["A"][1]["sub_features"].append(answer["A"][0]["sub_features"].pop())


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda answer: answer.pop("B"), [("answer.missing_class", "", "class 'B' is missing")]),
        (change(["C"], []), [("answer.unknown_class", "", "unknown class 'C'")]),
        (lambda answer: answer["A"].pop(), [("answer.number", "class 'A'", "found 1 features")]),
        (lambda answer: answer["B"].append(copy.deepcopy(good()["B"][0])), [
            ("answer.number", "class 'B'", "found 3 features"),
            *(("answer.repeated", "class 'B'", f"the term 'term b{at}' stands 2 times") for at in (1, 11, 12, 13)),
        ]),
        (move_a_sub_feature, [
            ("answer.number", "class 'A', feature 1", "found 2 sub_features"),
            ("answer.number", "class 'A', feature 2", "found 4 sub_features"),
        ]),
        (change(["A"], FLAT["A"]), [("answer.form", "class 'A'", "found a dict")]),
        (change(["A"], None), [("answer.form", "class 'A'", "found a NoneType")]),
        (change(["A", 0], "x"), [
            ("answer.form", "class 'A', feature 1", "found a str"),
            ("answer.form", "class 'A', feature 1", "found a NoneType"),
        ]),
        (change(["A", 1, "sub_features"], {}), [("answer.form", "class 'A', feature 2", "found a dict")]),
        (change(["A", 1, "sub_features", 2, "term"], " \n"), [
            ("answer.form", "class 'A', feature 2, sub-feature 3", "found a dict"),
        ]),
        (change(["A", 1, "explanation"], ""), [("answer.form", "class 'A', feature 2", "found a dict")]),
        (change(["A", 1, "explanation"], ["a"]), [("answer.form", "class 'A', feature 2", "found a dict")]),
        (change(["A", 1, "sub_features", 0], {"term": "T"}), [
            ("answer.form", "class 'A', feature 2, sub-feature 1", "found a dict"),
        ]),
        (change(["A", 1, "term"], "TERM  A13"), [
            ("answer.repeated", "class 'A'", "the term 'term a13' stands 2 times"),
        ]),
        (change(["B", 0, "explanation"], "What a1 looks like"), [
            ("answer.repeated", "class 'B', 'Term B1'", "the same explanation as class 'A', 'Term A1'"),
        ]),
        (change(["B", 1, "explanation"], "word " * 10), [
            ("answer.long", "class 'B', 'Term B2'", "13 tokens long"),
        ]),
        (change(["B", 1, "term"], "a\u200bb"), [
            ("answer.unprintable", "class 'B', 'a\\u200bb'", "found characters that are not printable"),
        ]),
        (change(["B", 1, "explanation"], "a \ud800"), [
            ("answer.unprintable", "class 'B', 'Term B2'", "found characters that are not printable"),
        ]),
    ],
)  # fmt: skip
def test_every_way_to_break_the_form_is_named(
    spoil: Callable[[Any], None], expected: list[tuple[str, str, str]]
) -> None:
    answer = good()
    spoil(answer)
    assert [(fault.code, fault.where, fault.found) for fault in faults_of_answer(answer)] == expected


def test_what_an_entry_must_be_is_said() -> None:
    answer = good()
    change(["A", 1, "explanation"], "")(answer)
    assert str(faults_of_answer(answer)[0]).endswith(
        "expected an object with a term and an explanation, neither of them empty"
    )


def test_all_faults_are_named_at_once() -> None:
    answer = good()
    for spoil in (
        change(["Z"], 1), change(["Y"], 1), change(["A"], []), change(["B", 0, "sub_features"], []),
        change(["B", 1, "explanation"], "word " * 10),
    ):  # fmt: skip
        spoil(answer)
    assert [(fault.where or fault.found).split(",")[0] for fault in faults_of_answer(answer)] == [
        "unknown class 'Z'", "unknown class 'Y'", "class 'A'", "class 'B'", "class 'B'",
    ]  # fmt: skip


def test_a_text_that_just_fits_is_accepted_and_the_same_term_in_two_classes_too() -> None:
    answer = good()
    answer["B"][1].update(term="Term A1", explanation="word " * 9)
    assert request().read_answer(json.dumps(answer))["B"]["Term A1"] == " ".join(["word"] * 9)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("", "none: it is empty"),
        (" \n", "none: it is empty"),
        ("I cannot help with that.", "none: it holds none"),
        ("[1, 2]", "none: it holds none"),
        ('{"classes": {"A": []}}', "none: it holds none"),
        (WHOLE[:-20], "none: Expecting ',' delimiter: "),
        (WHOLE.replace('"B"', '"A"'), "none: the key 'A' stands 2 times in one object"),
        (WHOLE.replace('"B"', '"A"') + " {and more}", "none: the key 'A' stands 2 times in one object"),
        (WHOLE.replace("sub_features", "term", 1), "none: the key 'term' stands 2 times in one object"),
        (f"{WHOLE} or {WHOLE}", "2"),
    ],
    ids=["empty", "blank", "prose", "list", "inner", "cut", "class twice", "first problem", "key twice", "two"],
)
def test_no_single_object(answer: str, found: str) -> None:
    (fault,) = faults_of_answer(answer)
    assert (fault.code, fault.expected) == ("answer.form", "one JSON object with the keys ['A', 'B']")
    assert fault.found.startswith(f"found {found}")


def test_an_object_nested_too_deeply() -> None:
    assert faults_of_answer('{"A":' * 100_000) == [Fault("answer.form", "", "the answer is nested too deeply")]


KEYS = st.sampled_from(["A", "B", "term", "explanation", "sub_features"])
VALUES = st.recursive(
    st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20
)


@given(st.text() | VALUES.map(json.dumps))
def test_any_other_answer_is_refused_with_reasons(answer: str) -> None:
    assert all(faults_of_answer(answer))


def test_the_model_is_told_each_fault() -> None:
    told = follow_up([Fault("answer.form", "", "one {x}"), Fault("answer.form", "", "two")])
    assert "\n- one {x}\n- two\n" in told
    assert "whole corrected JSON object" in told
