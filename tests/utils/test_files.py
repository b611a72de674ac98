"""Files appear whole or not at all; checkpoints hold tensors only."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from tests.support.faults import expect_faults
from utils.files import (
    file_sha256,
    read_json,
    tensors_sha256,
    write_json,
    write_tensors,
    write_text,
)
from utils.whole_files import whole_file


class BrokenError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "results.csv"
    file.write_text("old")
    with pytest.raises(error), whole_file(file) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert file.read_text() == "old"
    assert names(tmp_path) == ["results.csv"]


def test_a_block_that_fails_leaves_nothing_where_there_was_nothing(tmp_path: Path) -> None:
    with pytest.raises(BrokenError), whole_file(tmp_path / "new.csv") as temporary:
        temporary.write_text("half")
        raise BrokenError
    assert names(tmp_path) == []


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("old")
    with whole_file(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path  # a rename within one file system
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["results.csv"]


def test_folders_are_made_and_the_file_is_as_readable_as_others(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "results.csv"
    write_text(file, "metric\nä\n")
    assert file.read_text(encoding="utf-8") == "metric\nä\n"
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    assert file.stat().st_mode == ordinary.stat().st_mode


def test_json_keeps_its_order_and_its_letters(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write_json(file, {"b": 1, "a": ["Zellkörper", None, 1e-4]})
    text = file.read_text(encoding="utf-8")
    assert list(json.loads(text).items()) == [("b", 1), ("a", ["Zellkörper", None, 1e-4])]
    assert "Zellkörper" in text


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert names(tmp_path) == ["config.json"]


def test_tensors_load_with_weights_only(tmp_path: Path) -> None:
    file = tmp_path / "s_0_checkpoint.pt"
    tensors = {"weight": torch.randn(3, 2), "count": torch.tensor(4)}
    write_tensors(file, tensors)
    loaded = torch.load(file, weights_only=True)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert names(tmp_path) == ["s_0_checkpoint.pt"]


def test_file_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"slide_id\n")
    assert file_sha256(file) == hashlib.sha256(b"slide_id\n").hexdigest()


def test_tensor_fingerprint_depends_on_names_and_contents_alone() -> None:
    weight, bias = torch.randn(3, 2), torch.randn(3)
    digest = tensors_sha256({"weight": weight, "bias": bias})
    assert digest == tensors_sha256({"bias": bias.clone(), "weight": weight.t().contiguous().t()})
    assert digest != tensors_sha256({"weight": weight, "offset": bias})
    changed = bias.clone()
    changed[1] = torch.nextafter(changed[1], torch.tensor(9.0))
    assert digest != tensors_sha256({"weight": weight, "bias": changed})


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": "\xff"}'])
def test_what_is_not_json_is_told_of(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with expect_faults("json.unreadable") as faults:
        read_json(tmp_path / "x.json")
    assert faults[0].where == str(tmp_path / "x.json")


# what the file holds, what the fault's sentence says
NO_JSON = {
    "empty": (b"", "Expecting value"),
    "cut_off": (b'{"a": [1, 2', "Expecting ',' delimiter"),
    "repeated": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands 2 times"),
    "deep": (b"[" * 200 + b"]" * 200, "nested too deeply"),
    "very_deep": (b'{"a":' * 100_000, "nested too deeply"),
    "half_a_pair": (b'{"a": "x\\ud800y"}', "half of a surrogate pair"),
    "half_a_pair_as_key": (b'{"\\udfff": 1}', "half of a surrogate pair"),
    "nul": (b'["a\\u0000b"]', "text with NUL"),
    "raw_nul": (b'["a\0b"]', "a NUL character in line 1"),
    "raw_control": (b'["a\x07b"]', "Invalid control character"),
    "utf16": ('{"a": 1}'.encode("utf-16"), "text in UTF-16"),
    "latin1": ('{"é": 1}'.encode("latin-1"), "not text in UTF-8 (line 1 has the byte 0xe9)"),
    "many_digits": (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    "zip": (b"PK\x03\x04", "a zip archive"),
}


@pytest.mark.parametrize("case", NO_JSON)
def test_what_json_of_the_project_never_is(tmp_path: Path, case: str) -> None:
    content, words = NO_JSON[case]
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with expect_faults("json.unreadable") as faults:
        read_json(file)
    assert faults[0].where == str(file) and words in faults[0].found


def test_json_that_is_a_folder_or_not_there(tmp_path: Path) -> None:
    with expect_faults("json.unreadable"):
        read_json(tmp_path)
    with expect_faults("file.missing"):
        read_json(tmp_path / "x.json")


def test_json_with_a_byte_order_mark_and_a_whole_pair(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00", "b": NaN}')
    read = read_json(tmp_path / "x.json")
    assert read["a"] == "\U0001f600" and read["b"] != read["b"]
