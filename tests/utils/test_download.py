"""Downloads from servers that fail: tried again, gone on with, and whole or not there at all."""

import hashlib
import re
import time
from email.utils import formatdate
from pathlib import Path
from threading import Event

import pytest
import requests

from tests.support.failing_server import Reply, Request, in_turn, no_server, part_of, serve, waits_fixture  # noqa: F401
from tests.support.faults import expect_faults
from utils.download import WAITS, BadAnswer, download, retried

CONTENT = bytes(range(256)) * 12_000  # 3 MB, three chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEND = "do something else"


def fetched(url: str, path: Path) -> bool:
    """Whether the file came, whole; nothing else may be in its folder in any case."""
    try:
        download(f"{url}/file", path, SHA256, MEND)
    finally:
        present = sorted(file.name for file in path.parent.iterdir())
        assert present in ([], [path.name])
    return path.read_bytes() == CONTENT


def whole(request: Request) -> Reply:
    return part_of(CONTENT, request)


def test_a_file_is_fetched_at_once(tmp_path: Path, waits: list[float]) -> None:
    with serve(whole) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        assert [request.path for request in server.requests] == ["/file"]
    assert waits == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_faults_are_waited_for(
    tmp_path: Path, waits: list[float], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(in_turn(Reply(b"<html>", status), Reply(b"<html>", status), whole)) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        assert len(server.requests) == 3
        assert f"{server.url}/file: HTTP {status} " in capsys.readouterr().err
    assert waits == [1, 2]


def test_waits_grow_and_end(tmp_path: Path, waits: list[float]) -> None:
    with serve(Reply(b"", 503)) as server:
        with expect_faults("download.failed") as faults:
            fetched(server.url, tmp_path / "file.csv")
        assert len(server.requests) == 6
    assert re.fullmatch(rf"{server.url}/file: HTTP 503 .*, 6 attempts; {MEND}", str(faults[0]))
    assert waits == list(WAITS) == sorted(set(waits))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("header", "shortest", "longest"),
    [("7", 7, 7), ("0", 1, 1), ("86400", 300, 300), ("soon", 1, 1), (lambda: formatdate(time.time() + 60), 50, 60)],
)
def test_the_server_says_how_long_to_wait(
    tmp_path: Path, waits: list[float], header: object, shortest: float, longest: float
) -> None:
    text = str(header() if callable(header) else header)
    with serve(in_turn(Reply(b"", 429, {"Retry-After": text}), whole)) as server:
        assert fetched(server.url, tmp_path / "file.csv")
    assert len(waits) == 1
    assert shortest <= waits[0] <= longest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_lasting_faults_are_reported_at_once(tmp_path: Path, waits: list[float], status: int) -> None:
    with serve(Reply(b"", status)) as server:
        with expect_faults("download.failed") as faults:
            fetched(server.url, tmp_path / "file.csv")
        assert len(server.requests) == 1
    assert faults[0].found.startswith(f"HTTP {status} ") and "attempts" not in faults[0].found
    assert (faults[0].where, faults[0].mend) == (f"{server.url}/file", MEND)
    assert waits == []


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path, waits: list[float]) -> None:
    def cut(request: Request) -> Reply:
        return part_of(CONTENT, request, cut=1_100_000)

    with serve(in_turn(cut, cut, whole)) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        asked = [request.headers.get("range") for request in server.requests]
    assert asked[0] is None
    starts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in asked[1:] if text]
    assert 0 < starts[0] <= 1_100_000
    assert starts[0] < starts[1] <= 2_200_000
    assert waits == [1, 2]


def test_a_server_without_parts_is_asked_for_the_whole(tmp_path: Path, waits: list[float]) -> None:
    with serve(in_turn(Reply(CONTENT, cut=1_500_000), Reply(CONTENT))) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        assert len(server.requests) == 2
    assert len(waits) == 1


def test_a_part_that_has_all_is_fetched_anew(tmp_path: Path, waits: list[float]) -> None:
    """The connection is cut behind the last byte, before the end of a chunked answer is said."""

    def unended(request: Request) -> Reply:
        body = f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n"
        return Reply(body, headers={"Transfer-Encoding": "chunked", "Content-Length": "0"})

    with serve(in_turn(unended, whole, whole)) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        assert [request.headers.get("range") for request in server.requests] == [None, f"bytes={len(CONTENT)}-", None]
    assert len(waits) == 2


def test_a_connection_that_is_always_cut_leaves_nothing(tmp_path: Path, waits: list[float]) -> None:
    with serve(Reply(CONTENT, cut=1000)) as server, expect_faults("download.failed") as faults:
        fetched(server.url, tmp_path / "file.csv")
    assert re.fullmatch(r"the connection failed .*IncompleteRead.*, 6 attempts", faults[0].found)
    assert not list(tmp_path.iterdir())


def test_no_server(tmp_path: Path, waits: list[float]) -> None:
    with expect_faults("download.failed") as faults:
        fetched(no_server(), tmp_path / "file.csv")
    assert re.fullmatch(r"the connection failed .*refused.*, 6 attempts", faults[0].found)
    assert waits == list(WAITS)
    assert not list(tmp_path.iterdir())


def test_no_answer_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setattr("utils.download.TIMEOUT", 0.2)
    ended = Event()

    def silent(request: Request) -> Reply:
        ended.wait(5)
        return Reply()

    with serve(in_turn(silent, whole)) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        ended.set()
    assert waits == [1]


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_wrong_checksum_is_fetched_anew_once(tmp_path: Path, waits: list[float], old: bytes | None) -> None:
    path = tmp_path / "file.csv"
    if old:
        path.write_bytes(old)
    with serve(in_turn(Reply(b"other"), whole)) as server:
        assert fetched(server.url, path)
        assert [request.headers.get("range") for request in server.requests] == [None, None]
    path.unlink()
    if old:
        path.write_bytes(old)
    with serve(Reply(b"other")) as server:
        with expect_faults("download.checksum") as faults:
            fetched(server.url, path)
        assert len(server.requests) == 2
    assert hashlib.sha256(b"other").hexdigest() in faults[0].found
    assert (faults[0].expected, faults[0].mend) == (SHA256, MEND)
    assert (path.read_bytes() if old else path.exists()) == (old or False)
    assert waits == []


def test_compressed_transfer_is_not_asked_for(tmp_path: Path) -> None:
    """Else the places in the file and in the transfer would differ."""
    with serve(whole) as server:
        assert fetched(server.url, tmp_path / "file.csv")
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (BadAnswer("nonsense"), 3),
        (requests.Timeout("slow"), 3),
        (requests.ConnectionError("gone"), 3),
        (requests.exceptions.SSLError("certificate"), 1),
        (requests.exceptions.InvalidURL("no address"), 1),
    ],
)
def test_which_faults_may_pass(waits: list[float], error: Exception, attempts: int) -> None:
    made = []

    def step() -> None:
        made.append(1)
        raise error

    with expect_faults("download.failed") as faults:
        retried("here", step, MEND, (0.5, 3))
    assert (faults[0].where, faults[0].mend) == ("here", MEND)
    assert len(made) == attempts
    assert waits == [0.5, 3][: attempts - 1]


def test_other_errors_are_not_swallowed(waits: list[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        retried("here", lambda: 1 / 0, MEND)
    assert waits == []
