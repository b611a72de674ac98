"""create_dataset_csv.py: tables from the GDC and from folders, what it refuses, and main.py's reader of them."""

import csv
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pyramids import write_pyramid
from datasets.task import read_slides
from tests.conftest import RunMain
from tests.support import gdc_server
from tests.support.failing_server import Server, no_server, serve, waits_fixture  # noqa: F401
from tests.support.gdc_server import record
from tests.support.slide_tables import csv_rows

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
    assert [row["label"] for row in csv_rows(tmp_path / "mine.csv")] == ["adeno, all kinds", "squamous"]
    assert read_slides(tmp_path / "mine.csv")[0] == ["adeno, all kinds", "squamous"]


def test_tissue_slides_and_normal_tissue(run_main: RunMain, server: Server, tmp_path: Path) -> None:
    code, output, _ = run_main(gdc_options(server, tmp_path, "--slide_type", "both"), "create_dataset_csv")
    assert code == 0
    assert [row["slide_id"] for row in csv_rows(tmp_path / "tcga_brca.csv")] == [*IDS[:4], IDS[4]]
    assert "note: 1 slides are normal tissue" in output


def test_types_of_tissue_slides(run_main: RunMain, tmp_path: Path) -> None:
    """The GDC tells diagnostic slides from tissue slides; the barcodes tell these apart."""
    records = [
        *BRCA[:4],
        *(
            record("TCGA-BRCA", f"TCGA-B{k}-0003", "Lobular carcinoma, NOS", sample=sample, strategy="Tissue Slide")
            for k, sample in enumerate(["01A-01-TS1", "01A-01-BS1", "01A-01-MSA"])
        ),
        record(
            "TCGA-BRCA", "TCGA-A2-0002", "Infiltrating duct carcinoma, NOS", sample="01A-01-TSA",
            strategy="Tissue Slide",
        ),
    ]  # fmt: skip
    for chosen, kept, strategies in (
        (["TS"], ["TCGA-A2-0002", "TCGA-B0-0003"], ["Tissue Slide"]),
        (["TS", "BS"], ["TCGA-A2-0002", "TCGA-B0-0003", "TCGA-B1-0003"], ["Tissue Slide"]),
        (["DX"], ["TCGA-A1-0001", "TCGA-A1-0001", "TCGA-A2-0002", "TCGA-A3-0003"], ["Diagnostic Slide"]),
    ):
        with serve(gdc_server.gdc(records)) as server:
            options = gdc_options(server, tmp_path, "--overwrite", "--slide-type", *chosen)
            assert run_main(options, "create_dataset_csv")[0] == 0
        assert [row["case_id"] for row in csv_rows(tmp_path / "tcga_brca.csv")] == kept
        conditions = json.loads(server.requests[0].body)["filters"]["content"]
        asked = {one["content"]["field"]: one["content"]["value"] for one in conditions}
        assert asked["experimental_strategy"] == strategies


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
        write_pyramid(tmp_path / "slides" / BRCA[number]["file_id"] / BRCA[number]["file_name"], image, power, 0.5)
    (tmp_path / "slides" / "other.svs").write_bytes(b"cut off")
    options = gdc_options(server, tmp_path, "--wsi-dir", str(tmp_path / "slides"))
    code, output, _ = run_main(options, "create_dataset_csv")
    assert code == 0
    assert {row["slide_id"]: row["level0_mag"] for row in csv_rows(tmp_path / "tcga_brca.csv")} == {
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
        ([], "one of the arguments --gdc --slides-dir/--slides_dir --reference --table --summary is required"),
        (["--gdc", "--slides-dir", "x"], "not allowed with"),
        (["--gdc", "--case-pattern", "(x)"], "--case-pattern: only with --slides-dir"),
        (["--slides-dir", "x", "--manifest", "m", "--gdc-url", "http://u"], "--gdc-url, --manifest: only with --gdc"),
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
