"""The GDC's list of slides: all pages of it, labels by project and diagnosis, and servers that fail."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import gdc
from tests.support import gdc_server
from tests.support.failing_server import Answer, Reply, Request, in_turn, no_server, serve, waits_fixture  # noqa: F401
from tests.support.gdc_server import record
from utils.errors import UserError

PROJECTS = ["TCGA-LUAD", "TCGA-LUSC"]
DIAGNOSTIC = ["Diagnostic Slide"]
RECORDS = [
    *(record(PROJECTS[number % 2], f"TCGA-05-{number:04d}", "Adenocarcinoma, NOS") for number in range(23)),
    record("TCGA-LUAD", "TCGA-05-0001", "Adenocarcinoma, NOS", sample="01Z-00-DX2"),
    record("TCGA-LUAD", "TCGA-05-0001", sample="01A-01-TS1", strategy="Tissue Slide"),
    record("TCGA-BRCA", "TCGA-A1-0001", "Lobular carcinoma, NOS"),
    record("TCGA-LUAD", "TCGA-05-0900", data_type="Aligned Reads"),
    record("TCGA-LUAD", "TCGA-05-0901", data_format="TIFF"),
]
WANTED = sorted((one for one in RECORDS[:24]), key=lambda one: one["file_id"])


def listed(url: str, page: int = 10) -> list[gdc.GdcSlide]:
    return gdc.list_slides(url, PROJECTS, DIAGNOSTIC, page, (0.5, 1))


@pytest.mark.parametrize("page", [1, 7, 12, 24, 25, 500])
def test_all_pages_are_read(page: int) -> None:
    with serve(gdc_server.gdc(RECORDS)) as server:
        slides = listed(f"{server.url}/", page)
        starts = [json.loads(request.body)["from"] for request in server.requests]
    assert starts == list(range(0, 24, page))
    assert [slide.file_id for slide in slides] == [one["file_id"] for one in WANTED]
    for slide, one in zip(slides, WANTED, strict=True):
        assert (slide.file_name, slide.md5, slide.size) == (one["file_name"], one["md5sum"], one["file_size"])
        [case] = one["cases"]
        assert (slide.case_id, slide.project) == (case["submitter_id"], case["project"]["project_id"])
        assert slide.state == "released"
        assert f"{slide.slide_id}.svs" == one["file_name"]
        assert slide.diagnoses == ("Adenocarcinoma, NOS",)


@pytest.mark.parametrize(("kind", "number"), [("diagnostic", 24), ("tissue", 1), ("both", 25)])
def test_diagnostic_and_tissue_slides(kind: str, number: int) -> None:
    with serve(gdc_server.gdc(RECORDS)) as server:
        assert len(gdc.list_slides(server.url, PROJECTS, gdc.STRATEGIES[kind])) == number


def test_no_slides_are_no_fault() -> None:
    with serve(gdc_server.gdc([])) as server:
        assert listed(server.url) == []


def test_slide_ids_have_the_form_of_the_released_tables(released: Path) -> None:
    """Barcode, dot, UUID: a slide's name made from its parts as the GDC writes them is one of the authors' ids."""
    for line in (released / "dataset_csv" / "tcga_rcc.csv").read_text().splitlines()[1:]:
        slide_id = line.split(",")[1]
        one = record("TCGA-KIRC", slide_id[:12], file_name=f"{slide_id}.svs")
        assert gdc._read_slide(one).slide_id == slide_id
        assert re.fullmatch(r"TCGA-\w\w-\w{4}-\d\d\w-\d\d-DX\w\.[\w-]{36}", slide_id)


# ---- labels ----------------------------------------------------------------------------------------------------------


def slide_of(project: str, *diagnoses: str | tuple[str, object]) -> gdc.GdcSlide:
    return gdc._read_slide(record(project, "TCGA-00-0000", *diagnoses))


def test_presets_give_the_classes_of_the_descriptions() -> None:
    from tests.conftest import PROJECT

    for task, texts in gdc.PRESETS.items():
        file = PROJECT / "text_prompt" / "HiVE_MIL" / "builtin" / f"{task}.json"
        assert set(gdc.parse_labels(texts).values()) == set(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("task", "project", "diagnoses", "label"),
    [
        ("tcga_nsclc", "TCGA-LUAD", ["Mucinous adenocarcinoma"], "LUAD"),
        ("tcga_nsclc", "TCGA-LUSC", [], "LUSC"),
        ("tcga_rcc", "TCGA-KIRC", ["Clear cell adenocarcinoma, NOS"], "CCRCC"),
        ("tcga_rcc", "TCGA-KIRP", ["A", "B"], "PRCC"),
        ("tcga_rcc", "TCGA-KICH", ["Renal cell carcinoma, chromophobe type"], "CHRCC"),
        ("tcga_brca", "TCGA-BRCA", ["Infiltrating duct carcinoma, NOS"], "IDC"),
        ("tcga_brca", "TCGA-BRCA", ["infiltrating Duct carcinoma, nos"], "IDC"),
        ("tcga_brca", "TCGA-BRCA", ["Lobular carcinoma, NOS"], "ILC"),
        ("tcga_brca", "TCGA-BRCA", ["Lobular carcinoma, NOS", "Lobular carcinoma, NOS"], "ILC"),
        ("tcga_brca", "TCGA-BRCA", ["Infiltrating duct and lobular carcinoma"], None),
        ("tcga_brca", "TCGA-BRCA", ["Infiltrating duct carcinoma, NOS", "Lobular carcinoma, NOS"], None),
        ("tcga_brca", "TCGA-BRCA", ["Infiltrating duct carcinoma, NOS", "Medullary carcinoma, NOS"], None),
        ("tcga_brca", "TCGA-BRCA", [], None),
        ("tcga_brca", "TCGA-LUAD", ["Infiltrating duct carcinoma, NOS"], None),
        ("tcga_brca", "TCGA-BRCA", ["Lobular carcinoma, NOS", ("Melanoma", "false")], "ILC"),
        ("tcga_brca", "TCGA-BRCA", [("Lobular carcinoma, NOS", True), ("Melanoma", False)], "ILC"),
        ("tcga_brca", "TCGA-BRCA", [("Lobular carcinoma, NOS", "true"), ("Medullary carcinoma, NOS", "true")], None),
    ],
)
def test_labels(task: str, project: str, diagnoses: list[Any], label: str | None) -> None:
    assert gdc.label_of(slide_of(project, *diagnoses), gdc.parse_labels(gdc.PRESETS[task])) == label


def test_diagnoses_of_other_diseases_do_not_count() -> None:
    """As the server tells them apart."""
    one = record("TCGA-BRCA", "TCGA-A1-0001", ("Lobular carcinoma, NOS", "true"), ("Melanoma", "false"))
    with serve(gdc_server.gdc([one])) as server:
        [slide] = gdc.list_slides(server.url, ["TCGA-BRCA"], DIAGNOSTIC)
    assert slide.diagnoses == ("Lobular carcinoma, NOS",)


def test_a_diagnosis_goes_before_its_project() -> None:
    labels = gdc.parse_labels(["P=OTHER", "P: Lobular carcinoma, NOS =ILC", "P:grade = 3=HIGH"])
    assert gdc.label_of(slide_of("P", "Grade = 3"), labels) == "HIGH"
    assert gdc.label_of(slide_of("P", "Lobular carcinoma, NOS"), labels) == "ILC"
    assert gdc.label_of(slide_of("P", "Something else"), labels) == "OTHER"
    assert gdc.label_of(slide_of("P"), labels) == "OTHER"


CHARACTERS = st.characters(categories=["L", "N"], include_characters=" -,()")
NAMES = st.text(CHARACTERS, min_size=1).map(str.strip).filter(bool)


@given(project=NAMES, diagnosis=NAMES, label=NAMES)
def test_labels_are_read_from_any_names(project: str, diagnosis: str, label: str) -> None:
    found = gdc.parse_labels([f"{project}={label}", f" {project} : {diagnosis} = other{label}"])
    assert found == {(project, ""): label, (project, diagnosis.lower()): f"other{label}"}


@pytest.mark.parametrize(
    ("texts", "faults"),
    [
        (["TCGA-LUAD"], ["found 'TCGA-LUAD'; expected PROJECT=CLASS"]),
        (["=LUAD", "TCGA-LUSC=", "TCGA-LUSC:=A"], ["found '=LUAD'", "found 'TCGA-LUSC='", "found 'TCGA-LUSC:=A'"]),
        (["P=A", "P=B"], ["P is A and B; expected one class"]),
        (["P:x=A", "P:X=B"], ["P:X is A and B"]),
        (["P=A", "Q=A"], ["the classes are ['A']; expected at least two"]),
    ],
)
def test_faults_of_labels(texts: list[str], faults: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        gdc.parse_labels(texts)
    assert len(caught.value.faults) == len(faults)
    for found, expected in zip(caught.value.faults, faults, strict=True):
        assert found.code == "option.value" and expected in str(found)


def test_the_manifest_is_what_gdc_client_reads() -> None:
    """Tab-separated, with the header of the manifests that the GDC's portal gives."""
    with serve(gdc_server.gdc(RECORDS)) as server:
        lines = gdc.manifest_text(listed(server.url)).split("\n")
    assert lines[0] == "id\tfilename\tmd5\tsize\tstate"
    assert lines[-1] == ""
    for line, one in zip(lines[1:-1], WANTED, strict=True):
        assert line == f"{one['file_id']}\t{one['file_name']}\t{one['md5sum']}\t{one['file_size']}\treleased"


