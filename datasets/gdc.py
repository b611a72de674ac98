"""Slide images of the Genomic Data Commons: listed through its API, and labelled by project or by diagnosis.

The API is described in https://docs.gdc.cancer.gov/API/Users_Guide/Search_and_Retrieval/
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests

from utils.download import TIMEOUT, WAITS, BadAnswer, asking, body_of, retried
from utils.errors import Fault, Faults, UserError
from utils.names import name_problem
from utils.words import listed

STRATEGIES = {"diagnostic": ["Diagnostic Slide"], "tissue": ["Tissue Slide"]}
STRATEGIES["both"] = [*STRATEGIES["diagnostic"], *STRATEGIES["tissue"]]
DIAGNOSTIC = "DX"  # the type of slide that a barcode names
PRESETS = {
    "tcga_nsclc": ["TCGA-LUAD=LUAD", "TCGA-LUSC=LUSC"],
    "tcga_rcc": ["TCGA-KIRC=CCRCC", "TCGA-KIRP=PRCC", "TCGA-KICH=CHRCC"],
    "tcga_brca": ["TCGA-BRCA:Infiltrating duct carcinoma, NOS=IDC", "TCGA-BRCA:Lobular carcinoma, NOS=ILC"],
}
FIELDS = (
    "file_id", "file_name", "md5sum", "file_size", "state", "cases.submitter_id", "cases.project.project_id",
    "cases.diagnoses.primary_diagnosis", "cases.diagnoses.diagnosis_is_primary_disease",
)  # fmt: skip
PAGE = 500
LARGEST_PAGE = 2**26  # bytes of an answer
MOST_SLIDES = 10**6
MEND = (
    "without internet access make the table on a machine that has it and copy it here, or make it from a folder of "
    "slides: --slides-dir"
)

Labels = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class GdcSlide:
    """A slide image. diagnoses: the primary diagnoses of the patient's primary disease, each once, sorted."""

    file_id: str
    file_name: str
    md5: str
    size: int
    state: str
    project: str
    case_id: str
    diagnoses: tuple[str, ...]

    @property
    def slide_id(self) -> str:
        """The file's name without its extension, as in the authors' tables: barcode, a dot and a UUID."""
        return self.file_name.rpartition(".")[0]


def strategies_of(slide_types: Collection[str]) -> list[str]:
    """The experimental strategies of slides of some types, as barcodes name them: DX are diagnostic, all others tissue
    slides."""
    is_wanted = {"diagnostic": DIAGNOSTIC in slide_types, "tissue": any(kind != DIAGNOSTIC for kind in slide_types)}
    return [strategy for name, wanted in is_wanted.items() if wanted for strategy in STRATEGIES[name]]


def parse_labels(texts: Iterable[str]) -> Labels:
    """PROJECT=CLASS and PROJECT:DIAGNOSIS=CLASS -> {(project, diagnosis in lower case or ""): class}.

    Raises UserError for other forms, one that is given two classes, and fewer than two classes.
    """
    labels: dict[tuple[str, str], str] = {}
    faults = Faults()
    for text in texts:
        source, _, label = (part.strip() for part in text.rpartition("="))
        project, colon, diagnosis = (part.strip() for part in source.partition(":"))
        key = project, diagnosis.lower()
        if not project or not label or (colon and not diagnosis):
            expected = "PROJECT=CLASS or PROJECT:DIAGNOSIS=CLASS"
            faults.add(Fault("option.value", "--labels", f"found {text!r}", expected))
        elif labels.setdefault(key, label) != label:
            faults.add(Fault("option.value", "--labels", f"{source} is {labels[key]} and {label}", "one class"))
    if not faults.found and len(set(labels.values())) < 2:
        found = f"the classes are {sorted(set(labels.values()))}"
        faults.add(Fault("option.value", "--labels", found, expected="at least two"))
    faults.raise_any()
    return labels


def label_of(slide: GdcSlide, labels: Labels) -> str | None:
    """The class of a slide, by its diagnosis where that has one, else by its project; None where neither has, or where
    its diagnoses have different ones."""
    whole_project = labels.get((slide.project, ""))
    found = {labels.get((slide.project, name.lower()), whole_project) for name in slide.diagnoses or ("",)}
    return found.pop() if len(found) == 1 else None


