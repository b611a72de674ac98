"""Descriptions: their order and formats, the released files, and the project's own files."""

import json
from pathlib import Path

import pytest

from datasets.descriptions import Descriptions, arrange_descriptions, read_descriptions
from datasets.task import read_slides
from tests.conftest import PROJECT, SHARED
from tests.support.faults import expect_faults

BUILTIN = PROJECT / "text_prompt" / "HiVE_MIL" / "builtin"
BUILTIN_CLASSES = {
    "camelyon16": ["NORMAL", "TUMOR"],
    "ubc_ocean": ["CC", "EC", "HGSC", "LGSC", "MC"],
    "tcga_brca": ["IDC", "ILC"],
    "tcga_nsclc": ["LUAD", "LUSC"],
    "tcga_rcc": ["CCRCC", "CHRCC", "PRCC"],
}
CLIP_LENGTH, NUM_CONTEXT_TOKENS = 77, 16


def numbered(class_name: str, number: int = 9) -> dict[str, str]:
    """Terms t0, t1, ... of a class, with explanations that name both."""
    return {f"{class_name}{place}": f"about {class_name}{place}" for place in range(number)}


BY_CLASS = {"B": numbered("b"), "A": numbered("a"), "unused": {}}


# ---- order and format ------------------------------------------------------------------------------------------------


def test_texts_stand_class_by_class_low_ones_before_the_high_ones_of_each() -> None:
    texts = arrange_descriptions(BY_CLASS, ["A", "B"], num_low=3, num_subtexts=2, text_format="term")
    assert texts.low_texts == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert texts.high_texts == ["a3", "a4", "a5", "a6", "a7", "a8", "b3", "b4", "b5", "b6", "b7", "b8"]
    high_of_b1 = [texts.high_texts[(1 * 3 + 1) * 2 + s] for s in range(2)]  # (k*O + o)*S + s
    assert high_of_b1 == ["b5", "b6"]


def test_a_class_is_looked_up_by_name_not_by_its_place_in_the_file(tmp_path: Path) -> None:
    both = [tmp_path / "first.json", tmp_path / "second.json"]
    both[0].write_text(json.dumps(BY_CLASS))
    both[1].write_text(json.dumps(dict(reversed(BY_CLASS.items()))))
    first, second = (read_descriptions(file, ["A", "B"], 3, 2) for file in both)
    assert first == second
    assert first.low_texts[0].startswith("a0")
    assert read_descriptions(both[0], ["B", "A"], 3, 2).low_texts[0].startswith("b0")


@pytest.mark.parametrize(
    ("text_format", "text"), [("both", "a0 : about a0"), ("term", "a0"), ("explanation", "about a0")]
)
def test_text_formats(text_format: str, text: str) -> None:
    texts = arrange_descriptions(BY_CLASS, ["A"], 3, 2, text_format)
    assert texts.low_texts[0] == text
    assert texts.high_texts[0] == text.replace("a0", "a3")


def test_braces_in_a_description_are_no_places_to_fill() -> None:
    texts = arrange_descriptions({"A": {"{term}": "{explanation}", "b": "{}"}}, ["A"], 1, 1)
    assert texts == Descriptions({"A": {"{term}": "{explanation}", "b": "{}"}}, ["{term} : {explanation}"], ["b : {}"])


def test_without_class_names_all_classes_are_read_sorted(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"B": numbered("b"), "A": numbered("a")}))
    texts = read_descriptions(file, None, 3, 2, "term")
    assert list(texts.by_class) == ["A", "B"]
    assert texts.low_texts[3:] == ["b0", "b1", "b2"]


def test_all_faults_of_a_file_are_listed() -> None:
    by_class = {"A": numbered("a", 8), "B": {**numbered("b", 8), "b8": " "}, "C": ["c0"], "E": numbered("e")}
    with expect_faults("prompt.number", "prompt.empty", "prompt.form", "prompt.missing_class") as faults:
        arrange_descriptions(by_class, ["A", "B", "C", "D", "E"], 3, 2, source="task.json")
    assert {fault.where for fault in faults} == {"task.json"}
    assert [fault.found for fault in faults] == [
        "class 'A' has 8 descriptions",
        "class 'B' has an empty term or explanation (' ')",
        "class 'C' is not of the form {term: explanation}",
        "no descriptions of the class 'D'; found ['A', 'B', 'C', 'E']",
    ]
    assert faults[0].expected == "9 (3 low ones and 2 high ones for each)"


