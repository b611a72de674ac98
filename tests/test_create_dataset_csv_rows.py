"""create_dataset_csv.py --table: which rows become slides, what is left out and counted, and what is refused."""

from pathlib import Path

import pytest

from tests.conftest import FaultsOf, RunMain
from tests.support.faults import check_fault
from tests.support.slide_tables import PLAIN, converting, rows_of

SCRIPT = "create_dataset_csv"
TCGA = "TCGA-AA-000{}-{}.4F2B"


@pytest.mark.parametrize("said", ["NA", "nan", "NaN", "", "N/A", "None", "null", "<NA>", "'--", "#N/A"])
def test_rows_without_a_label_are_left_out_and_counted(run_main: RunMain, tmp_path: Path, said: str) -> None:
    table = f"slide,patient,category\ns0,p0,A\ns1,p1,B\ns2,p2,{said}\ns3,p3,{said}\n"
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}), SCRIPT)
    assert (code, rows_of(tmp_path)) == (0, PLAIN)
    assert "left out: 2 slides of " in output


def test_what_stands_for_no_label_is_counted_together_and_apart(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,patient,category\ns0,p0,A\ns1,p1,B\ns2,p2,NA\ns3,p3,nan\ns4,p4,\ns5,p5,NA\ns6,p6,unknown\n"
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}, "--labels", "A", "B"), SCRIPT)
    assert (code, rows_of(tmp_path)) == (0, PLAIN)
    assert "left out: 4 slides of " in output and "('NA' in 2, 'nan' in 1, blank in 1)" in output
    assert "left out: 1 slides of " in output and "'unknown'" in output


def test_rows_without_a_slide_are_left_out_and_counted(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,patient,category\ns0,p0,A\ns1,p1,B\n,p2,A\nNA,p3,A\nnan,p3,B\n"
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}), SCRIPT)
    assert (code, rows_of(tmp_path)) == (0, PLAIN)
    assert "left out: 3 slides of " in output


def test_slides_of_patients_that_the_second_table_lacks(run_main: RunMain, tmp_path: Path) -> None:
    slides = "FILENAME,PATIENT\ns0,p0\ns1,p1\ns2,p2\ns3,p3\n"
    clini = "PATIENT,label\np0,A\np1,B\np1,B\np3,A\np3,B\np4,A\n"
    code, output, _ = run_main(converting(tmp_path, {"clini.csv": clini, "slides.csv": slides}), SCRIPT)
    assert (code, rows_of(tmp_path)) == (0, PLAIN)
    lines = [line for line in output.splitlines() if line.startswith("left out: 1 slides of ")]
    assert len(lines) == 2, "p2 is not there, p3 has two labels"
    assert any("('A', 'B')" in line for line in lines)


def test_tables_of_other_patients_are_no_pair(faults_of: FaultsOf, tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {"a.csv": "FILENAME,PATIENT\ns0,p0\ns1,p1\n", "b.csv": "PATIENT,label\n1,A\n2,B\n"}
    faults = faults_of(converting(tmp_path, tables), SCRIPT)
    check_fault(faults[0], "table.unjoined", tmp_path / "a.csv", "'p0'", "'1'")


def test_labels_spelt_alike_are_one_class_and_told(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,label\n" + "".join(f"s{k},{label}\n" for k, label in enumerate(["luad", "LUAD", "LUAD", "LUSC"]))
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}), SCRIPT)
    assert code == 0
    assert [row[2] for row in rows_of(tmp_path)] == ["LUAD"] * 3 + ["LUSC"]
    assert "'LUAD' in 2 rows" in output and "'luad' in 1 rows" in output


def test_patients_in_two_classes_are_told(run_main: RunMain, tmp_path: Path) -> None:
    """By the barcode where there is one, whatever the table calls the patient."""
    slides = [TCGA.format(1, "01Z-00-DX1"), TCGA.format(1, "01Z-00-DX2"), "s2", "s3"]
    cells = zip(slides, ["q0", "q1", "p2", "p3"], "ABAB", strict=True)
    table = "slide,patient,label\n" + "".join(f"{','.join(row)}\n" for row in cells)
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}), SCRIPT)
    assert (code, len(rows_of(tmp_path))) == (0, 4)
    assert [line for line in output.splitlines() if "several classes" in line] == [
        "note: 1 patients have slides of several classes: TCGA-AA-0001 (A and B)"
    ]


PARTS = ["01Z-00-DX1", "01Z-00-DX2", "01A-01-TS1", "11A-01-TSA", "01A-01-BS1", "01A-02-MSB"]
NAMES = [TCGA.format(number, part) for number, part in enumerate([*PARTS, "no type"])]
OF_TCGA = "slide,label\n" + "".join(f"{name}{label}.svs,{label}\n" for label in "AB" for name in NAMES)


@pytest.mark.parametrize(
    ("chosen", "parts"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6]),
        (["DX"], [0, 1]),
        (["diagnostic"], [0, 1]),
        (["TS"], [2, 3]),
        (["BS", "MS"], [4, 5]),
        (["tissue"], [2, 3, 4, 5]),
        (["both"], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_types_of_slides_are_counted_and_chosen(
    run_main: RunMain, tmp_path: Path, chosen: list[str], parts: list[int]
) -> None:
    options = converting(tmp_path, {"t.csv": OF_TCGA}, *(["--slide-type", *chosen] if chosen else []))
    code, output, _ = run_main(options, SCRIPT)
    assert code == 0
    kept = [slide for _, slide, label, _ in rows_of(tmp_path) if label == "A"]
    assert kept == [f"{NAMES[part]}A" for part in parts]
    if not chosen:
        assert "slide types of TCGA: 4 DX" in output and "4 TS" in output and "2 BS" in output and "2 MS" in output


def test_labels_are_chosen_and_renamed(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,OncoTreeCode\n" + "".join(f"s{k},{code}\n" for k, code in enumerate(["IDC", "ILC", "MDLC", "idc"]))
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}, "--labels", "IDC=ductal", "ILC"), SCRIPT)
    assert code == 0
    assert [row[1:3] for row in rows_of(tmp_path)] == [("s1", "ILC"), ("s0", "ductal"), ("s3", "ductal")]
    assert "left out: 1 slides of " in output and "'MDLC'" in output


def test_slides_that_stand_twice(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,patient,label\ns0,p0,A\ns1,p1,B\ns1.svs,p1,B\nx/s0,p0,A\n"
    code, output, _ = run_main(converting(tmp_path, {"t.csv": table}), SCRIPT)
    assert (code, rows_of(tmp_path)) == (0, PLAIN)
    assert "left out: 2 slides of " in output


def test_patients_come_from_names_where_the_table_has_none(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,case,label\nx_1,,A\nx_2,NA,A\ny_1,p9,B\n" + TCGA.format(1, "01Z-00-DX1") + ",,B\n"
    code, *_ = run_main(converting(tmp_path, {"t.csv": table}, "--case-pattern", "^(.*)_"), SCRIPT)
    assert code == 0
    assert [row[0] for row in rows_of(tmp_path)] == ["x", "x", "TCGA-AA-0001", "p9"]


def test_what_the_project_reads_besides_is_kept(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide;patient;label;Site;note\ns0;p0;A;here;x\ns1;p1;B;;y\n"
    assert run_main(converting(tmp_path, {"t.csv": table}), SCRIPT)[0] == 0
    assert (tmp_path / "made.csv").read_text() == ("case_id,slide_id,label,level0_mag,site\np0,s0,A,,here\np1,s1,B,,\n")


REFUSED = {
    "two labels": ("slide,label\ns0,A\ns0.svs,B\ns1,B\n", "table.repeated_slide", "'A' and 'B'"),
    "two patients": ("slide,patient,label\ns0,p,A\ns0,q,A\ns1,r,B\n", "table.repeated_slide", "'p' and 'q'"),
    "one class": ("slide,label\ns0,A\ns1,A\ns2,NA\n", "table.classes", "'NA'"),
    "no magnification": ("slide,label,level0_mag\ns0,A,high\ns1,B,40\n", "table.magnification", "'high'"),
    "names that no file can have": ("slide,label\n.s0,A\ns1,B\n", "name.unusable", ".s0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_make_none(faults_of: FaultsOf, tmp_path: Path, case: str) -> None:
    table, code, word = REFUSED[case]
    faults = faults_of(converting(tmp_path, {"t.csv": table}), SCRIPT)
    check_fault(faults[0], code, tmp_path / "t.csv", word)
    assert not (tmp_path / "made.csv").exists()


def test_labels_that_are_not_there(faults_of: FaultsOf, tmp_path: Path) -> None:
    options = converting(tmp_path, {"t.csv": "slide,label\ns0,A\ns1,B\n"}, "--labels", "A", "C=x")
    check_fault(faults_of(options, SCRIPT)[0], "option.value", "--labels", "'c'", "'A', 'B'")


def test_the_table_that_is_read_is_not_replaced(faults_of: FaultsOf, tmp_path: Path) -> None:
    options = converting(tmp_path, {"t.csv": "slide,label\ns0,A\ns1,B\n"}, "--output", str(tmp_path / "t.csv"))
    assert [fault.code for fault in faults_of([*options, "--overwrite"], SCRIPT)] == ["output.is_input"]


def test_faults_of_both_files_are_told(faults_of: FaultsOf, tmp_path: Path) -> None:
    faults = faults_of([*converting(tmp_path, {"a.csv": b"", "b.csv": b"PK\x03\x04"})], SCRIPT)
    assert [(fault.code, fault.where) for fault in faults] == [
        ("table.unreadable", str(tmp_path / "a.csv")), ("table.unreadable", str(tmp_path / "b.csv")),
    ]  # fmt: skip
