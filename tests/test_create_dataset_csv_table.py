"""create_dataset_csv.py --table: tables of other tools, in the forms that they write, become a task's table."""

from pathlib import Path

import pytest

from datasets.task import read_slides
from tests.conftest import SHARED, FaultsOf, RunMain
from tests.support.faults import check_fault
from tests.support.feature_files import some_features, square, write_trident
from tests.support.slide_tables import PLAIN, Rows, converting, rows_of

SCRIPT = "create_dataset_csv"


# ---- the forms of other tools ----------------------------------------------------------------------------------------

FORMS: dict[str, tuple[dict[str, str | bytes], Rows]] = {
    "clam": ({"t.csv": "case_id,slide_id,label\np0,s0,A\np1,s1,B\n"}, PLAIN),
    "slideflow": ({"t.csv": "slide,patient,category\ns0,p0,A\ns1,p1,B\n"}, PLAIN),
    "pathbench": ({"t.csv": "slide,patient,dataset,category\ns0,p0,d,A\ns1,p1,e,B\n"}, PLAIN),
    "patho-bench": (
        {"t.tsv": "case_id\tslide_id\tTP53\tfold_0\tfold_1\np0\ts0.svs\t0\ttrain\ttest\np1\ts1.svs\t1\ttest\ttrain\n"},
        [("p0", "s0", "0", ""), ("p1", "s1", "1", "")],
    ),
    "stamp": (
        {
            "clini.csv": "PATIENT,AGE,isMSIH\np0,61,MSIH\np1,62,nonMSIH\n" + "p2,63,MSIH\np3,64,MSIH\np4,65,NA\n",
            "slide.csv": "FILENAME,PATIENT\nsub/s0.h5,p0\ns1.h5,p1\ns1b.h5,p1\n",
        },
        [("p0", "s0", "MSIH", ""), ("p1", "s1", "nonMSIH", ""), ("p1", "s1b", "nonMSIH", "")],
    ),
    "stamp, the other way round": (
        {"slide.csv": "PATIENT,FILENAME\np0,s0\np1,s1\n", "clini.csv": "PATIENT,label\np0,A\np1,B\n"},
        PLAIN,
    ),
    "two tables that call the patients otherwise": (
        {"slides.csv": "slide_id;case_id\ns0;p0\ns1;p1\n", "clinical.tsv": "Patient ID\tsubtype\np0\tA\np1\tB\n"},
        PLAIN,
    ),
    "cBioPortal": (
        {
            "data_clinical_sample.txt": "#Patient Identifier\tOncotree Code\n#The patient\tCode\n#STRING\tSTRING\n"
            "PATIENT_ID\tONCOTREE_CODE\np0\tA\np1\tB\n",
            "slides.csv": "slide,patient\ns0,p0\ns1,p1\n",
        },
        PLAIN,
    ),
    "barcodes for patients": (
        {"clini.csv": "PATIENT,label\nTCGA-A1-0001,A\nTCGA-A1-0002-01,B\n",
         "slides.csv": "FILENAME\nTCGA-A1-0001-01Z-00-DX1.x.svs\nTCGA-A1-0002-01Z-00-DX1.y.svs\n"},
        [
            ("TCGA-A1-0001", "TCGA-A1-0001-01Z-00-DX1.x", "A", ""),
            ("TCGA-A1-0002-01", "TCGA-A1-0002-01Z-00-DX1.y", "B", ""),
        ],
    ),
    "two tables of slides": (
        {"slides.csv": "slide,patient\ns0.svs,p0\ns1.svs,p1\n", "labels.csv": "slide_id,label\ns1,B\ns0,A\n"},
        PLAIN,
    ),
    "trident": (
        {"t.csv": "wsi,mpp,label\nx/s0.svs,0.2527,A\ny/s1.svs,0.5,B\n"},
        [("s0", "s0", "A", "40"), ("s1", "s1", "B", "20")],
    ),
    "OncoTreeCode": (
        {
            "t.csv": "slide_id,case_id,project_id,Diagnosis,OncoTreeCode,level0_mag\n"
            "s0,p0,TCGA-LUAD,Lung Adenocarcinoma,LUAD,40.0\ns1,p1,TCGA-LUSC,Lung Squamous,LUSC,20x\n"
        },
        [("p0", "s0", "LUAD", "40"), ("p1", "s1", "LUSC", "20")],
    ),
    "ONCOTREE_CODE": ({"t.csv": "Patient ID,Slide ID,ONCOTREE_CODE\np0,s0,A\np1,s1,B\n"}, PLAIN),
    "an index and paths of Windows": (
        {"t.csv": ",Slide,Patient,Label\n0,C:\\a\\s0.svs,p0,A\n1,D:\\s1.ndpi,p1,B\n"},
        PLAIN,
    ),
    "semicolons in cp1252": (
        {"t.csv": "slide;patient;category\né;ü;Düsseldorf\ns1;p1;B\n".encode("cp1252")},
        [("p1", "s1", "B", ""), ("ü", "é", "Düsseldorf", "")],
    ),
    "tabs in UTF-16": (
        {"t.txt": "slide\tpatient\tcategory\r\né\tp0\tA\r\ns1\tp1\tB\r\n".encode("utf-16")},
        [("p0", "é", "A", ""), ("p1", "s1", "B", "")],
    ),
    "a mark and an end of Windows": ({"t.csv": b"\xef\xbb\xbfslide,patient,label\r\ns0,p0,A\r\ns1,p1,B\r\n"}, PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_known_without_options(run_main: RunMain, tmp_path: Path, form: str) -> None:
    files, rows = FORMS[form]
    code, output, errors = run_main(converting(tmp_path, files), SCRIPT)
    assert (code, errors) == (0, "")
    assert rows_of(tmp_path) == rows
    assert read_slides(tmp_path / "made.csv")[0] == sorted({row[2] for row in rows})
    for name in files:
        assert str(tmp_path / name) in output


NAMED = "Bild,Pat,MSI,Grade\ns0.svs,p0,high,1\ns1.svs,p1,low,1\ns2.svs,p2,low,2\ns3.svs,p3,high,2\n"


def test_columns_are_named(run_main: RunMain, tmp_path: Path) -> None:
    options = ["--slide-column", "Bild", "--label_column", "MSI", "--case-column", "Pat"]
    assert run_main(converting(tmp_path, {"t.csv": NAMED}, *options), SCRIPT)[0] == 0
    assert rows_of(tmp_path) == [
        *[("p0", "s0", "high", ""), ("p3", "s3", "high", ""), ("p1", "s1", "low", ""), ("p2", "s2", "low", "")],
    ]


def test_a_named_column_goes_before_a_known_one(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide_id,label,MSI\ns0,A,x\ns1,A,y\n"
    assert run_main(converting(tmp_path, {"t.csv": table}, "--label-column", "msi"), SCRIPT)[0] == 0
    assert [row[2] for row in rows_of(tmp_path)] == ["x", "y"]


def test_the_separator_may_be_given(run_main: RunMain, tmp_path: Path) -> None:
    table = "slide,x;label\na,1;A\nb,2;B\n"
    options = converting(tmp_path, {"t.csv": table}, "--slide-column", "slide,x", "--sep", "semicolon")
    assert run_main(options, SCRIPT)[0] == 0
    assert [row[1:3] for row in rows_of(tmp_path)] == [("a,1", "A"), ("b,2", "B")]


@pytest.mark.parametrize(
    ("columns", "files", "words"),
    [
        ([], {"t.csv": "name,label\ns0,A\ns1,B\n"}, ["'name', 'label'", "--slide-column"]),
        (["--slide-column", "slid"], {"t.csv": "slide,label\ns0,A\ns1,B\n"}, ["'slid'", "'slide', 'label'"]),
        (["--label-column", "x"], {"t.csv": "slide,label\ns0,A\ns1,B\n"}, ["'x'", "--label-column"]),
        (["--case-column", "x"], {"t.csv": "slide,label\ns0,A\ns1,B\n"}, ["'x'", "--case-column"]),
        ([], {"t.csv": "slide,MSI,Grade\ns0,a,1\ns1,b,2\n"}, ["'MSI' ('a', 'b') or 'Grade' ('1', '2')"]),
        ([], {"t.csv": "wsi,mpp\ns0,0.25\ns1,0.5\n"}, ["'wsi', 'mpp'", "a second table"]),
        ([], {"a.csv": "slide,x\ns0,p0\n", "b.csv": "patient,label\np0,A\n"}, ["--case-column"]),
    ],
)
def test_columns_that_are_not_to_be_found(
    faults_of: FaultsOf, tmp_path: Path, columns: list[str], files: dict[str, str | bytes], words: list[str]
) -> None:
    faults = faults_of(converting(tmp_path, files, *columns), SCRIPT)
    assert [fault.code for fault in faults] == ["table.columns"]
    assert all(word in str(faults[0]) for word in words), faults[0]
    assert not (tmp_path / "made.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gdc", "--sep", ";"], "--sep: only with --table"),
        (["--slides-dir", "x", "--label-column", "y"], "--label-column: only with --table"),
        (["--table", "a", "b", "c"], "--table: found 3 files"),
        (["--table", "a", "--sep", "x"], "'x' is no separator"),
        (["--table", "a", "--slide-type", "frozen"], "invalid choice: 'frozen'"),
        (["--table", "a", "--manifest", "m"], "--manifest: only with --gdc"),
    ],
)
def test_options_that_do_not_fit(run_main: RunMain, options: list[str], message: str) -> None:
    code, _, errors = run_main(["--task", "t", *options], SCRIPT)
    assert code == 2 and message in errors