def list_slides(
    url: str, projects: Sequence[str], strategies: Sequence[str], page: int = PAGE, waits: Sequence[float] = WAITS
) -> list[GdcSlide]:
    """All SVS slide images of some projects, sorted by file_id.

    url: of the API. strategies: experimental strategies, values of STRATEGIES. page: slides a request.
    Raises UserError where the server does not answer, answers badly again and again, or lists a slide twice.
    """
    conditions = {
        "cases.project.project_id": projects,
        "data_type": ["Slide Image"],
        "data_format": ["SVS"],
        "experimental_strategy": strategies,
    }
    filters = [{"op": "in", "content": {"field": name, "value": values}} for name, values in conditions.items()]
    query = {
        "filters": {"op": "and", "content": filters}, "fields": ",".join(FIELDS), "format": "JSON",
        "sort": "file_id:asc", "size": page,
    }  # fmt: skip
    endpoint = f"{url.rstrip('/')}/files"
    slides: list[GdcSlide] = []
    total: int | None = None
    while total is None or len(slides) < total:
        step = partial(_fetch_page, endpoint, {**query, "from": len(slides)}, total)
        found, total = retried(endpoint, step, MEND, waits)
        slides += found
    for name in ("file_id", "slide_id"):
        counts = Counter(getattr(slide, name) for slide in slides)
        if twice := sorted(value for value, count in counts.items() if count > 1):
            repeated = f"{len(twice)} slides stand in the answers more than once ({name} {listed(twice)})"
            mend = "the list may have changed meanwhile: run the command again"
            raise UserError(Fault("gdc.repeated_slide", endpoint, repeated, mend=mend))
    return slides


def manifest_text(slides: Iterable[GdcSlide]) -> str:
    """A manifest for ``gdc-client download -m``: tab-separated id, filename, md5, size, state."""
    rows = [(slide.file_id, slide.file_name, slide.md5, str(slide.size), slide.state) for slide in slides]
    return "".join("\t".join(row) + "\n" for row in [("id", "filename", "md5", "size", "state"), *rows])


def _fetch_page(endpoint: str, query: Mapping[str, Any], known_total: int | None) -> tuple[list[GdcSlide], int]:
    """The slides of one page, and how many there are in all."""
    with asking(), requests.post(endpoint, json=query, timeout=TIMEOUT, stream=True) as response:
        response.raise_for_status()
        body = b"".join(body_of(response, LARGEST_PAGE))
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is not JSON ({error})") from error
    try:
        data = answer["data"]
        slides, total = [_read_slide(hit) for hit in data["hits"]], int(data["pagination"]["total"])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadAnswer(
            f"the answer is not of the form data.hits, data.pagination.total, with {', '.join(FIELDS[:7])} "
            f"({type(error).__name__}: {error})"
        ) from error
    if known_total not in (None, total):
        raise BadAnswer(f"{total} slides in all, {known_total} on an earlier page")
    if total > MOST_SLIDES:
        raise BadAnswer(f"{total} slides in all, expected at most {MOST_SLIDES}")
    expected = min(query["size"], total - query["from"])
    if len(slides) != expected:
        raise BadAnswer(f"{len(slides)} slides from number {query['from']} on, expected {expected} of {total}")
    return slides, total


def _read_slide(hit: Mapping[str, Any]) -> GdcSlide:
    [case] = hit["cases"]
    primary = {
        _text(diagnosis, "primary_diagnosis")
        for diagnosis in case.get("diagnoses") or []
        if diagnosis.get("primary_diagnosis")
        and str(diagnosis.get("diagnosis_is_primary_disease", True)).lower() != "false"
    }
    slide = GdcSlide(
        file_id=_text(hit, "file_id"),
        file_name=_text(hit, "file_name"),
        md5=_text(hit, "md5sum"),
        size=int(hit["file_size"]),
        state=_text(hit, "state"),
        project=_text(case["project"], "project_id"),
        case_id=_text(case, "submitter_id"),
        diagnoses=tuple(sorted(primary)),
    )
    for name in ("file_id", "file_name", "slide_id", "md5", "state", "project", "case_id"):
        if problem := name_problem(getattr(slide, name)):
            raise ValueError(f"{name} {getattr(slide, name)!r} {problem}")
    if slide.size < 0:
        raise ValueError(f"file_size is {slide.size}")
    return slide


def _text(fields: Mapping[str, Any], name: str) -> str:
    text = fields[name]
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}")
    if not text.isprintable():  # a manifest has tabs between fields, and a row per line
        raise ValueError(f"{name} is {text!r}")
    return text
