"""A stand-in for Google Drive: a page that asks whether a large file is really wanted, then the file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests

from tests.support.failing_server import Answer, Reply, Request, Server, part_of, serve

HOSTS = ("https://drive.google.com", "https://drive.usercontent.google.com")
QUOTA = (
    b'<html><p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try '
    b"accessing the file again later.</p></html>"
)
PAGE = (
    '<html><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"></form></html>'
)
HTML = {"Content-Type": "text/html; charset=utf-8"}


def drive(files: Mapping[str, bytes | Answer]) -> Answer:
    """Files by their ids; one that is an Answer replies for itself."""

    def answer(request: Request) -> Reply:
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        file = files.get(asked.get("id", ""))
        if file is None:
            return Reply(b"<html>Not found</html>", 404, HTML)
        if request.path == "/uc":
            return Reply(PAGE.format(id=asked["id"]).encode(), headers=HTML)
        assert (request.path, asked["confirm"]) == ("/download", "t")
        return as_attachment(part_of(file, request)) if isinstance(file, bytes) else file(request)

    return answer


def as_attachment(reply: Reply) -> Reply:
    said = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="features"'}
    return Reply(reply.body, reply.status, {**said, **reply.headers}, reply.cut)


@contextmanager
def serve_drive(files: Mapping[str, bytes | Answer]) -> Iterator[Server]:
    """Google Drive's addresses lead to this machine until the block ends."""
    with serve(drive(files)) as server, pytest.MonkeyPatch.context() as patch:
        get = requests.Session.get

        def get_here(session: requests.Session, url: str, **settings: Any) -> requests.Response:
            assert url.startswith(HOSTS)
            for host in HOSTS:
                url = url.replace(host, server.url)
            return get(session, url, **settings)

        patch.setattr(requests.Session, "get", get_here)
        yield server
