"""A web server on this machine that answers as a test says, with faults where it says so."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


@dataclass(frozen=True)
class Request:
    """headers: by their names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """cut: bytes of the body after which the connection is closed, though all are announced; None: the whole body."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


Answer = Callable[[Request], Reply]


@dataclass
class Server:
    url: str
    requests: list[Request]


def in_turn(*replies: Reply | Answer) -> Answer:
    """Each reply once; the last one again and again."""
    turns = itertools.chain(replies, itertools.repeat(replies[-1]))

    def answer(request: Request) -> Reply:
        reply = next(turns)
        return reply if isinstance(reply, Reply) else reply(request)

    return answer


def part_of(content: bytes, request: Request, **faults: Any) -> Reply:
    """The content, or the end of it that a Range header asks for."""
    asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if not asked:
        return Reply(content, **faults)
    start = int(asked[1])
    if start >= len(content):
        return Reply(status=416)
    return Reply(content[start:], 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, **faults)


def files_of(folder: Path) -> Answer:
    """The files of a folder by their paths."""

    def answer(request: Request) -> Reply:
        file = folder / request.path.lstrip("/")
        return part_of(file.read_bytes(), request) if file.is_file() else Reply(b"404: Not Found", 404)

    return answer


@contextmanager
def serve(answer: Answer | Reply) -> Iterator[Server]:
    """Answer at ``url`` until the block ends."""
    reply_to = (lambda request: answer) if isinstance(answer, Reply) else answer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            parts = urlsplit(self.path)
            request = Request(self.command, unquote(parts.path), parts.query, headers, body)
            server.requests.append(request)
            reply = reply_to(request)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut])

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}", [])
    Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def no_server() -> str:
    """The address of a server that is gone."""
    with serve(Reply()) as server:
        return server.url


@pytest.fixture(name="waits")
def waits_fixture(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited between attempts; none are."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited
