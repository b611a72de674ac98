"""The table of slides: columns, classes, labels and patients."""

from pathlib import Path

import pytest

from datasets.task import NO_LABEL, Slide, read_level0_magnifications, read_sites, read_slides, read_table
from tests.conftest import SHARED
from tests.support.faults import expect_faults


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "task.csv"


def test_classes_are_the_sorted_labels_not_those_met_first(table: Path) -> None:
    table.write_text("case_id,slide_id,label,level0_mag\np0,s0,TUMOR,40\np1,s1,NORMAL,20\np1,s2,TUMOR,40\n")
    names, slides = read_slides(table)
    assert names == ["NORMAL", "TUMOR"]
    assert slides == {"s0": Slide("s0", "p0", 1), "s1": Slide("s1", "p1", 0), "s2": Slide("s2", "p1", 1)}
    assert list(slides) == ["s0", "s1", "s2"]


def test_values_stay_text(table: Path) -> None:
    table.write_text("case_id,slide_id,label\n01,007,1\nNA,1.50,0\n")
    names, slides = read_slides(table)
    assert names == ["0", "1"]
    assert slides == {"007": Slide("007", "01", 1), "1.50": Slide("1.50", "NA", 0)}


def test_blanks_and_a_byte_order_mark_are_passed_over(table: Path) -> None:
    table.write_bytes(b"\xef\xbb\xbfslide_id, label\r\n s0 , A \r\n s1,B\r\n")
    names, slides = read_slides(table)
    assert (names, list(slides)) == (["A", "B"], ["s0", "s1"])


def test_a_slide_is_its_own_case_where_the_table_names_none(table: Path) -> None:
    table.write_text("slide_id,label\ns0,A\ns1,B\n")
    assert read_slides(table)[1]["s1"] == Slide("s1", "s1", 1)


def test_slides_may_be_without_label(table: Path) -> None:
    table.write_text("slide_id,label\ns0,A\ns1,\ns2,B\n")
    names, slides = read_slides(table)
    assert names == ["A", "B"]
    assert [slide.label for slide in slides.values()] == [0, NO_LABEL, 1]


def test_known_classes_keep_their_order_and_allow_a_table_without_labels(table: Path) -> None:
    table.write_text("slide_id\ns0\ns1\n")
    names, slides = read_slides(table, ["B", "A"])
    assert names == ["B", "A"]
    assert [slide.label for slide in slides.values()] == [NO_LABEL, NO_LABEL]
    table.write_text("slide_id,label\ns0,A\n")
    assert read_slides(table, ["B", "A"])[1]["s0"].label == 1


def test_a_label_that_is_no_known_class(table: Path) -> None:
    table.write_text("slide_id,label\ns0,A\ns1,C\n")
    with expect_faults("table.unknown_class") as faults:
        read_slides(table, ["A", "B"])
    assert (faults[0].where, faults[0].expected) == (str(table), "one of ['A', 'B']")


def test_slides_that_differ_in_blanks_only_are_the_same(table: Path) -> None:
    table.write_text("slide_id,label\ns0,A\ns1,B\n s0 ,B\n")
    with expect_faults("table.repeated_slide"):
        read_table(table)


def test_a_row_without_slide_is_refused(table: Path) -> None:
    table.write_text("slide_id,label\ns0,A\n,B\ns1,B\n")
    with expect_faults("table.nameless_slide"):
        read_table(table)


@pytest.mark.parametrize("label", ["", "A"])
def test_fewer_than_two_classes(table: Path, label: str) -> None:
    table.write_text(f"slide_id,label\ns0,{label}\ns1,{label}\n")
    with expect_faults("table.classes"):
        read_slides(table)


@pytest.mark.parametrize(
    ("slide_id", "patient"),
    [
        ("TCGA-69-7765-01Z-00-DX1.ac389366-febb", "TCGA-69-7765"),
        ("TCGA_69_7765-01Z", "case"),
        ("slide_of_TCGA-69-7765", "case"),
        ("tumor_001", "case"),
    ],
)
def test_the_patient_of_a_slide(slide_id: str, patient: str) -> None:
    assert Slide(slide_id, "case").patient == patient


@pytest.mark.parametrize(
    ("task", "num_slides", "num_patients"),
    [("tcga_nsclc", 1042, 945), ("tcga_rcc", 872, 831), ("tcga_brca", 1055, 991)],
)
def test_slides_and_patients_of_the_released_tables(task: str, num_slides: int, num_patients: int) -> None:
    file = SHARED / "released_assets" / "dataset_csv" / f"{task}.csv"
    if not file.exists():
        pytest.skip("the released assets (../shared/released_assets) are not here")
    slides = read_slides(file)[1].values()
    assert len(slides) == num_slides
    assert len({slide.case_id for slide in slides}) == num_slides  # a counter, not the patient
    assert len({slide.patient for slide in slides}) == num_patients


def test_level0_magnifications_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "task.csv"
    table.write_text("case_id,slide_id,label,level0_mag\np,a,X,40\np,b,X,\np,c,Y,20x\n")
    assert read_level0_magnifications(table) == {"a": 40, "c": 20}
    table.write_text("slide_id,label\na,X\n")
    assert read_level0_magnifications(table) == {}
    table.write_text("slide_id,level0_mag\na,forty\n")
    with expect_faults("table.magnification"):
        read_level0_magnifications(table)


def test_sites_come_from_the_barcode_then_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("slide_id,label,site\nTCGA-A7-0001-01Z,A,x\ns1,A, Basel \ns2,B,\n")
    assert read_sites(table) == {"TCGA-A7-0001-01Z": "A7", "s1": "Basel", "s2": ""}
    table.write_text("slide_id,label\nTCGA-A7-0001-01Z,A\ns1,A\n")
    assert read_sites(table) == {"TCGA-A7-0001-01Z": "A7", "s1": ""}
