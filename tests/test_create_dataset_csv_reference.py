"""create_dataset_csv.py --reference: the tables of Camelyon16 and UBC-OCEAN from what they publish."""

from collections import Counter
from pathlib import Path

import pytest

from datasets.task import read_slides
from tests.conftest import FaultsOf, RunMain
from tests.support.slide_tables import csv_rows

SCRIPT = "create_dataset_csv"
TESTS = [f"test_{n:03}" for n in range(1, 131) if n != 49]
TUMORS = set(TESTS[:49])
"""129 test slides, 49 of them tumour, as published; which ones is made up."""


def camelyon(names: list[str], ending: str = "") -> str:
    return "".join(
        f"{name}{ending},{'Tumor,IDC,Macro' if name in TUMORS else 'Normal,-,None'}\n" for name in names
    )  # fmt: skip


def options(folder: Path, content: str, task: str, *more: str) -> list[str]:
    file = folder / "published.csv"
    file.write_text(content)
    return ["--task", task, "--reference", str(file), "--output", str(folder / f"{task}.csv"), *more]


# ---- Camelyon16 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [camelyon(TESTS), "name,class,type,size\n" + camelyon(TESTS), camelyon(TESTS, ".tif").replace("test", "Test")],
    ids=["as published", "header", "names of files"],
)
def test_camelyon16(run_main: RunMain, tmp_path: Path, content: str) -> None:
    code, output, errors = run_main(options(tmp_path, content, "camelyon16"), SCRIPT)
    assert (code, errors) == (0, "")
    rows = csv_rows(tmp_path / "camelyon16.csv")
    assert len(rows) == 399
    assert Counter((row["slide_id"].partition("_")[0], row["label"]) for row in rows) == {
        ("normal", "NORMAL"): 159, ("tumor", "TUMOR"): 111, ("test", "TUMOR"): 49, ("test", "NORMAL"): 80,
    }  # fmt: skip
    assert all(row["case_id"] == row["slide_id"] for row in rows)
    assert {row["slide_id"] for row in rows if row["label"] == "TUMOR" and row["slide_id"] > "test"} - TUMORS == {
        f"tumor_{n:03}" for n in range(1, 112)
    }
    assert "normal_086" not in {row["slide_id"] for row in rows}
    assert read_slides(tmp_path / "camelyon16.csv")[0] == ["NORMAL", "TUMOR"]
    assert "test_114 is not annotated exhaustively" in output


def test_known_oddities_of_camelyon16_are_notes(run_main: RunMain, tmp_path: Path) -> None:
    content = camelyon(["test_049", *(name for name in TESTS if name not in ("test_114", "test_007")), "test_001"])
    code, output, errors = run_main(options(tmp_path, content, "camelyon16"), SCRIPT)
    assert (code, errors) == (0, "")
    found = {row["slide_id"] for row in csv_rows(tmp_path / "camelyon16.csv")}
    assert len(found) == 397
    assert not found & {"test_049", "test_114", "test_007"}
    assert "note: without a row, so not in the table: test_007, test_114\n" in output
    assert "left out: 1 slides of test_049, which Camelyon16's README calls a duplicate" in output
    assert "left out: 1 slides of test_001, which stands there again" in output


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (camelyon(TESTS) + "test_001,Normal,-,None\n", ["reference.repeated"]),
        (camelyon(TESTS).replace("test_002,Tumor", "test_002,Benign"), ["reference.class"]),
        (camelyon(TESTS) + "test_131,Tumor\ntumor_001,Tumor\ntest_1\n", ["reference.slide"] * 3),
        (camelyon(TESTS).replace("test_002,Tumor,IDC,Macro", "test_002"), ["reference.class"]),
        ("a,b\n1,2\n", ["reference.form"]),
        ("name,class\n", ["reference.form"]),
        ("", ["reference.unreadable"]),
        ("image_id,label\n4,EC\n", ["reference.form"]),
    ],
)
def test_what_is_no_published_list_is_refused(
    faults_of: FaultsOf, tmp_path: Path, content: str, codes: list[str]
) -> None:
    assert [fault.code for fault in faults_of(options(tmp_path, content, "camelyon16"), SCRIPT)] == codes
    assert not (tmp_path / "camelyon16.csv").exists()