# ---- magnifications, and main.py -------------------------------------------------------------------------------------


def test_magnifications_come_from_features_of_trident(run_main: RunMain, tmp_path: Path) -> None:
    for number, level0 in enumerate((40, 20)):
        write_trident(tmp_path / "job", f"s{number}", some_features(2), square(2, 1, 512), 20, level0, "plip")
    options = converting(tmp_path, {"t.csv": "slide,patient,label\ns0,p0,A\ns1,p1,B\n"})
    assert run_main([*options, "--wsi-dir", str(tmp_path / "job")], SCRIPT)[0] == 0
    assert rows_of(tmp_path) == [("p0", "s0", "A", "40"), ("p1", "s1", "B", "20")]


def test_magnifications_come_from_genuine_features_of_trident(run_main: RunMain, tmp_path: Path) -> None:
    job = SHARED / "genuine" / "trident" / "job"
    if not job.is_dir():
        pytest.skip("the files of other tools (../shared/genuine) are not here")
    table = "slide,label\nsyn40a.svs,A\nsyn40gen.tif,B\ncmu-1-small-region.svs,A\ntcga-cr-7395,B\n"
    assert run_main([*converting(tmp_path, {"t.csv": table}), "--wsi-dir", str(job)], SCRIPT)[0] == 0
    assert {row[1]: row[3] for row in rows_of(tmp_path)} == {
        "syn40a": "40", "syn40gen": "40", "cmu-1-small-region": "20", "tcga-cr-7395": "40",
    }  # fmt: skip


