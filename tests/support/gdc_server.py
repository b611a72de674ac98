"""A stand-in for the files endpoint of the GDC API: filters, fields, sort and pages, over records in its form."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.support.failing_server import Answer, Reply, Request

Record = dict[str, Any]


def record(
    project: str,
    patient: str,
    *diagnoses: str | tuple[str, object],
    sample: str = "01Z-00-DX1",
    strategy: str = "Diagnostic Slide",
    **other: Any,
) -> Record:
    """A slide image; a diagnosis with a second value says whether it is of the primary disease."""
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"{patient}-{sample}")
    of_case = [
        {"diagnosis_id": "d", "primary_diagnosis": name, "diagnosis_is_primary_disease": primary[0]}
        if primary
        else {"diagnosis_id": "d", "primary_diagnosis": name}
        for name, *primary in ((item,) if isinstance(item, str) else item for item in diagnoses)
    ]
    case: Record = {"case_id": "c", "submitter_id": patient, "project": {"project_id": project, "name": "long"}}
    return {
        "id": str(number),
        "file_id": str(number),
        "file_name": f"{patient}-{sample}.{str(number).upper()}.svs",
        "md5sum": number.hex,
        "file_size": 1000 + number.int % 1000,
        "state": "released",
        "access": "open",
        "data_type": "Slide Image",
        "data_format": "SVS",
        "experimental_strategy": strategy,
        "cases": [{**case, "diagnoses": of_case} if of_case else case],
        **other,
    }


def values_at(value: Any, path: list[str]) -> Iterator[Any]:
    """All values that a dotted name leads to."""
    if isinstance(value, list):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        yield value
    elif path[0] in value:
        yield from values_at(value[path[0]], path[1:])


def matches(one: Record, filters: Mapping[str, Any]) -> bool:
    if filters["op"] == "and":
        return all(matches(one, inner) for inner in filters["content"])
    assert filters["op"] == "in"
    field, wanted = filters["content"]["field"], filters["content"]["value"]
    assert isinstance(wanted, list)
    return any(value in wanted for value in values_at(one, field.split(".")))


def only(value: Any, names: Iterable[list[str]]) -> Any:
    """The fields asked for, and no others."""
    if isinstance(value, list):
        return [only(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key in value:
        inner = [name[1:] for name in names if name[0] == key]
        if inner:
            kept[key] = only(value[key], inner) if all(inner) else value[key]
    return kept


def page_of(records: Iterable[Record], query: Mapping[str, Any]) -> Record:
    """The body of an answer."""
    found = [one for one in records if matches(one, query["filters"])]
    name, _, order = query["sort"].partition(":")
    found.sort(key=lambda one: one[name], reverse=order == "desc")
    start, size = int(query.get("from", 0)), int(query.get("size", 10))
    names = [field.split(".") for field in query["fields"].split(",")]
    hits = [{"id": one["id"], **only(one, names)} for one in found[start : start + size]]
    pagination = {"count": len(hits), "total": len(found), "size": size, "from": start, "sort": query["sort"]}
    return {"data": {"hits": hits, "pagination": pagination}, "warnings": {}}


def gdc(records: Iterable[Record]) -> Answer:
    """Answers as the GDC does."""
    kept = list(records)

    def answer(request: Request) -> Reply:
        if (request.method, request.path) != ("POST", "/files"):
            return Reply(b'{"message": "not found"}', 404)
        assert request.headers["content-type"] == "application/json"
        body = json.dumps(page_of(kept, json.loads(request.body))).encode()
        return Reply(body, headers={"Content-Type": "application/json"})

    return answer