def test_a_list_that_is_not_there_or_would_be_replaced(faults_of: FaultsOf, tmp_path: Path) -> None:
    given = options(tmp_path, camelyon(TESTS), "camelyon16")
    same = [*given[:-1], str(tmp_path / "published.csv"), "--overwrite"]
    assert [fault.code for fault in faults_of(same, SCRIPT)] == ["output.is_input"]
    (tmp_path / "published.csv").unlink()
    assert [fault.code for fault in faults_of(given, SCRIPT)] == ["file.missing"]


# ---- UBC-OCEAN -------------------------------------------------------------------------------------------------------

OCEAN = """image_id,label,image_width,image_height,is_tma
4,HGSC,23785,20008,False
66,LGSC,48871,48195,False
91,HGSC,3388,3388,True
281,LGSC,42309,15545,False
286,EC,37204,30020,False
1080,HGSC,31336,23200,False
4211,MC,40000,30000,FALSE
4212,CC,40000,30000,false
4963,CC,2964,2964,True
"""


def test_ubc_ocean(run_main: RunMain, tmp_path: Path) -> None:
    code, output, errors = run_main(options(tmp_path, OCEAN, "ubc_ocean"), SCRIPT)
    assert (code, errors) == (0, "")
    rows = csv_rows(tmp_path / "ubc_ocean.csv")
    assert [(row["slide_id"], row["label"]) for row in rows] == [
        ("4212", "CC"), ("286", "EC"), ("1080", "HGSC"), ("4", "HGSC"), ("281", "LGSC"), ("66", "LGSC"), ("4211", "MC"),
    ]  # fmt: skip
    assert {row["level0_mag"] for row in rows} == {"20"}
    assert "7 whole slides of UBC-OCEAN, 2 tissue microarrays left out" in output
    assert "left out: 1 slides of tissue microarrays (is_tma), HGSC" in output
    assert read_slides(tmp_path / "ubc_ocean.csv")[0] == ["CC", "EC", "HGSC", "LGSC", "MC"]


@pytest.mark.parametrize(
    ("before", "after", "codes"),
    [
        (",is_tma", "", ["reference.unreadable"]),
        ("label", "class", ["reference.form"]),
        ("4,HGSC", "4,Other", ["reference.class"]),
        ("8195,False", "8195,maybe", ["reference.tma"]),
        ("281,", "66,", ["reference.repeated"]),
        ("66,", "a/b,", ["name.unusable"]),
    ],
)
def test_faults_of_ubc_ocean(faults_of: FaultsOf, tmp_path: Path, before: str, after: str, codes: list[str]) -> None:
    content = OCEAN.replace(before, after, 1)
    assert [fault.code for fault in faults_of(options(tmp_path, content, "ubc_ocean"), SCRIPT)] == codes


def test_microarrays_alone_are_no_task(faults_of: FaultsOf, tmp_path: Path) -> None:
    content = "".join(line for line in OCEAN.splitlines(True) if "False" not in line and "FALSE" not in line)
    content = content.replace("4212,CC,40000,30000,false\n", "")
    assert [fault.code for fault in faults_of(options(tmp_path, content, "u"), SCRIPT)] == ["reference.form"]


@pytest.mark.parametrize(
    "more", [("--labels", "A=B"), ("--manifest", "m"), ("--case-pattern", "(a)"), ("--data_root_dir", "d"), ("--gdc",)]
)
def test_options_of_other_sources_are_refused(run_main: RunMain, tmp_path: Path, more: tuple[str, ...]) -> None:
    code, _, errors = run_main(options(tmp_path, OCEAN, "ubc_ocean", *more), SCRIPT)
    assert code == 2
    assert "only with --" in errors or "not allowed with" in errors
