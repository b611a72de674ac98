"""create_dataset_csv.py: tables from the GDC and from folders, what it refuses, and main.py's reader of them."""

import csv
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.slide_files import write_slide
from datasets.task import read_slides
from tests import gdc_server
from tests.conftest import RunMain
from tests.failing_server import Server, no_server, serve, waits_fixture  # noqa: F401
from tests.gdc_server import record

BRCA = [
    record("TCGA-BRCA", "TCGA-A1-0001", "Infiltrating duct carcinoma, NOS"),
    record("TCGA-BRCA", "TCGA-A1-0001", "Infiltrating duct carcinoma, NOS", sample="01Z-00-DX2"),
    record("TCGA-BRCA", "TCGA-A2-0002", "Infiltrating duct carcinoma, NOS"),
    record("TCGA-BRCA", "TCGA-A3-0003", "Lobular carcinoma, NOS"),
    record("TCGA-BRCA", "TCGA-A3-0003", "Lobular carcinoma, NOS", sample="11A-01-TS1", strategy="Tissue Slide"),
    record("TCGA-BRCA", "TCGA-A4-0004", "Medullary carcinoma, NOS"),
    record("TCGA-BRCA", "TCGA-A4-0004", "Medullary carcinoma, NOS", sample="01Z-00-DX2"),
    record("TCGA-BRCA", "TCGA-A5-0005", "Infiltrating duct carcinoma, NOS", "Lobular carcinoma, NOS"),
    record("TCGA-BRCA", "TCGA-A6-0006"),
    record("TCGA-LUAD", "TCGA-05-0001", "Adenocarcinoma, NOS"),
    record("TCGA-LUSC", "TCGA-18-0001", "Squamous cell carcinoma, NOS"),
]
IDS = [one["file_name"].removesuffix(".svs") for one in BRCA]
TABLE = f"""case_id,slide_id,label,level0_mag
TCGA-A1-0001,{IDS[0]},IDC,
TCGA-A1-0001,{IDS[1]},IDC,
TCGA-A2-0002,{IDS[2]},IDC,
TCGA-A3-0003,{IDS[3]},ILC,
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(gdc_server.gdc(BRCA)) as running:
        yield running


def gdc_options(server: Server, folder: Path, *more: str, task: str = "tcga_brca") -> list[str]:
    return ["--task", task, "--gdc", "--gdc-url", server.url, "--output", str(folder / f"{task}.csv"), *more]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


# ---- from the GDC ----------------------------------------------------------------------------------------------------


def test_a_preset_makes_the_table(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    code, output, errors = run_main(gdc_options(server, tmp_path), "create_dataset_csv")
    assert (code, errors) == (0, "")
    file = tmp_path / "tcga_brca.csv"
    assert file.read_text() == TABLE
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]
    class_names, slides = read_slides(file)
    assert class_names == ["IDC", "ILC"]
    assert [(slide.patient, slide.label) for slide in slides.values()] == [
        *[("TCGA-A1-0001", 0), ("TCGA-A1-0001", 0), ("TCGA-A2-0002", 0), ("TCGA-A3-0003", 1)],
    ]
    lines = [line.split() for line in output.splitlines()]
    assert ["IDC", "3", "2", "3"] in lines
    assert ["ILC", "1", "1", "1"] in lines
    assert f"{server.url}: 8 slides of TCGA-BRCA" in output
    assert "left out: 2 slides of TCGA-BRCA, diagnosis: Medullary carcinoma, NOS\n" in output
    both = "Infiltrating duct carcinoma, NOS + Lobular carcinoma, NOS"
    assert f"left out: 1 slides of TCGA-BRCA, diagnosis: {both}\n" in output
    assert "left out: 1 slides of TCGA-BRCA, diagnosis: none given\n" in output
    assert "level0_mag: 4 slides without it" in output
    assert "normal tissue" not in output
    assert f"written: {file}" in output


def test_labels_of_projects(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    more = ["--labels", "TCGA-LUSC=squamous", "TCGA-LUAD=adeno, all kinds"]
    code, output, _ = run_main(gdc_options(server, tmp_path, *more, task="mine"), "create_dataset_csv")
    assert code == 0
    assert "2 slides of TCGA-LUAD, TCGA-LUSC" in output
    assert [row["label"] for row in rows_of(tmp_path / "mine.csv")] == ["adeno, all kinds", "squamous"]
    assert read_slides(tmp_path / "mine.csv")[0] == ["adeno, all kinds", "squamous"]


def test_tissue_slides_and_normal_tissue(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    code, output, _ = run_main(gdc_options(server, tmp_path, "--slide_type", "both"), "create_dataset_csv")
    assert code == 0
    assert [row["slide_id"] for row in rows_of(tmp_path / "tcga_brca.csv")] == [*IDS[:4], IDS[4]]
    assert "note: 1 slides are normal tissue" in output


def test_the_manifest_lists_the_slides_of_the_table(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    manifest = tmp_path / "new" / "manifest.txt"
    code, output, _ = run_main(gdc_options(server, tmp_path, "--manifest", str(manifest)), "create_dataset_csv")
    assert code == 0
    assert f"written: {manifest}" in output
    with manifest.open(newline="") as opened:
        listed = list(csv.DictReader(opened, delimiter="\t"))
    expected = sorted(BRCA[:4], key=lambda one: one["file_id"])
    assert [row["id"] for row in listed] == [one["file_id"] for one in expected]
    assert [row["filename"] for row in listed] == [one["file_name"] for one in expected]


def test_magnifications_come_from_downloaded_slides(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    """As gdc-client lays them out: a folder a file; a slide of no interest is not even opened."""
    image = np.zeros((64, 64, 3), np.uint8)
    for number, power in ((0, 40), (1, 20), (3, None)):
        write_slide(tmp_path / "slides" / BRCA[number]["file_id"] / BRCA[number]["file_name"], image, power, 0.5)
    (tmp_path / "slides" / "other.svs").write_bytes(b"cut off")
    options = gdc_options(server, tmp_path, "--wsi-dir", str(tmp_path / "slides"))
    code, output, _ = run_main(options, "create_dataset_csv")
    assert code == 0
    assert {row["slide_id"]: row["level0_mag"] for row in rows_of(tmp_path / "tcga_brca.csv")} == {
        IDS[0]: "40", IDS[1]: "20", IDS[2]: "", IDS[3]: "20",
    }  # fmt: skip
    assert "slides: 3 of the slides" in output
    assert "level0_mag: 1 slides without it" in output


def test_a_preset_needs_its_task(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    code, _, errors = run_main(gdc_options(server, tmp_path, task="mine"), "create_dataset_csv")
    assert code == 2
    assert "--task mine: no classes are known for it, only for tcga_nsclc, tcga_rcc, tcga_brca; " in errors
    assert "--labels" in errors
    assert server.requests == []


def test_a_class_without_slides_is_refused(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    more = ["--labels", "TCGA-LAUD=LUAD", "TCGA-LUSC=LUSC", "TCGA-BRCA:Papillary=PAP"]
    code, _, errors = run_main(gdc_options(server, tmp_path, *more), "create_dataset_csv")
    assert code == 2
    assert "no slides of LUAD, PAP; expected some of each class" in errors
    assert "2 of TCGA-BRCA, diagnosis: Medullary carcinoma, NOS" in errors
    assert not list(tmp_path.iterdir())


def test_without_internet(run_main: RunMain, tmp_path: Path, waits: list[float]) -> None:
    options = ["--task", "tcga_rcc", "--gdc", "--gdc-url", no_server(), "--output", str(tmp_path / "x.csv")]
    code, _, errors = run_main(options, "create_dataset_csv")
    assert code == 2
    assert errors.splitlines()[-1].startswith("error: http://127.0.0.1")
    assert "make the table on a machine that has it and copy it here" in errors
    assert len(waits) == 5
    assert not list(tmp_path.iterdir())


def test_the_default_is_the_gdc(run_main: RunMain, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    asked = []

    def no_name(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    code, _, errors = run_main(["--task", "tcga_rcc", "--gdc"], "create_dataset_csv")
    assert code == 2
    assert set(asked) == {"api.gdc.cancer.gov"}
    assert "https://api.gdc.cancer.gov/files" in errors


# ---- from folders ----------------------------------------------------------------------------------------------------


def folder_options(folder: Path, *more: str) -> list[str]:
    return ["--task", "mine", "--slides-dir", str(folder / "slides"), "--output", str(folder / "mine.csv"), *more]


def add_slides(folder: Path, *names: str, power: float | None = 20) -> None:
    for name in names:
        write_slide(folder / "slides" / name, np.zeros((64, 64, 3), np.uint8), power, 0.5 if power else None)


def test_a_folder_for_each_class(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "TUMOR/a_1.svs", "TUMOR/deep/down/a_2.tif", power=40)
    add_slides(tmp_path, "NORMAL/b_1.tiff", "NORMAL/TCGA-A1-0001-01Z-00-DX1.UUID.svs")
    add_slides(tmp_path, "NORMAL/b.2.TIFF", power=None)
    add_slides(tmp_path, ".hidden/x.svs", "loose.svs")
    (tmp_path / "slides" / "notes.txt").write_text("")
    (tmp_path / "slides" / "TUMOR" / "notes.txt").write_text("")
    code, output, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert (code, errors) == (0, "")
    assert (tmp_path / "mine.csv").read_text() == (
        "case_id,slide_id,label,level0_mag\n"
        "TCGA-A1-0001,TCGA-A1-0001-01Z-00-DX1.UUID,NORMAL,20\n"
        "b.2,b.2,NORMAL,\n"
        "b_1,b_1,NORMAL,20\n"
        "a_1,a_1,TUMOR,40\n"
        "a_2,a_2,TUMOR,40\n"
    )
    assert read_slides(tmp_path / "mine.csv")[0] == ["NORMAL", "TUMOR"]
    assert "5 slides, 0 feature files" in output
    assert re.search(r"left out: 1 slides of .*/slides, not in the folder of a class", output)
    assert "level0_mag: 1 slides without it" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["NORMAL", "3", "3", "2", "0", "1"] in lines
    assert ["TUMOR", "2", "2", "0", "2", "0"] in lines


@pytest.mark.parametrize("spelling", ["--case-pattern", "--case_pattern"])
def test_patients_from_names(run_main: RunMain, tmp_path: Path, spelling: str) -> None:
    add_slides(tmp_path, "A/p01_1.svs", "A/p01_2.svs", "B/p02_1.svs", "B/TCGA-A1-0001-01Z-00-DX1.svs")
    code, output, _ = run_main(folder_options(tmp_path, spelling, r"^(p\d+)_"), "create_dataset_csv")
    assert code == 0
    rows = rows_of(tmp_path / "mine.csv")
    assert [row["case_id"] for row in rows] == ["p01", "p01", "TCGA-A1-0001", "p02"]
    assert ["A", "2", "1", "2"] in [line.split() for line in output.splitlines()]


def test_names_without_the_pattern_are_all_named(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/p01_1.svs", "A/q01_2.svs", "B/r.svs", "B/p_3.svs")
    code, _, errors = run_main(folder_options(tmp_path, "--case-pattern", r"^p(\d*)_"), "create_dataset_csv")
    assert code == 2
    assert errors.startswith("error: 3 faults")
    for name in ("q01_2", "r", "p_3"):
        assert f"  - {name}: --case-pattern '^p(\\\\d*)_' finds no patient" in errors
    assert not (tmp_path / "mine.csv").exists()


def test_feature_files_serve_as_well(run_main: RunMain, tmp_path: Path) -> None:
    for name in ("A/x.1.h5", "A/y.h5", "B/deep/z.h5"):
        file = tmp_path / "slides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    write_slide(tmp_path / "wsi" / "y.svs", np.zeros((64, 64, 3), np.uint8), 40, 0.25)
    code, output, _ = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 0
    assert "0 slides, 3 feature files" in output
    rows = [(row["slide_id"], row["label"], row["level0_mag"]) for row in rows_of(tmp_path / "mine.csv")]
    assert rows == [("x.1", "A", ""), ("y", "A", ""), ("z", "B", "")]
    options = folder_options(tmp_path, "--wsi-dir", str(tmp_path / "wsi"), "--overwrite")
    assert run_main(options, "create_dataset_csv")[0] == 0
    assert [row["level0_mag"] for row in rows_of(tmp_path / "mine.csv")] == ["", "40", ""]


def test_all_faults_of_a_folder_are_named(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/x.svs", "A/deep/x.tif", "B/y.svs", "C/y.tif", "D/z.svs")
    (tmp_path / "slides" / "E").mkdir()
    for name in ("F/w.h5", "F/deep/w.h5"):
        file = tmp_path / "slides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    slides = tmp_path / "slides"
    assert errors.startswith("error: 4 faults")
    assert f"{slides}/A/x.svs" in errors
    assert f"{slides}/A/deep/x.tif" in errors
    assert f"{slides}/C/y.tif: a slide of this name is in another class too: {slides}/B/y.svs" in errors
    assert f"{slides}/E: no slides in it" in errors
    assert "F/w.h5" in errors and "F/deep/w.h5" in errors and "a feature file of this name is there already" in errors


def test_damaged_slides_are_all_named(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/x.svs", "B/y.svs", "B/z.svs")
    for name in ("A/x.svs", "B/z.svs"):
        file = tmp_path / "slides" / name
        file.write_bytes(file.read_bytes()[:50])
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    assert errors.startswith("error: 2 faults")
    assert "A/x.svs: not readable" in errors
    assert "B/z.svs: not readable" in errors
    assert not (tmp_path / "mine.csv").exists()


@pytest.mark.parametrize(("names", "number"), [([], 0), (["A/x.svs"], 1)])
def test_two_classes_are_needed(run_main: RunMain, tmp_path: Path, names: list[str], number: int) -> None:
    (tmp_path / "slides").mkdir()
    add_slides(tmp_path, *names)
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    assert f"found {number} folders in it, expected one for each class" in errors


def test_missing_folders(run_main: RunMain, tmp_path: Path) -> None:
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    assert f"{tmp_path / 'slides'}: no such folder" in errors
    add_slides(tmp_path, "A/x.svs", "B/y.svs")
    code, _, errors = run_main(folder_options(tmp_path, "--wsi-dir", str(tmp_path / "no")), "create_dataset_csv")
    assert code == 2
    assert f"{tmp_path / 'no'}: no such folder" in errors
    assert not (tmp_path / "mine.csv").exists()


# ---- what is written, and the options --------------------------------------------------------------------------------


def test_another_table_is_kept(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.txt"
    options = gdc_options(server, tmp_path, "--manifest", str(manifest))
    table = tmp_path / "tcga_brca.csv"
    assert run_main(options, "create_dataset_csv")[0] == 0
    whole = manifest.read_text()
    before = table.stat().st_mtime_ns
    code, output, _ = run_main(options, "create_dataset_csv")
    assert code == 0
    assert f"unchanged: {table}" in output
    assert table.stat().st_mtime_ns == before
    table.write_text("mine")
    manifest.unlink()
    code, _, errors = run_main(options, "create_dataset_csv")
    assert code == 2
    assert f"{table}: is there with other contents; --overwrite replaces it" in errors
    assert table.read_text() == "mine"
    assert not manifest.exists()
    code, output, _ = run_main([*options, "--overwrite"], "create_dataset_csv")
    assert code == 0
    assert f"written: {table}" in output
    assert table.read_text() == TABLE
    assert manifest.read_text() == whole


def test_the_default_place_is_that_of_main(
    run_main: RunMain, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.config.PROJECT", tmp_path)
    assert run_main(["--task", "tcga_brca", "--gdc", "--gdc_url", server.url], "create_dataset_csv")[0] == 0
    assert (tmp_path / "dataset_csv" / "tcga_brca.csv").read_text() == TABLE


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "one of the arguments --gdc --slides-dir/--slides_dir is required"),
        (["--gdc", "--slides-dir", "x"], "not allowed with"),
        (["--gdc", "--case-pattern", "(x)"], "--case-pattern: only with --slides-dir"),
        (["--slides-dir", "x", "--manifest", "m", "--gdc-url", "u"], "--gdc-url, --manifest: only with --gdc"),
        (["--slides-dir", "x", "--labels", "P=A"], "--labels: only with --gdc"),
        (["--slides-dir", "x", "--slide-type", "both"], "--slide-type: only with --gdc"),
        (["--slides-dir", "x", "--case-pattern", "x"], "'x' has 0 groups, expected one"),
        (["--slides-dir", "x", "--case-pattern", "(x)(y)"], "has 2 groups, expected one"),
        (["--slides-dir", "x", "--case-pattern", "(x"], "'(x' is no regular expression"),
        (["--gdc", "--slide-type", "frozen"], "invalid choice: 'frozen'"),
    ],
)
def test_options_that_do_not_fit(run_main: RunMain, more: list[str], message: str) -> None:
    code, _, errors = run_main(["--task", "t", *more], "create_dataset_csv")
    assert code == 2
    assert message in errors


def test_the_query_can_be_read_by_the_gdc(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    """Fields and operators by their names in the GDC's documentation."""
    run_main(gdc_options(server, tmp_path), "create_dataset_csv")
    [request] = server.requests
    query = json.loads(request.body)
    assert (query["format"], query["size"], query["from"]) == ("JSON", 500, 0)
    assert {inner["content"]["field"]: inner["content"]["value"] for inner in query["filters"]["content"]} == {
        "cases.project.project_id": ["TCGA-BRCA"],
        "data_type": ["Slide Image"],
        "data_format": ["SVS"],
        "experimental_strategy": ["Diagnostic Slide"],
    }


def test_a_class_folder_of_slides_and_features_is_refused(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/x.svs", "B/y.svs")
    (tmp_path / "slides" / "A" / "z.h5").touch()
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2 and "A: found 1 feature files (z.h5) and 1 slides, expected one kind" in errors
