"""Faulty tables of slides, splits and descriptions."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SimulatedTask
from tests.support.damage import SLIDE, Refused, change_json, change_text, cut, read_ids, without_last, write_ids

TABLE_FAULTS = {
    "missing": (Path.unlink, ("--dataset_csv", "python create_dataset_csv.py")),
    "no_bytes": (lambda path: path.write_bytes(b""), ("not a readable CSV",)),
    "no_text": (lambda path: path.write_bytes(b"\xff\xfe\x00slide"), ("not a readable CSV",)),
    "headers_only": (lambda path: path.write_text("case_id,slide_id,label\n"), ("no slides",)),
    "slide_twice": (
        lambda path: path.write_text(path.read_text() + f"p,{SLIDE},SIMULATED_A,40\n"), ("more than once", SLIDE),
    ),
    "no_column_slide_id": (
        lambda path: change_text(path, "slide_id", "slide"), ("no column slide_id", "found ['case_id', 'slide', "),
    ),
    "no_column_label": (lambda path: change_text(path, ",label,", ",class,"), ("label", "at least two classes")),
    "one_class": (
        lambda path: change_text(path, "SIMULATED_B", "SIMULATED_A"), ("['SIMULATED_A']", "at least two classes"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE_FAULTS)
def test_a_faulty_table_of_slides(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.root / "simulated.csv"
    break_file, expected = TABLE_FAULTS[case]
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


def test_a_label_without_descriptions(task: SimulatedTask, refused: Refused) -> None:
    change_text(task.root / "simulated.csv", "SIMULATED_B", "SIMULATED_C")
    message = refused()
    assert f"{task.root / 'simulated.json'}: no descriptions of the class 'SIMULATED_C'" in message
    assert "found ['SIMULATED_A', 'SIMULATED_B']" in message
    assert "python create_text_prompt.py --task simulated --classes SIMULATED_A SIMULATED_C" in message


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_without_a_class(task: SimulatedTask, refused: Refused, part: str) -> None:
    file = task.split_dir / "splits_1.csv"
    ids = read_ids(file)
    write_ids(file, {**ids, part: [slide_id for slide_id in ids[part] if slide_id.startswith("SIM-0")]})
    message = refused()
    assert f"{file}: no slide of class 'SIMULATED_B' in {part}; expected slides of " in message
    assert "['SIMULATED_A', 'SIMULATED_B']" in message


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("val", "test"), ("val", "val")])
def test_a_slide_that_stands_in_the_splits_twice(
    task: SimulatedTask, refused: Refused, first: str, second: str
) -> None:
    file = task.split_dir / "splits_0.csv"
    ids = read_ids(file)
    ids[second].append(ids[first][0])
    write_ids(file, ids)
    assert f"{file}: slide {ids[first][0]} stands in {first} and {second}; expected it in one split" in refused()


def test_a_slide_of_a_split_that_is_not_in_the_table(task: SimulatedTask, refused: Refused) -> None:
    file = task.split_dir / "splits_0.csv"
    ids = read_ids(file)
    ids["val"] += ["SIM-9999", "SIM-9998"]
    write_ids(file, ids)
    assert f"{file}: 2 slides are not in the table of slides (SIM-9999, SIM-9998)" in refused()


def test_a_slide_of_a_split_that_has_no_label(task: SimulatedTask, refused: Refused) -> None:
    change_text(task.root / "simulated.csv", f"{SLIDE},SIMULATED_A", f"{SLIDE},")
    message = refused(faults=2)  # one for each fold
    for fold in range(2):
        file = task.split_dir / f"splits_{fold}.csv"
        assert f"{file}: 1 slides have no label in the table of slides ({SLIDE})" in message


def test_no_folder_of_splits(task: SimulatedTask, refused: Refused) -> None:
    shutil.rmtree(task.split_dir)
    message = refused(faults=2)
    for fold in range(2):
        assert f"{task.split_dir / f'splits_{fold}.csv'}: no such split file" in message
    assert "--split_dir" in message
    assert "python create_splits.py --task " in message


SPLIT_FAULTS = {
    "missing": (Path.unlink, ("no such split file", "--split_dir", "python create_splits.py --task ")),
    "no_column_val": (lambda path: change_text(path, ",val,", ",valid,", 1), ("'val'", "'train', 'valid', 'test'")),
    "no_bytes": (lambda path: path.write_bytes(b""), ("not a readable CSV",)),
    "no_text": (lambda path: path.write_bytes(b"\xff\xfe\x00train"), ("not a readable CSV",)),
}


@pytest.mark.parametrize("case", SPLIT_FAULTS)
def test_a_faulty_split_file(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.split_dir / "splits_1.csv"
    break_file, expected = SPLIT_FAULTS[case]
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


def with_entry(value: object) -> Callable[[dict], dict]:
    """Replace the first explanation of SIMULATED_B."""

    def new(by_class: dict) -> dict:
        by_class["SIMULATED_B"][next(iter(by_class["SIMULATED_B"]))] = value
        return by_class

    return new


PROMPT_FAULTS = {
    "missing": (
        Path.unlink,
        ("--text_prompt", "python create_text_prompt.py --task simulated --classes SIMULATED_A SIMULATED_B"),
    ),
    "cut_off": (cut, ("not valid JSON",)),
    "no_text": (lambda path: path.write_bytes(b'{"SIMULATED_A": "\xff"}'), ("not valid JSON",)),
    "term_twice": (
        lambda path: change_text(path, "Simulated detail 0.1", "Simulated detail 0.0"),
        ("'Simulated detail 0.0' stands 2 times",),
    ),
    "class_twice": (
        lambda path: change_text(path, "SIMULATED_B", "SIMULATED_A"), ("'SIMULATED_A' stands 2 times",),
    ),
    "one_too_few": (
        lambda path: change_json(path, without_last),
        ("'SIMULATED_B' has 15 descriptions; expected 16 (4 low ones and 3 high ones for each",),
    ),
    "empty": (lambda path: change_json(path, with_entry(" ")), ("'SIMULATED_B' has an empty term or explanation",)),
    "number": (lambda path: change_json(path, with_entry(3)), ("'SIMULATED_B' is not of the form {term: ",)),
    "list": (lambda path: change_json(path, list), ("found a list; expected {class: {term: explanation}}",)),
}  # fmt: skip


@pytest.mark.parametrize("case", PROMPT_FAULTS)
def test_a_faulty_file_of_descriptions(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.root / "simulated.json"
    break_file, expected = PROMPT_FAULTS[case]
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message
