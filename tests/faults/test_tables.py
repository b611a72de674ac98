"""Faulty tables of slides, splits and descriptions."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SimulatedTask
from tests.support.damage import SLIDE, change_json, change_text, cut, read_ids, without_last, write_ids
from tests.support.faults import Refused, check_fault

# what is done to the file, the fault's code, what its sentence says besides the file's name
TABLE_FAULTS = {
    "missing": (Path.unlink, "table.missing", ("--dataset_csv", "python create_dataset_csv.py")),
    "no_bytes": (lambda path: path.write_bytes(b""), "table.unreadable", ()),
    "no_text": (lambda path: path.write_bytes(b"\xff\xfe\x00slide"), "table.unreadable", ()),
    "headers_only": (lambda path: path.write_text("case_id,slide_id,label\n"), "table.empty", ()),
    "slide_twice": (
        lambda path: path.write_text(path.read_text() + f"p,{SLIDE},SIMULATED_A,40\n"), "table.repeated_slide",
        (SLIDE,),
    ),
    "no_column_slide_id": (
        lambda path: change_text(path, "slide_id", "slide"), "table.columns",
        ("no column slide_id", "found ['case_id', 'slide', "),
    ),
    "no_column_label": (
        lambda path: change_text(path, ",label,", ",class,"), "table.classes", ("label", "at least two classes"),
    ),
    "one_class": (lambda path: change_text(path, "SIMULATED_B", "SIMULATED_A"), "table.classes", ("['SIMULATED_A']",)),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE_FAULTS)
def test_a_faulty_table_of_slides(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.root / "simulated.csv"
    break_file, code, words = TABLE_FAULTS[case]
    break_file(file)
    (fault,) = refused()
    check_fault(fault, code, file, *words)


def test_a_label_without_descriptions(task: SimulatedTask, refused: Refused) -> None:
    change_text(task.root / "simulated.csv", "SIMULATED_B", "SIMULATED_C")
    (fault,) = refused()
    command = "python create_text_prompt.py --task simulated --classes SIMULATED_A SIMULATED_C"
    words = "'SIMULATED_C'", "found ['SIMULATED_A', 'SIMULATED_B']", command
    check_fault(fault, "prompt.missing_class", task.root / "simulated.json", *words)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_without_a_class(task: SimulatedTask, refused: Refused, part: str) -> None:
    file = task.split_dir / "splits_1.csv"
    ids = read_ids(file)
    write_ids(file, {**ids, part: [slide_id for slide_id in ids[part] if slide_id.startswith("SIM-0")]})
    (fault,) = refused()
    words = f"no slide of class 'SIMULATED_B' in {part}", "expected slides of ['SIMULATED_A', 'SIMULATED_B']"
    check_fault(fault, "split.missing_class", file, *words)


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("val", "test"), ("val", "val")])
def test_a_slide_that_stands_in_the_splits_twice(
    task: SimulatedTask, refused: Refused, first: str, second: str
) -> None:
    file = task.split_dir / "splits_0.csv"
    ids = read_ids(file)
    ids[second].append(ids[first][0])
    write_ids(file, ids)
    (fault,) = refused()
    check_fault(fault, "split.repeated_slide", file, f"slide {ids[first][0]} stands in {first} and {second}")


def test_a_slide_of_a_split_that_is_not_in_the_table(task: SimulatedTask, refused: Refused) -> None:
    file = task.split_dir / "splits_0.csv"
    ids = read_ids(file)
    ids["val"] += ["SIM-9999", "SIM-9998"]
    write_ids(file, ids)
    (fault,) = refused()
    check_fault(fault, "split.unknown_slide", file, "2 slides", "('SIM-9999', 'SIM-9998')")


def test_a_slide_of_a_split_that_has_no_label(task: SimulatedTask, refused: Refused) -> None:
    change_text(task.root / "simulated.csv", f"{SLIDE},SIMULATED_A", f"{SLIDE},")
    for fold, fault in enumerate(refused(faults=2)):
        check_fault(fault, "split.unlabelled_slide", task.split_dir / f"splits_{fold}.csv", f"({SLIDE!r})")


def test_no_folder_of_splits(task: SimulatedTask, refused: Refused) -> None:
    shutil.rmtree(task.split_dir)
    for fold, fault in enumerate(refused(faults=2)):
        words = "--split_dir", "python create_splits.py --task "
        check_fault(fault, "split.missing", task.split_dir / f"splits_{fold}.csv", *words)


SPLIT_FAULTS = {
    "missing": (Path.unlink, "split.missing", ("--split_dir", "python create_splits.py --task ")),
    "no_column_val": (
        lambda path: change_text(path, ",val,", ",valid,", 1), "split.columns", ("'val'", "'train', 'valid', 'test'"),
    ),
    "no_bytes": (lambda path: path.write_bytes(b""), "split.unreadable", ()),
    "no_text": (lambda path: path.write_bytes(b"\xff\xfe\x00train"), "split.unreadable", ()),
}  # fmt: skip


@pytest.mark.parametrize("case", SPLIT_FAULTS)
def test_a_faulty_split_file(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.split_dir / "splits_1.csv"
    break_file, code, words = SPLIT_FAULTS[case]
    break_file(file)
    (fault,) = refused()
    check_fault(fault, code, file, *words)


def with_entry(value: object) -> Callable[[dict], dict]:
    """Replace the first explanation of SIMULATED_B."""

    def new(by_class: dict) -> dict:
        by_class["SIMULATED_B"][next(iter(by_class["SIMULATED_B"]))] = value
        return by_class

    return new


PROMPT_FAULTS = {
    "missing": (
        Path.unlink, "prompt.missing",
        ("--text_prompt", "python create_text_prompt.py --task simulated --classes SIMULATED_A SIMULATED_B"),
    ),
    "cut_off": (cut, "prompt.unreadable", ()),
    "no_text": (lambda path: path.write_bytes(b'{"SIMULATED_A": "\xff"}'), "prompt.unreadable", ()),
    "term_twice": (
        lambda path: change_text(path, "Simulated detail 0.1", "Simulated detail 0.0"), "prompt.unreadable",
        ("'Simulated detail 0.0' stands 2 times",),
    ),
    "class_twice": (
        lambda path: change_text(path, "SIMULATED_B", "SIMULATED_A"), "prompt.unreadable",
        ("'SIMULATED_A' stands 2 times",),
    ),
    "one_too_few": (
        lambda path: change_json(path, without_last), "prompt.number",
        ("'SIMULATED_B' has 15 descriptions", "16 (4 low ones and 3 high ones for each"),
    ),
    "empty": (lambda path: change_json(path, with_entry(" ")), "prompt.empty", ("'SIMULATED_B'",)),
    "number": (lambda path: change_json(path, with_entry(3)), "prompt.form", ("'SIMULATED_B'", "{term: ")),
    "list": (lambda path: change_json(path, list), "prompt.form", ("a list", "{class: {term: explanation}}")),
}  # fmt: skip


@pytest.mark.parametrize("case", PROMPT_FAULTS)
def test_a_faulty_file_of_descriptions(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.root / "simulated.json"
    break_file, code, words = PROMPT_FAULTS[case]
    break_file(file)
    (fault,) = refused()
    check_fault(fault, code, file, *words)
