"""The audit of split files finds each planted fault."""

import hashlib
import json
from pathlib import Path

import pytest

from datasets.split_report import audit_folder
from datasets.splits import Split, split_files
from datasets.task import Slide

# ---- describing and auditing -----------------------------------------------------------------------------------------


def write_folds(folder: Path, *folds: dict[str, list[str]]) -> None:
    for number, parts in enumerate(folds):
        split = Split(number, **{name: [Slide(slide_id, "") for slide_id in ids] for name, ids in parts.items()})
        (folder / f"splits_{number}.csv").write_text(split.to_csv())


def audited_slides() -> dict[str, Slide]:
    """a0 to a5 of class A, b0 to b5 of class B, each with a patient of its own."""
    return {
        f"{name}{n}": Slide(f"{name}{n}", f"p_{name}{n}", label) for label, name in enumerate("ab") for n in range(6)
    }


GOOD = {"train": ["a0", "b0"], "val": ["a1", "b1"], "test": ["a2", "b2", "b3"]}


def test_good_splits_have_no_faults(tmp_path: Path) -> None:
    write_folds(tmp_path, GOOD, GOOD)
    (tmp_path / "splits_0_bool.csv").write_text("not a split file")
    splits, faults = audit_folder(tmp_path, ["A", "B"], audited_slides(), 1)
    assert faults == []
    assert [[slide.slide_id for slide in split.test] for split in splits] == [GOOD["test"]] * 2
    assert [split.fold for split in splits] == [0, 1]


@pytest.mark.parametrize(
    ("change", "code", "found"),
    [
        ({"val": ["a1", "b1", "x", "y"]}, "split.unknown_slide", "2 slides are not in the table of slides ('x', 'y')"),
        ({"val": ["a1", "b1", "a0"]}, "split.repeated_slide", "slide a0 stands in train and val"),
        ({"test": ["b2", "b3"]}, "split.missing_class", "no slide of class 'A' in test"),
        ({"train": ["a0", "b0", "b4"]}, "split.shots", "found 2 training slides of class 'B'"),
    ],
)
def test_each_fault_is_named_with_its_file(tmp_path: Path, change: dict[str, list[str]], code: str, found: str) -> None:
    write_folds(tmp_path, GOOD, {**GOOD, **change})
    _, faults = audit_folder(tmp_path, ["A", "B"], audited_slides(), 1)
    assert (faults[0].code, faults[0].found) == (code, found)
    assert {fault.where for fault in faults} == {str(tmp_path / "splits_1.csv")}


def test_shared_patients_are_a_fault(tmp_path: Path) -> None:
    write_folds(tmp_path, GOOD)
    slides = audited_slides()
    slides["a2"] = Slide("a2", slides["a0"].case_id, 0)
    slides["b3"] = Slide("b3", slides["b1"].case_id, 1)
    slides["b2"] = Slide("b2", slides["a1"].case_id, 1)
    _, faults = audit_folder(tmp_path, ["A", "B"], slides)
    (fault,) = faults
    assert (fault.code, fault.where) == ("split.shared_patients", str(tmp_path / "splits_0.csv"))
    assert fault.found == "patients shared between train/val 0, train/test 1, val/test 2"


def test_a_missing_fold_and_an_unreadable_one_are_faults(tmp_path: Path) -> None:
    write_folds(tmp_path, GOOD, GOOD, GOOD)
    (tmp_path / "splits_1.csv").unlink()
    (tmp_path / "splits_2.csv").write_text("train,val\na0,b0\n")
    splits, faults = audit_folder(tmp_path, ["A", "B"], audited_slides())
    assert list(split_files(tmp_path)) == [0, 2]
    assert [split.fold for split in splits] == [0]
    assert [fault.code for fault in faults] == ["split.missing", "split.columns"]
    assert (faults[0].found, faults[0].expected) == ("no splits_1.csv", "folds 0 to 2")


def test_files_are_held_against_their_manifest(tmp_path: Path) -> None:
    write_folds(tmp_path, GOOD, GOOD)
    digests = [hashlib.sha256((tmp_path / f"splits_{n}.csv").read_bytes()).hexdigest() for n in range(2)]
    folds = [{"fold": number, "sha256": digest} for number, digest in enumerate(digests)]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"folds": folds}))
    assert audit_folder(tmp_path, ["A", "B"], audited_slides())[1] == []
    manifest.write_text(json.dumps({"folds": [folds[0], {"fold": 1, "sha256": "0"}, {"fold": 2, "sha256": "0"}]}))
    faults = audit_folder(tmp_path, ["A", "B"], audited_slides())[1]
    assert [fault.where for fault in faults] == [str(tmp_path / f"splits_{n}.csv") for n in (1, 2)]
    assert {fault.code for fault in faults} == {"manifest.other_file"}
    for text in ("{", "[]", '{"folds": [{}]}', '{"folds": 1}'):
        manifest.write_text(text)
        (fault,) = audit_folder(tmp_path, ["A", "B"], audited_slides())[1]
        assert (fault.code, fault.where) == ("manifest.unreadable", str(manifest))
