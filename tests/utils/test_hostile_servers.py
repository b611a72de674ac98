"""Servers that redirect wrongly, send without end, lie about lengths or answer with other things: one fault each, and
nothing of theirs in a file, a path or a terminal."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from datasets import gdc
from datasets.ask_descriptions import make_descriptions
from datasets.description_request import DescriptionRequest, TokenLimit
from tests.support import gdc_server
from tests.support.chat_server import ChatReply, chat_server
from tests.support.drive_server import serve_drive
from tests.support.failing_server import Reply, serve, waits_fixture  # noqa: F401
from tests.support.faults import expect_faults
from tests.support.gdc_server import record
from tests.support.raw_server import serve_bytes
from utils.chat import KEY_VARIABLE, ChatModel
from utils.download import download, download_from_drive, printable
from utils.errors import UserError

OK = b"HTTP/1.1 200 OK\r\n"
REDIRECTS = {
    "to_itself": (b"{url}/file", "again and again"),
    "to_a_file": (b"file:///etc/passwd", "file:///etc/passwd"),
    "to_ftp": (b"ftp://127.0.0.1/x", "ftp://"),
    "to_a_broken_ipv6": (b"http://[::1", "URL"),
    "to_no_port": (b"http://127.0.0.1:99999999/x", "Port out of range"),
    "to_no_host": (b"http:///x", "again and again"),
    "to_a_long_host": (b"http://" + b"a" * 300 + b".example/x", "not an answer that can be followed"),
    "to_a_label_too_long": (b"http://" + b"a" * 64 + b".example/x", "not an answer that can be followed"),
    "to_dots": (b"http://..../x", "not an answer that can be followed"),
    "to_no_unicode": (b"http://\xff\xfe.example/", "not an answer that can be followed"),
    "to_nowhere": (b"", "without an address"),
    "to_script": (b"javascript:alert(1)", "javascript"),
    "to_blanks": (b"http://a b c/", "a%20b%20c"),
}
BODIES = {
    "length_below_nothing": (OK + b"Content-Length: -5\r\n\r\nabc", ""),
    "length_that_is_no_number": (OK + b"Content-Length: many\r\n\r\nabc", ""),
    "two_lengths": (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", ""),
    "length_beyond_the_body": (OK + b"Content-Length: 99\r\n\r\nabc", ""),
    "length_of_an_exabyte": (OK + b"Content-Length: 1000000000000000000\r\n\r\nabc", "announces"),
    "length_of_any_length": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc", "announces"),
    "chunk_of_no_number": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", ""),
    "chunk_below_nothing": (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n0\r\n\r\n", ""),
    "no_gzip": (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", ""),
    "no_http": (b"220 ftp ready\r\n", ""),
    "no_status": (b"HTTP/1.1 abc\r\n\r\n", ""),
    "nothing": (b"", ""),
    "long_header": (OK + b"X: " + b"x" * 10**5 + b"\r\n\r\n", ""),
    "many_headers": (OK + b"".join(b"X%d: x\r\n" % n for n in range(200)) + b"\r\n", ""),
}


def fails(url: str, path: Path, most: int = 10**6) -> str:
    """What is found wrong with a download, of which nothing stays."""
    with expect_faults("download.failed") as faults:
        download(f"{url}/file", path, "0" * 64, "", waits=(0.1,), most=most)
    assert list(path.parent.iterdir()) == []
    assert str(faults[0]).isprintable() and len(str(faults[0])) < 800
    return faults[0].found


@pytest.mark.parametrize("case", REDIRECTS)
def test_redirects_that_lead_nowhere(case: str, tmp_path: Path, waits: list[float]) -> None:
    to, found = REDIRECTS[case]
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\n"
    head += b"Location: " + to + b"\r\n" if to else b""
    with serve_bytes(head + b"\r\n") as server:
        assert found in fails(server.url, tmp_path / "x")


@pytest.mark.parametrize("case", BODIES)
def test_answers_that_are_none(case: str, tmp_path: Path, waits: list[float]) -> None:
    answer, found = BODIES[case]
    with serve_bytes(answer) as server, pytest.raises(UserError) as caught:
        download(f"{server.url}/file", tmp_path / "x", "0" * 64, "", waits=(0.1,), most=10**6)
    (fault,) = caught.value.faults
    # where a length tells nothing, what came is not what was asked for
    assert fault.code in (("download.size",) if found else ("download.failed", "download.checksum"))
    assert found in fault.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head", [b"", b"Content-Encoding: gzip\r\n"])
def test_a_body_without_end(head: bytes, tmp_path: Path, waits: list[float]) -> None:
    import gzip

    part = gzip.compress(bytes(10**6)) if head else bytes(2**16)
    with serve_bytes(OK + head + b"\r\n", without_end=part) as server, expect_faults("download.size") as faults:
        download(f"{server.url}/file", tmp_path / "x", "0" * 64, "", most=10**6)
    assert faults[0].where == f"{server.url}/file"
    assert list(tmp_path.iterdir()) == []
    assert waits == []


def test_a_body_that_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 10**6, 600))
    monkeypatch.setattr("utils.download.time.monotonic", lambda: next(times))
    with serve_bytes(OK + b"\r\n", without_end=b"x") as server, expect_faults("download.size"):
        download(f"{server.url}/file", tmp_path / "x", "0" * 64, "")


def test_a_page_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    page = b"\n<!DOCTYPE html><html>log in</html>"
    with serve(Reply(page)) as server, expect_faults("download.checksum") as faults:
        download(f"{server.url}/file", tmp_path / "x", "0" * 64, "")
    assert f"a page of HTML or XML of sha256 {hashlib.sha256(page).hexdigest()}" in faults[0].found


def test_a_drive_that_sends_too_much(tmp_path: Path, waits: list[float]) -> None:
    told: list[int] = []
    with serve_drive({"id": bytes(3 * 10**6)}), expect_faults("download.size"):
        download_from_drive("id", tmp_path / "x", "", lambda so_far, total: told.append(so_far), most=10**6)
    assert not (tmp_path / "x").exists()


def test_passwords_of_an_address_are_not_shown(
    tmp_path: Path, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Reply(b"", 503)) as server, expect_faults("download.failed") as faults:
        download(f"{server.url.replace('//', '//ann:pass-word@')}/x?token=abc123", tmp_path / "x", "0" * 64, "", (0.1,))
    said = str(faults[0]) + capsys.readouterr().err
    assert "pass-word" not in said and "abc123" not in said and "***" in said


def test_what_a_server_says_does_not_steer_the_terminal() -> None:
    assert printable("Not \x1b[2J Found\r\n\u202e, sorry") == "Not [2J Found , sorry"
    assert len(printable("x" * 10**6)) == 500


# ---- the GDC ---------------------------------------------------------------------------------------------------------


def listed(url: str) -> list[gdc.GdcSlide]:
    return gdc.list_slides(url, ["TCGA-LUAD"], ["Diagnostic Slide"], 10, (0.5,))


NAMES: dict[str, dict[str, Any]] = {
    "leads_out": {"file_name": "../../evil.svs"},
    "absolute": {"file_name": "/etc/passwd.svs"},
    "hidden": {"file_name": ".svs"},
    "no_ending": {"file_name": "slide"},
    "another_line": {"file_name": "a\nevil\tx.svs"},
    "another_field": {"file_id": "a\tb"},
    "terminal": {"state": "\x1b[2J"},
    "checksum": {"md5sum": "a\nb"},
    "size_below_nothing": {"file_size": -1},
    "size_without_end": {"file_size": float("inf")},
    "size_of_nothing": {"file_size": None},
    "no_text": {"file_name": ["a"]},
}


@pytest.mark.parametrize("case", NAMES)
def test_names_that_the_gdc_sends_are_checked(case: str, waits: list[float]) -> None:
    with serve(gdc_server.gdc([record("TCGA-LUAD", "TCGA-05-0001", **NAMES[case])])) as server:
        with expect_faults("download.failed") as faults:
            listed(server.url)
        assert len(server.requests) == 2
    assert faults[0].found.isprintable()


@pytest.mark.parametrize(
    "body",
    [b"[" * 10**5, b"null", b"[]", b'{"data": null}', b'{"data": {"hits": [], "pagination": {"total": 1e400}}}',
     b'{"data": {"hits": [], "pagination": {"total": 10000000}}}', b"\xff\xfe", b"{}" * 2],
)  # fmt: skip
def test_answers_of_the_gdc_that_are_none(body: bytes, waits: list[float]) -> None:
    with serve(Reply(body)) as server, expect_faults("download.failed"):
        listed(server.url)


def test_an_answer_of_the_gdc_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdc, "LARGEST_PAGE", 10**6)
    with serve_bytes(OK + b"\r\n", without_end=b" " * 2**16) as server, expect_faults("download.size"):
        listed(server.url)


# ---- language models -------------------------------------------------------------------------------------------------

KEY = "secret-key-of-ann"
QUESTION = [{"role": "user", "content": "?"}]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setattr("utils.chat.MOST_RETRIES", 0)
    return KEY


def test_an_endpoint_that_echoes_the_key(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In errors and in answers: neither the screen nor a file has the key, or the password of the address."""
    request = DescriptionRequest("d", {"A": "A", "B": "B"}, 1, 1, 5, 20, TokenLimit(len, 99))
    error = json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}}).encode()
    for number, reply in enumerate((ChatReply(f"your key is {key}"), ChatReply(status=401, body=error))):
        with chat_server(reply) as server:
            chat = ChatModel("m", server.url.replace("//", "//ann:pass-word@"))
            codes = ["chat.no_answer"] if number else ["answer.faults", "answer.form"]
            with expect_faults(*codes) as faults:
                make_descriptions(chat, request, 1, tmp_path / f"{number}.json")
        kept = (tmp_path / f"{number}.answers.jsonl").read_text()
        said = "".join([kept, *map(str, faults), *capsys.readouterr()])
        assert key not in said and "pass-word" not in said and "***" in said


@pytest.mark.parametrize(
    "base_url", ["http://[", "http://a:b:c", "http://host:99999999/v1", "no address", "http://\x00/"]
)
def test_addresses_that_are_none(base_url: str, key: str) -> None:
    with pytest.raises(UserError) as caught:
        ChatModel("m", base_url).ask(QUESTION)
    assert caught.value.faults[0].code in ("chat.address", "chat.no_answer")


@pytest.mark.parametrize(
    ("answer", "without_end"),
    [
        (OK + b"Content-Type: application/json\r\n\r\n", b" " * 2**16),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", b""),
        (b"HTTP/1.1 302 Found\r\nLocation: {url}/v1/chat/completions\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", b""),
        (OK + b"Content-Length: -1\r\n\r\nabc", b""),
        (b"SSH-2.0-OpenSSH\r\n", b""),
    ],
)
def test_endpoints_that_do_not_answer(
    answer: bytes, without_end: bytes, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.chat.LARGEST_ANSWER", 10**6)
    with serve_bytes(answer, without_end) as server, expect_faults("chat.no_answer") as faults:
        ChatModel("m", server.url).ask(QUESTION)
    assert str(faults[0]).isprintable()