# ---- the released and the own files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["tcga_nsclc", "tcga_rcc", "tcga_brca"])
def test_the_released_descriptions_are_accepted(task: str) -> None:
    released = SHARED / "released_assets"
    if not released.is_dir():
        pytest.skip("the released assets (../shared/released_assets) are not here")
    file = released / "text_prompt" / "HiVE_MIL" / "gpt4o" / f"{task}.json"
    class_names, _ = read_slides(released / "dataset_csv" / f"{task}.csv")
    texts = read_descriptions(file, class_names, 4, 3)
    by_class = json.loads(file.read_text(encoding="utf-8"))
    for k, name in enumerate(class_names):
        whole = [f"{term} : {explanation}" for term, explanation in by_class[name].items()]
        assert texts.low_texts[4 * k : 4 * k + 4] == whole[:4]
        assert texts.high_texts[12 * k : 12 * k + 12] == whole[4:]


def test_the_own_files_are_those_of_the_published_tasks() -> None:
    assert sorted(file.stem for file in BUILTIN.glob("*.json")) == sorted(BUILTIN_CLASSES)


@pytest.mark.parametrize("task", BUILTIN_CLASSES)
def test_an_own_file_is_complete_and_plain(task: str) -> None:
    file = BUILTIN / f"{task}.json"
    texts = read_descriptions(file, None, 4, 3)
    assert list(texts.by_class) == BUILTIN_CLASSES[task]
    assert len(texts.low_texts) == 4 * len(BUILTIN_CLASSES[task])
    assert len(texts.high_texts) == 12 * len(BUILTIN_CLASSES[task])
    assert file.read_bytes().isascii()
    entries = [entry for entries in texts.by_class.values() for entry in entries.items()]
    explanations = [" ".join(explanation.lower().split()) for _, explanation in entries]
    assert len(set(explanations)) == len(explanations)
    for term, explanation in entries:
        assert (term, explanation) == (term.strip(), explanation.strip())
        assert len(explanation.split()) >= 5, "an explanation says more than its term"
    terms = [term.lower() for term, _ in entries]
    for k in range(len(texts.by_class)):
        assert len(set(terms[16 * k : 16 * k + 16])) == 16


@pytest.mark.parametrize("task", BUILTIN_CLASSES)
def test_prompts_of_an_own_file_fit_clips_text_length(task: str) -> None:
    import utils.torchvision_compat  # noqa: F401  (before open_clip)

    open_clip = pytest.importorskip("open_clip")
    tokenizer = open_clip.SimpleTokenizer()
    texts = read_descriptions(BUILTIN / f"{task}.json", None, 4, 3)
    lengths = {
        text: 2 + len(tokenizer.encode(" ".join(["X"] * NUM_CONTEXT_TOKENS) + f" {text}"))
        for text in texts.low_texts + texts.high_texts
    }
    assert {text: length for text, length in lengths.items() if length > CLIP_LENGTH} == {}
    assert max(lengths.values()) > 30  # the texts were counted, not only the context


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (" ", "prompt.empty"), ("\u200b", "prompt.empty"), ("\u0301", "prompt.empty"),
        ("bell\x07", "prompt.characters"), ("esc\x1b[31m", "prompt.characters"), ("\x9bnext", "prompt.characters"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_term", [True, False])
def test_texts_that_describe_nothing(text: str, code: str, in_term: bool) -> None:
    entry = {text: "dark nuclei"} if in_term else {"nuclei": text}
    with expect_faults(code) as faults:
        arrange_descriptions({"A": {**entry, **numbered("a", 8)}}, ["A"], 3, 2)
    assert repr(text) in faults[0].found and "'A'" in faults[0].found


def test_lines_and_tabs_within_a_text_are_text() -> None:
    texts = arrange_descriptions({"A": {"a\tb": "c\nd", **numbered("a", 8)}}, ["A"], 3, 2)
    assert texts.low_texts[0] == "a\tb : c\nd"


def test_a_class_in_decomposed_letters_is_the_one_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"cafe\u0301": numbered("a", 9), "B": numbered("b", 9)}))
    assert list(read_descriptions(tmp_path / "t.json", ["B", "caf\u00e9"], 3, 2).by_class) == ["B", "caf\u00e9"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{\0}\0", b"[" * 5000, b'{"A": {"x": "\\ud800"}}', b'{"A": {"x\\u0000": "y"}}']
)
def test_files_that_are_no_descriptions(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with expect_faults("prompt.unreadable"):
        read_descriptions(tmp_path / "t.json", None, 3, 2)