# ---- servers that fail -----------------------------------------------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], Any]) -> Answer:
    """The GDC's answer, spoilt."""

    def answer(request: Request) -> Reply:
        body = json.loads(gdc_server.gdc(RECORDS)(request).body)
        return Reply(json.dumps(change(body) or body).encode())

    return answer


def cut_page(body: dict[str, Any]) -> None:
    body["data"]["hits"].pop()


def other_total(body: dict[str, Any]) -> None:
    if body["data"]["pagination"]["from"]:
        body["data"]["pagination"]["total"] += 1


FAULTS = {
    "an error": (Reply(b"", 500), "HTTP 500 "),
    "too many requests": (Reply(b"", 429, {"Retry-After": "9"}), "HTTP 429 "),
    "a cut connection": (Reply(b'{"data": {"hits": []', cut=3), "the connection failed"),
    "a cut answer": (Reply(b'{"data": {"hits": [{"id'), "the answer is not JSON"),
    "a login page": (Reply(b"<html>Welcome to the library</html>"), "the answer is not JSON"),
    "nothing": (Reply(b""), "the answer is not JSON"),
    "a list": (Reply(b"[]"), "the answer is not of the form data.hits, data.pagination.total"),
    "null": (Reply(b"null"), "the answer is not of the form"),
    "no hits": (changed(lambda body: body["data"].pop("hits") and None), "KeyError: 'hits'"),
    "no total": (changed(lambda body: body["data"]["pagination"].pop("total") and None), "KeyError: 'total'"),
    "no name": (changed(lambda body: body["data"]["hits"][2].pop("file_name") and None), "KeyError: 'file_name'"),
    "no case": (changed(lambda body: body["data"]["hits"][2].pop("cases") and None), "KeyError: 'cases'"),
    "two cases": (changed(lambda body: body["data"]["hits"][2]["cases"].append({})), "ValueError: too many values"),
    "no checksum": (changed(lambda body: body["data"]["hits"][0].update(md5sum=None)), "TypeError: md5sum is None"),
    "a short page": (changed(cut_page), "9 slides from number 0 on, expected 10 of 24"),
    "a changed total": (changed(other_total), "25 slides in all, 24 on an earlier page"),
    "more than all": (changed(lambda body: body["data"]["pagination"].update(total=3)), "10 slides from number 0 on"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_stay_are_reported(fault: str, waits: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    answer, expected = FAULTS[fault]
    with serve(answer) as server, pytest.raises(UserError) as caught:
        listed(server.url)
    message = str(caught.value)
    assert message.startswith(f"error: {server.url}/files: ")
    assert expected in message
    assert ", 3 attempts; " in message
    assert "make the table on a machine that has it" in message
    assert "--slides-dir" in message
    assert waits == ([9, 9] if "429" in expected else [0.5, 1])
    assert capsys.readouterr().err.count(expected) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_are_got_over(fault: str, waits: list[float]) -> None:
    good = gdc_server.gdc(RECORDS)
    with serve(in_turn(good, FAULTS[fault][0], FAULTS[fault][0], good)) as server:
        assert [slide.file_id for slide in listed(server.url)] == [one["file_id"] for one in WANTED]
    assert len(waits) == 2


def test_no_server(waits: list[float]) -> None:
    with pytest.raises(UserError, match=r"the connection failed .*refused.*, 3 attempts; without internet access"):
        listed(no_server())


def test_a_refused_query_is_not_asked_again(waits: list[float]) -> None:
    with serve(Reply(b'{"message": "bad"}', 400)) as server:
        with pytest.raises(UserError, match="HTTP 400 Bad Request; "):
            listed(server.url)
        assert len(server.requests) == 1
    assert waits == []


@pytest.mark.parametrize(("name", "shown"), [("file_id", "file_id"), ("file_name", "slide_id")])
def test_a_slide_on_two_pages_is_reported(name: str, shown: str) -> None:
    """As it would be where the list changes between the pages; twice in a row, so the totals agree."""
    again = [*RECORDS[:20], {**RECORDS[21], name: RECORDS[3][name]}]
    value = RECORDS[3][name].removesuffix(".svs")
    with serve(gdc_server.gdc(again)) as server, pytest.raises(UserError) as caught:
        listed(server.url)
    assert f"1 slides stand in the answers more than once ({shown} {value!r})" in str(caught.value)
    assert "run the command again" in str(caught.value)
