"""YAML files: what is read, and what is refused with one fault."""

from pathlib import Path

import pytest

from tests.support.faults import check_fault, expect_faults
from utils.yaml_files import DEEPEST, MOST_BYTES, read_yaml

READ = {
    "date: 2024-01-01": {"date": "2024-01-01"},
    "time: 2001-12-14t21:59:43.10-05:00": {"time": "2001-12-14t21:59:43.10-05:00"},
    "a: [1, 010, 0x1F, 1_000, 1:30, 1e-3, .inf, .nan, -0.5]": {
        "a": ["1", "010", "0x1F", "1_000", "1:30", "1e-3", ".inf", ".nan", "-0.5"]
    },
    "a: [yes, no, on, off, y, N, none]": {"a": ["yes", "no", "on", "off", "y", "N", "none"]},
    "a: [true, False, TRUE]": {"a": [True, False, True]},
    "a: [~, null, ]\nb:": {"a": [None, None], "b": None},
    "1: {2.50: x, 2024-01-01: z}": {"1": {"2.50": "x", "2024-01-01": "z"}},
    "a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}": {"a": {"k": "1"}, "b": {"k": "1"}, "c": {"k": "1", "l": "2"}},
    "\ufeffa: é": {"a": "é"},
    "": None,
    "# nothing": None,
}


@pytest.mark.parametrize("text", READ)
def test_texts_stay_as_they_are_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    assert read_yaml(file) == READ[text]


def laughs(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


REFUSED = {
    "billion_laughs": (laughs(10), "values"),
    "laughs_of_mappings": ("a: &a {x: 1}\n" + "".join(
        f"b{n}: &b{n} {{p: *{before}, q: *{before}, r: *{before}}}\n"
        for n, before in enumerate(["a", *(f"b{n}" for n in range(20))])
    ), "values"),
    "within_itself": ("a: &a [*a]", "within itself"),
    "within_itself_as_a_mapping": ("a: &a {b: *a}", "within itself"),
    "merged_into_itself": ("a: &a {<<: *a}", "within itself"),
    "unknown_anchor": ("a: *b", "undefined alias"),
    "key_twice": ("a: 1\nb: 2\na: 3", "the key 'a' twice"),
    "key_twice_inside": ("a: {b: {c: 1, c: 2}}", "the key 'c' twice"),
    "merge_twice": ("x: &x {k: 1}\na: {<<: *x, <<: *x}", "twice"),
    "number_and_text": ("1: a\n'1': b", "the key '1' twice"),
    "null_as_key": ("~: a", "a key that is no text"),
    "boolean_as_key": ("true: a", "a key that is no text"),
    "list_as_key": ("[a]: b", "a key that is no text"),
    "mapping_as_key": ("{a: b}: c", "a key that is no text"),
    "deep_lists": ("a: " + "[" * 5000 + "]" * 5000, "nested deeper"),
    "deep_mappings": ("{a: " * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1), "nested deeper"),
    "deep_blocks": ("\n".join(" " * n + "a:" for n in range(200)), "nested deeper"),
    "python_object": ("a: !!python/object/apply:os.system [echo]", "the tag"),
    "binary": ("a: !!binary aGFsbG8=", "the tag"),
    "set": ("a: !!set {b, c}", "the tag"),
    "own_tag": ("a: !mine b", "the tag !mine"),
    "number_by_tag": ("a: !!int x", "the tag"),
    "two_documents": ("a: 1\n---\nb: 2", "single document"),
    "tabs": ("a:\n\t- b", "cannot start any token"),
    "control": ("a: \x00", "special characters"),
    "surrogate": ('a: "\\ud800"', "surrogates not allowed"),
    "open": ("a: [", "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    text, found = REFUSED[case]
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with expect_faults("yaml.unreadable") as faults:
        read_yaml(file)
    check_fault(faults[0], "yaml.unreadable", file, found)
    assert len(faults[0].found) < 600 and "\n" not in faults[0].found


@pytest.mark.parametrize("content", [b"a: \xff", b"a" * (MOST_BYTES + 1), "a: b".encode("utf-16")])
def test_bytes_that_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with expect_faults("yaml.unreadable"):
        read_yaml(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with expect_faults("file.missing"):
        read_yaml(tmp_path)