GENUINE: dict[str, tuple[str, list[str]]] = {
    "hive_mil/tcga_nsclc.csv": ("", ["cmu-1-small-region", "syn20a", "syn40a", "syn40odd"]),
    "clam/40_20x/process_list_autogen.csv": (
        "slide,label\nsyn40a,A\nsyn40gen,B\nsyn40odd,A\n", ["syn40a", "syn40gen", "syn40odd"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_tables(run_main: RunMain, tmp_path: Path, name: str) -> None:
    table = SHARED / "genuine" / name
    if not table.is_file():
        pytest.skip("the files of other tools (../shared/genuine) are not here")
    labels, slides = GENUINE[name]
    files = {"genuine.csv": table.read_bytes(), **({"labels.csv": labels} if labels else {})}
    assert run_main(converting(tmp_path, files), SCRIPT)[0] == 0
    assert sorted(row[1] for row in rows_of(tmp_path)) == slides


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (b"slide_id;label\ns0;A\ns1;B\n", "table.unreadable"),
        ("slide_id,label\nsé,A\ns1,B\n".encode("cp1252"), "table.unreadable"),
        ("slide_id,label\ns0,A\ns1,B\n".encode("utf-16"), "table.unreadable"),
        (b"slide,patient,category\ns0,p0,A\n", "table.columns"),
    ],
)
def test_what_main_refuses_tells_the_command_that_converts_it(
    run_main: RunMain, faults_of: FaultsOf, tmp_path: Path, table: bytes, code: str
) -> None:
    converting(tmp_path, {"t.csv": table})
    arguments = ["--task", "t", "--dataset_csv", tmp_path / "t.csv", "--output_dir", tmp_path / "splits"]
    [fault] = faults_of(arguments, "create_splits")
    check_fault(fault, code, tmp_path / "t.csv")
    assert f"create_dataset_csv.py --task NAME --table {tmp_path / 't.csv'}" in fault.mend
