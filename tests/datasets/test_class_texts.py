"""Class texts of ViLa-MIL, FOCUS and MSCPT: their files, and what is made of HiVE-MIL's descriptions."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.class_texts import arrange_class_texts, has_own_form, read_class_texts, texts_from_descriptions
from tests.conftest import PROJECT
from utils.errors import Fault, UserError

NAMES = ["A", "B", "C"]
BUILTIN = PROJECT / "text_prompt" / "HiVE_MIL" / "builtin"


def write_csv(file: Path, rows: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(rows)
    return file


def write_json(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content))
    return file


def read(form: str, file: Path, names: list[str] | None = NAMES) -> Any:
    return read_class_texts(form, file, names, 2, 2)


def faults_of_texts(form: str, file: Path, names: list[str] | None = NAMES) -> list[Fault]:
    with pytest.raises(UserError) as error:
        read(form, file, names)
    assert all(fault.where == str(file) for fault in error.value.faults)
    return error.value.faults


def assert_listed(faults: list[Fault], expected: list[tuple[str, str]]) -> None:
    """The faults have these codes, and say these words of what was found, in any order."""
    assert sorted(fault.code for fault in faults) == sorted(code for code, _ in expected)
    assert all(any(code == fault.code and part in fault.found for fault in faults) for code, part in expected)


PROMPTS = {name: {"low": f"low, {name}.", "high": f"high, {name}."} for name in NAMES}
ROWS = [[name, scale, PROMPTS[name][scale]] for scale in ("high", "low") for name in reversed(NAMES)]
LISTS = {name: {"small_mag": [f"{name} low {n}" for n in range(2)], "big_mag": [f"{name} high {n}" for n in range(3)]}
         for name in reversed(NAMES)}  # fmt: skip


# ---- ViLa-MIL's CSV --------------------------------------------------------------------------------------------------


def test_prompts_are_found_by_class_and_scale(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "task.csv", [["class", "scale", "prompt"], *ROWS, ["D", "low", "of another task"]])
    texts = read("ViLa_MIL", file)
    assert texts.low_texts == ["low, A.", "low, B.", "low, C."]
    assert texts.high_texts == ["high, A.", "high, B.", "high, C."]
    assert texts.by_class == PROMPTS
    assert read("ViLa_MIL", file, ["C", "A"]).high_texts == ["high, C.", "high, A."]
    assert arrange_class_texts("ViLa_MIL", json.loads(json.dumps(texts.by_class)), NAMES) == texts


def test_columns_in_another_order_spaces_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "task.csv"
    lines = ["Scale , Prompt,class,note", *(f'{scale} , "{prompt}", {name},' for name, scale, prompt in ROWS), ",,,"]
    file.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert read("ViLa_MIL", file).by_class == PROMPTS


def test_without_class_names_all_classes_are_read_sorted(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "task.csv", [["class", "scale", "prompt"], *ROWS])
    assert read("ViLa_MIL", file, None).low_texts == ["low, A.", "low, B.", "low, C."]
    assert list(read("MSCPT", write_json(tmp_path / "task.json", LISTS), None).by_class) == NAMES


def test_all_faults_of_a_csv_at_once(tmp_path: Path) -> None:
    rows = [["A", "low", "one, two"], ["A", "low", "twice"], ["A", "medium", "text"], ["B", "low", " "], ["B", "high"]]
    faults = faults_of_texts("ViLa_MIL", write_csv(tmp_path / "task.csv", [["class", "scale", "prompt"], *rows]))
    expected = [
        ("prompt.row", "row 4 has the scale 'medium'"), ("prompt.row", "row 6 has 2 columns"),
        ("prompt.repeated", "2 low prompts of the class 'A'"), ("prompt.form", "class 'A' lacks high"),
        ("prompt.empty", "class 'B' has an empty low"), ("prompt.form", "class 'B' lacks high"),
        ("prompt.missing_class", "no texts of the class 'C'"),
    ]  # fmt: skip
    assert_listed(faults, expected)


SENTENCE = "A whole slide image of {name} at {scale} resolution with low grade nuclei, high cellularity"


def test_the_authors_form_is_read_where_rows_name_themselves(tmp_path: Path) -> None:
    names = ["CCRCC", "CRCC", "PRCC"]
    rows = [
        [SENTENCE.format(name=name, scale=scale)] for scale in ("low", "high") for name in ("PRCC", "CRCC", "CCRCC")
    ]
    texts = read("ViLa_MIL", write_csv(tmp_path / "task.csv", rows), names)
    assert texts.low_texts == [SENTENCE.format(name=name, scale="low") for name in names]
    assert texts.high_texts == [SENTENCE.format(name=name, scale="high") for name in names]


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (["A at low resolution", "B at high resolution", "A at high magnification", "cells at low resolution"],
         "row 4 names the classes []"),
        (["A at low resolution", "A or B at high resolution", "A at high resolution", "B at low resolution"],
         "row 2 names the classes ['A', 'B']"),
        (["A at low resolution", "B at high power", "A at high resolution", "B at low resolution"],
         "row 2 names the classes ['B'] and the resolutions []"),
        (["A at low resolution", "B at high resolution", "A at low resolution", "B at low resolution"],
         "2 low prompts of the class 'A'"),
        (["A at low resolution", "B at low resolution", "A at high resolution"], "3 rows, the first"),
        (["A at low resolution", "B at low resolution", "A at high resolution", "B at high resolution", "C"], "5 rows"),
        ([], "it is empty"),
    ],
)  # fmt: skip
def test_rows_that_do_not_name_themselves(tmp_path: Path, rows: list[str], part: str) -> None:
    faults = faults_of_texts("ViLa_MIL", write_csv(tmp_path / "task.csv", [[row] for row in rows]), ["A", "B"])
    assert part in faults[0].found
    assert "class,scale,prompt" in "".join(map(str, faults))


def test_the_authors_form_needs_class_names(tmp_path: Path) -> None:
    rows = [["A at low resolution"], ["A at high resolution"]]
    (fault,) = faults_of_texts("ViLa_MIL", write_csv(tmp_path / "task.csv", rows), None)
    assert fault.code == "prompt.unreadable" and "class,scale,prompt" in fault.expected


# ---- MSCPT's JSON ----------------------------------------------------------------------------------------------------


def test_mscpt(tmp_path: Path) -> None:
    texts = read("MSCPT", write_json(tmp_path / "task.json", {**LISTS, "D": 3}))
    assert texts.low_texts == ["A low 0", "A low 1", "B low 0", "B low 1", "C low 0", "C low 1"]
    assert texts.high_texts[2:5] == ["A high 2", "B high 0", "B high 1"]
    assert arrange_class_texts("MSCPT", json.loads(json.dumps(texts.by_class)), NAMES) == texts


def test_all_faults_of_mscpt_at_once(tmp_path: Path) -> None:
    content = {
        "A": {"small_mag": ["a"], "big_mag": ["b", 3]},
        "B": {"small_mag": ["a", " "], "big_mag": []},
        "C": ["a"],
    }
    faults = faults_of_texts("MSCPT", write_json(tmp_path / "task.json", content), [*NAMES, "D"])
    expected = [
        ("prompt.form", "class 'A' lacks big_mag"), ("prompt.empty", "class 'B' has an empty small_mag"),
        ("prompt.form", "class 'B' lacks big_mag"), ("prompt.missing_class", "of the class 'C'"),
        ("prompt.missing_class", "of the class 'D'"),
        ("prompt.number", "the numbers of small_mag texts differ ({'A': 1, 'B': 2})"),
    ]  # fmt: skip
    assert_listed(faults, expected)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"small_mag"', "not valid JSON"),
        ('["small_mag"]', "found a list"),
        ('{"A": {"small_mag": []}, "A": 1}', "stands 2 times"),
    ],
)
def test_unreadable_json(tmp_path: Path, content: str, part: str) -> None:
    file = tmp_path / "task.json"
    file.write_text(content)
    (fault,) = faults_of_texts("MSCPT", file)
    assert fault.code == "prompt.unreadable" and part in fault.found


@pytest.mark.parametrize("form", ["ViLa_MIL", "MSCPT"])
def test_missing_and_unreadable_files(tmp_path: Path, form: str) -> None:
    (missing,) = faults_of_texts(form, tmp_path / "nothing.csv")
    assert missing.code == "prompt.missing"
    assert "--text_prompt" in missing.mend
    assert "HiVE-MIL's JSON" in missing.mend
    latin = tmp_path / "latin.csv"
    latin.write_bytes('class,scale,prompt\nA,low,"small_mag" \xe4'.encode("latin-1"))
    assert [fault.code for fault in faults_of_texts(form, latin)] == ["prompt.unreadable"]


# ---- from HiVE-MIL's descriptions ------------------------------------------------------------------------------------

BY_CLASS = {
    name: {f"{name} term {n}": f"about {name}{n}" for n in range(6)} for name in ("B", "A")
}  # two low ones, then two high ones for each


def test_prompts_from_descriptions(tmp_path: Path) -> None:
    file = write_json(tmp_path / "task.json", BY_CLASS)
    assert not has_own_form("ViLa_MIL", file)
    assert has_own_form("ViLa_MIL", tmp_path / "task.csv")
    texts = read("ViLa_MIL", file, ["A", "B"])
    assert texts.low_texts == [
        "A slide of A at low resolution shows A term 0, A term 1.",
        "A slide of B at low resolution shows B term 0, B term 1.",
    ]
    # terms 2 and 3 belong to term 0, terms 4 and 5 to term 1
    assert texts.high_texts[0] == "A slide of A at high resolution shows A term 2, A term 4, A term 3, A term 5."
    assert arrange_class_texts("ViLa_MIL", texts.by_class, ["A", "B"]) == texts


def test_mscpt_from_descriptions(tmp_path: Path) -> None:
    file = write_json(tmp_path / "task.json", BY_CLASS)
    assert not has_own_form("MSCPT", file)
    assert has_own_form("MSCPT", write_json(tmp_path / "own.json", LISTS))
    texts = read_class_texts("MSCPT", file, ["A", "B"], 2, 2, "explanation")
    assert texts.low_texts == ["about A0", "about A1", "about B0", "about B1"]
    assert texts.high_texts == [f"about {name}{n}" for name in "AB" for n in (2, 3, 4, 5)]
    assert read("MSCPT", file, None).low_texts[0] == "A term 0 : about A0"


def test_faults_of_descriptions_name_both_forms(tmp_path: Path) -> None:
    """HiVE-MIL's and the model's own, which the file may have been meant to be."""
    file = write_json(tmp_path / "task.json", {"A": {"a": "b"}})
    for form in ("ViLa_MIL", "MSCPT"):
        faults = faults_of_texts(form, file, ["A", "B"])
        assert [fault.code for fault in faults] == ["prompt.number", "prompt.missing_class", "prompt.other_form"]
        assert ("small_mag" if form == "MSCPT" else "class,scale,prompt") in faults[2].found
    mistyped = write_json(tmp_path / "mistyped.json", {"A": {"smal_mag": ["a"], "bigmag": ["b"]}})
    assert "small_mag" in faults_of_texts("MSCPT", mistyped, ["A"])[-1].found


@given(st.integers(0, 200))
def test_no_prompt_is_longer_than_fits(limit: int) -> None:
    made = texts_from_descriptions("ViLa_MIL", BY_CLASS, 2, fits=lambda prompt: len(prompt) <= limit)
    for name in BY_CLASS:
        high, whole = made[name]["high"], f"A slide of {name} at high resolution shows "
        terms = high.removeprefix(whole).removesuffix(".").split(", ")
        assert terms == [f"{name} term {n}" for n in (2, 4, 3, 5)][: len(terms)]
        assert len(high) <= limit or len(terms) == 1
        assert len(terms) == 4 or len(high) + len(", A term 9") > limit


@pytest.mark.parametrize("file", sorted(BUILTIN.glob("*.json")), ids=lambda file: file.stem)
def test_every_task_of_the_project_has_texts_for_every_model(file: Path) -> None:
    """Within what CLIP's tower reads behind 16 context tokens."""
    from models.text_length import token_limit

    count, limit = token_limit(None, 16)
    assert limit == 59
    texts = read_class_texts("ViLa_MIL", file, None, 4, 3, fits=lambda prompt: count(prompt) <= limit)
    for low, high in zip(texts.low_texts, texts.high_texts, strict=True):
        assert low.count(",") == 3
        assert high.count(",") >= 6
        assert max(count(low), count(high)) <= 59
    mscpt = read_class_texts("MSCPT", file, None, 4, 3)
    assert len(mscpt.high_texts) == 3 * len(mscpt.low_texts) == 12 * len(mscpt.by_class)
