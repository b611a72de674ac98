"""Splits against pandas on the released files, the patients they share, and drawing fewer slides."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.splits import (
    Split,
    build_split,
    patient_audit,
    read_split_ids,
    shared_patients,
    shared_sites,
    take_few,
    take_share,
)
from datasets.task import Slide, read_slides
from tests.support.faults import expect_faults
from utils.errors import UserError

CLASSES = {"tcga_nsclc": ["LUAD", "LUSC"], "tcga_rcc": ["CCRCC", "CHRCC", "PRCC"], "tcga_brca": ["IDC", "ILC"]}
PARTS = ("train", "val", "test")
repeatable = settings(derandomize=True, deadline=None)


def split_file(released: Path, task: str, fold: int) -> Path:
    return released / "splits" / task / f"{task}_16" / f"splits_{fold}.csv"


def released_splits(released: Path, task: str) -> list[Split]:
    names, slides = read_slides(released / "dataset_csv" / f"{task}.csv")
    files = [split_file(released, task, fold) for fold in range(5)]
    return [build_split(file, fold, read_split_ids(file), slides, names) for fold, file in enumerate(files)]


# ---- the released files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", CLASSES)
def test_released_splits_hold_the_slides_and_labels_that_pandas_reads(released: Path, task: str) -> None:
    table = pd.read_csv(released / "dataset_csv" / f"{task}.csv").set_index("slide_id")["label"]
    for fold, split in enumerate(released_splits(released, task)):
        columns = pd.read_csv(split_file(released, task, fold), index_col=0)
        assert split.fold == fold
        for name, slides in split.parts():
            expected = columns[name].dropna().tolist()
            assert [slide.slide_id for slide in slides] == expected
            assert [CLASSES[task][slide.label] for slide in slides] == table[expected].tolist()
        assert Counter(slide.label for slide in split.train) == dict.fromkeys(range(len(CLASSES[task])), 16)


@pytest.mark.parametrize(
    ("task", "train_test", "val_test"),
    [
        ("tcga_nsclc", [3, 2, 2, 1, 5], [18, 13, 12, 18, 15]),
        ("tcga_rcc", [1, 2, 2, 2, 1], [8, 11, 10, 8, 4]),
        ("tcga_brca", [1, 0, 0, 0, 0], [5, 1, 3, 3, 0]),
    ],
)
def test_patients_shared_in_the_released_splits(
    released: Path, task: str, train_test: list[int], val_test: list[int]
) -> None:
    splits = released_splits(released, task)
    for first, counts in (("train", train_test), ("val", val_test)):
        for fold, (split, count) in enumerate(zip(splits, counts, strict=True)):
            columns = pd.read_csv(split_file(released, task, fold), index_col=0)
            patients = [set(columns[name].dropna().str[:12]) for name in (first, "test")]
            assert shared_patients(split, first, "test") == patients[0] & patients[1]
            assert len(shared_patients(split, first, "test")) == count
        assert f"{first} and test share {', '.join(map(str, counts))}" in str(patient_audit(splits))


# ---- the audit -------------------------------------------------------------------------------------------------------


def make_split(fold: int = 0, **parts: list[tuple[str, str]]) -> Split:
    """Splits from (slide_id, case_id) pairs; a part that is not given is empty."""
    slides = {name: [Slide(slide_id, case_id, 0) for slide_id, case_id in parts.get(name, [])] for name in PARTS}
    return Split(fold, **slides)


def test_the_audit_is_silent_without_shared_patients() -> None:
    split = make_split(train=[("a", "p1")], val=[("b", "p2")], test=[("c", "p3"), ("d", "p3")])
    assert patient_audit([split]) is None


def test_the_audit_counts_patients_by_fold_and_pair() -> None:
    first = make_split(3, train=[("a", "p1")], val=[("b", "p2")], test=[("c", "p2"), ("d", "p2"), ("e", "p4")])
    second = make_split(4, train=[("a", "p1"), ("b", "p2")], val=[("f", "p1"), ("g", "p2")], test=[("e", "p4")])
    sentence = str(patient_audit([first, second]))
    assert "in fold 3, 4: " in sentence
    assert "train and val share 0, 2;" in sentence
    assert "val and test share 1, 0." in sentence
    assert "train and test" not in sentence
    assert "create_splits.py --group patient" in sentence


def test_tcga_patients_are_told_by_the_slide_not_by_the_case() -> None:
    train, test = "TCGA-69-7765-01Z-00-DX1.AAAA", "TCGA-69-7765-01Z-00-DX2.BBBB"
    split = make_split(train=[(train, "patient_0")], test=[(test, "patient_1"), ("TCGA-69-7766-01Z", "patient_0")])
    assert shared_patients(split, "train", "test") == {"TCGA-69-7765"}


def test_unknown_sites_are_not_shared() -> None:
    a, b, c, d = (Slide(name, name, 0) for name in "abcd")
    split = Split(0, [a, b], [c], [d])
    assert shared_sites(split, "train", "val", {"a": "", "b": "X", "c": "", "d": "X"}) == set()
    assert shared_sites(split, "train", "test", {"a": "", "b": "X", "c": "", "d": "X"}) == {"X"}


# ---- reading and writing ---------------------------------------------------------------------------------------------


def test_a_split_survives_its_csv(tmp_path: Path) -> None:
    slides = {f"s{number}": Slide(f"s{number}", f"p{number}", number % 2) for number in range(9)}
    order = [slides[f"s{number}"] for number in (4, 1, 0, 3, 2, 8, 7, 5, 6)]
    split = Split(2, order[:2], order[2:5], order[5:])
    file = tmp_path / "splits_2.csv"
    file.write_text(split.to_csv())
    assert file.read_text().splitlines()[0] == ",train,val,test"
    assert file.read_text().splitlines()[1:] == ["0,s4,s0,s8", "1,s1,s3,s7", "2,,s2,s5", "3,,,s6"]
    assert build_split(file, 2, read_split_ids(file), slides, ["A", "B"]) == split


def test_ids_are_read_as_text_and_without_blanks_around(tmp_path: Path) -> None:
    file = tmp_path / "splits_0.csv"
    file.write_text(",train,val,test\n0, 007,NA,1.50\n1,nan ,,\n2, ,,2\n")
    assert read_split_ids(file) == {"train": ["007", "nan"], "val": ["NA"], "test": ["1.50", "2"]}


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "splits_0.csv"
    file.write_text("test,note,train,val\nc,x,a,b\n")
    assert read_split_ids(file) == {"train": ["a"], "val": ["b"], "test": ["c"]}


def test_the_command_for_a_missing_file_is_named(tmp_path: Path) -> None:
    with expect_faults("split.missing") as faults:
        read_split_ids(tmp_path / "splits_0.csv", "python create_splits.py --task T --k 3")
    assert faults[0].where == str(tmp_path / "splits_0.csv")
    assert faults[0].mend.endswith("python create_splits.py --task T --k 3")


def test_all_faults_of_a_split_are_listed(tmp_path: Path) -> None:
    slides = {name: Slide(name, name, label) for name, label in (("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", -1))}
    ids = {"train": ["a", "b", "b", "x", "y"], "val": ["c"], "test": ["a", "d", "e"]}
    with pytest.raises(UserError) as caught:
        build_split(tmp_path / "s.csv", 0, ids, slides, ["A", "B"])
    assert len(caught.value.faults) == 5
    for part in (
        "slide a stands in train and test",
        "slide b stands in train and train",
        "2 slides are not in the table of slides ('x', 'y')",
        "1 slides have no label in the table of slides ('e')",
        "no slide of class 'B' in val",
    ):
        assert part in str(caught.value)


def test_a_class_is_not_missed_where_unknown_slides_may_be_of_it(tmp_path: Path) -> None:
    slides = {name: Slide(name, name, label) for name, label in (("a", 0), ("b", 1), ("c", 0), ("d", 1))}
    ids = {"train": ["a", "b"], "val": ["x"], "test": ["c", "d"]}
    with expect_faults("split.unknown_slide"):
        build_split(tmp_path / "s.csv", 0, ids, slides, ["A", "B"])


# ---- fewer slides ----------------------------------------------------------------------------------------------------


@st.composite
def any_split(draw: st.DrawFn) -> Split:
    """Up to 12 slides of three classes in each part, in any order."""
    parts = {}
    for name in PARTS:
        labels = draw(st.lists(st.integers(0, 2), max_size=12))
        parts[name] = [Slide(f"{name}{number}", "p", label) for number, label in enumerate(labels)]
    return Split(1, **parts)


def is_subsequence(part: list[Slide], whole: list[Slide]) -> bool:
    remaining = iter(whole)
    return all(slide in remaining for slide in part)


@repeatable
@given(any_split(), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_a_share_is_drawn_from_every_class_of_the_training_slides(split: Split, share: float, seed: int) -> None:
    taken = take_share(split, share, seed)
    assert (taken.fold, taken.val, taken.test) == (split.fold, split.val, split.test)
    assert is_subsequence(taken.train, split.train)
    before, after = (Counter(slide.label for slide in part.train) for part in (split, taken))
    assert after.keys() == before.keys()
    for label, count in before.items():
        assert after[label] >= 1
        assert abs(after[label] - max(1, share * count)) <= 0.5
    assert take_share(split, share, seed) == taken


def test_the_whole_share_is_the_whole_split() -> None:
    split = make_split(train=[(f"s{number}", "p") for number in range(7)])
    assert take_share(split, 1.0, 3) == split


def test_another_seed_draws_other_slides() -> None:
    split = make_split(train=[(f"s{number}", "p") for number in range(40)])
    draws = {tuple(slide.slide_id for slide in take_share(split, 0.5, seed).train) for seed in range(5)}
    assert len(draws) == 5


@repeatable
@given(any_split(), st.integers(1, 5))
def test_few_are_the_first_of_every_class_in_every_part(split: Split, number: int) -> None:
    taken = take_few(split, number)
    for (name, few), (_, all_slides) in zip(taken.parts(), split.parts(), strict=True):
        expected = [
            slide
            for place, slide in enumerate(all_slides)
            if [other.label for other in all_slides[:place]].count(slide.label) < number
        ]
        assert few == expected, name


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_the_boolean_form_of_clam(tmp_path: Path, yes: str, no: str) -> None:
    """As CLAM's splits_<fold>_bool.csv: the slides in the index column."""
    file = tmp_path / "splits_0.csv"
    file.write_text(
        f",train,val,test\ns0.svs,{yes},{no},{no}\ns1,{no},{yes},{no}\ns2,{no},{no},{yes}\ns3,{yes},{no},{no}\n"
    )
    assert read_split_ids(file) == {"train": ["s0", "s3"], "val": ["s1"], "test": ["s2"]}


def test_slides_may_be_called_as_booleans_are(tmp_path: Path) -> None:
    file = tmp_path / "splits_0.csv"
    file.write_text(",train,val,test\n0,true,s1,s2\n")
    assert read_split_ids(file) == {"train": ["true"], "val": ["s1"], "test": ["s2"]}


def test_an_id_that_shifts_a_row_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "splits_0.csv"
    file.write_text(",train,val,test\n0,s,0,s1,s2\n")
    with expect_faults("split.unreadable"):
        read_split_ids(file)
