"""The table of slides: columns, classes, labels and patients."""

from pathlib import Path

import pytest

from datasets.folders import FeatureFolders
from datasets.splits import read_split_ids
from datasets.task import (
    NO_LABEL,
    Slide,
    read_forced_magnifications,
    read_level0_magnifications,
    read_sites,
    read_slides,
    read_table,
)
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


def test_forced_magnifications_go_before_others(tmp_path: Path) -> None:
    table = tmp_path / "task.csv"
    table.write_text("slide_id,Force Magnification,level0_mag\na,40x,20\nb,,20\nc,10,\n")
    assert read_forced_magnifications(table) == {"a": 40, "c": 10}
    assert read_level0_magnifications(table) == {"a": 40, "b": 20, "c": 10}
    table.write_text("slide_id,force_magnification\na,-4\n")
    with expect_faults("table.magnification"):
        read_forced_magnifications(table)


def test_sites_come_from_the_barcode_then_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("slide_id,label,site\nTCGA-A7-0001-01Z,A,x\ns1,A, Basel \ns2,B,\n")
    assert read_sites(table) == {"TCGA-A7-0001-01Z": "A7", "s1": "Basel", "s2": ""}
    table.write_text("slide_id,label\nTCGA-A7-0001-01Z,A\ns1,A\n")
    assert read_sites(table) == {"TCGA-A7-0001-01Z": "A7", "s1": ""}


@pytest.mark.parametrize("header", ["Slide ID,Case-ID,LABEL", "SLIDE_ID,case id,Label", " slide-id , CASE_ID,label"])
def test_columns_in_another_spelling(table: Path, header: str) -> None:
    table.write_text(f"{header}\ns0,p0,A\ns1,p0,B\n")
    assert list(read_slides(table)[1].values()) == [Slide("s0", "p0", 0), Slide("s1", "p0", 1)]


@pytest.mark.parametrize("other", ["Slide_ID", "slide id", "SLIDE-ID"])
def test_a_column_in_two_spellings(table: Path, other: str) -> None:
    table.write_text(f"slide_id,{other},label\ns0,t0,A\ns1,t1,B\n")
    with expect_faults("table.columns") as faults:
        read_slides(table)
    assert "'slide_id' and '" in faults[0].found and other in faults[0].found


@pytest.mark.parametrize("labels", ["A a", "Tumour TUMOUR", "B1 b1"])
def test_classes_that_differ_in_case_alone(table: Path, labels: str) -> None:
    one, other = labels.split()
    table.write_text(f"slide_id,label\ns0,{one}\ns1,{other}\ns2,C\n")
    with expect_faults("table.classes") as faults:
        read_slides(table)
    assert repr(one) in faults[0].found and repr(other) in faults[0].found
    assert read_slides(table, [one, other, "C"])[0] == [one, other, "C"]  # a run that knows them keeps them


def test_a_table_without_labels_lists_what_it_has(table: Path) -> None:
    table.write_text("slide_id,class,age\ns0,A,50\n")
    with expect_faults("table.classes") as faults:
        read_slides(table)
    assert faults[0].found == "no column label; found ['slide_id', 'class', 'age']"


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("s1.svs", "s1"), ("s1.SVS", "s1"), ("s1.ome.tiff", "s1.ome"), ("s1.svs.h5", "s1"), ("s1.pt", "s1"),
        ("TCGA-69-7765-01Z-00-DX1.ac389366-febb", "TCGA-69-7765-01Z-00-DX1.ac389366-febb"), ("v1.50", "v1.50"),
        (DECOMPOSED, COMPOSED), (f"{DECOMPOSED}.ndpi", COMPOSED),
    ],
)  # fmt: skip
def test_names_of_slides_are_those_of_their_files(tmp_path: Path, table: Path, written: str, name: str) -> None:
    """In the table and in split files."""
    table.write_text(f"slide_id,label\n{written},A\ns2,{DECOMPOSED}\n")
    assert list(read_slides(table)[1].values()) == [Slide(name, name, 0), Slide("s2", "s2", 1)]
    assert read_slides(table, ["A", DECOMPOSED])[1]["s2"].label == 1  # the run of an earlier version
    split = tmp_path / "splits_0.csv"
    split.write_text(f",train,val,test\n0,{written},s2,s3\n")
    assert read_split_ids(split)["train"] == [name]


@pytest.mark.parametrize("there", [f"{COMPOSED}.h5", f"{DECOMPOSED}.h5", f"{COMPOSED}.svs.h5", f"{DECOMPOSED}.ndpi.h5"])
def test_features_under_another_spelling_of_the_name(tmp_path: Path, there: str) -> None:
    folders = FeatureFolders(tmp_path, "t", "e")
    folder = tmp_path / "t_e" / "e_5x"
    assert folders.low_file(COMPOSED) == folder / f"{COMPOSED}.h5"  # where it would be written
    folder.mkdir(parents=True)
    (folder / there).write_bytes(b"")
    assert folders.low_file(COMPOSED) == folder / there
    (folder.parent / "e_20x").mkdir()
    (folder.parent / "e_20x" / there).write_bytes(b"")
    assert folders.slide_ids("patches") == [COMPOSED]


def test_two_slides_that_share_a_file(table: Path) -> None:
    table.write_text("slide_id,label\ns0.svs,A\ns0.tif,B\n")
    with expect_faults("table.repeated_slide"):
        read_slides(table)


@pytest.mark.parametrize("name", ["../s0", "a/b", "..", "s\x07", '"s\n1"', 300 * "s", "s\u202e0"])
def test_names_that_no_file_can_have(table: Path, name: str) -> None:
    table.write_text(f"slide_id,label\n{name},A\ns1,B\n")
    with expect_faults("name.unusable"):
        read_slides(table)
