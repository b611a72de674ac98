"""Requests and downloads that are tried again after a passing fault; a downloaded file is whole or not there at all."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

import requests
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, InvalidURL, SSLError, TooManyRedirects
from urllib3.exceptions import HTTPError, InvalidHeader, ProtocolError
from urllib3.util import Retry

from utils.errors import Fault, UserError
from utils.files import file_sha256
from utils.redaction import redacted
from utils.whole_files import whole_file, writing

WAITS = (1, 2, 4, 8, 16)  # seconds between the attempts
LONGEST_WAIT = 300  # seconds, whatever a server asks for
TIMEOUT = 60  # seconds without a byte
CHUNK = 2**16  # bytes; what a cut connection loses
LONGEST_ANSWER = 1800  # seconds of one body, however slowly it comes
LONGEST_TEXT = 500  # characters of what a server says
LARGEST_FILE = 10**8  # bytes of a table, splits or descriptions: all of them have 0.7 MB
LARGEST_ARCHIVE = 2 * 10**11  # bytes; the authors' have 25 GB
PASSING = {408, 429, 500, 502, 503, 504}

Result = TypeVar("Result")


class BadAnswer(requests.RequestException):
    """What a server answered is not what was asked for; the next answer may be."""


def retried(url: str, step: Callable[[], Result], mend: str, waits: Sequence[float] = WAITS) -> Result:
    """The result of ``step``, which asks ``url``; tried again after each wait, or after the longer one that the server
    asks for, where the fault may pass: no connection, a cut one, no answer, HTTP 408, 429 or 5xx, a BadAnswer.

    mend: what the user can do; the last words of the message. Raises UserError where the last attempt fails, or at once
    where the fault stays.
    """
    left = list(waits)
    while True:
        try:
            return step()
        except requests.RequestException as error:
            reason = printable(_reason(error))
            if not _may_pass(error):
                raise UserError(Fault("download.failed", url, reason, mend=mend)) from error
            if not left:
                found = f"{reason}, {len(waits) + 1} attempts"
                raise UserError(Fault("download.failed", url, found, mend=mend)) from error
            wait = max(left.pop(0), _retry_after(error))
            print(redacted(f"{url}: {reason}; the next attempt in {wait:g} s"), file=sys.stderr)
            time.sleep(wait)


@contextmanager
def asking() -> Iterator[None]:
    """Around a request: what goes wrong with an address that a server names becomes an error of requests."""
    try:
        yield
    except requests.RequestException:
        raise
    except (HTTPError, HTTPException, ValueError) as error:
        raise InvalidURL(f"not an answer that can be followed ({type(error).__name__}: {error})") from error


def body_of(response: requests.Response, most: int, longest: float = LONGEST_ANSWER) -> Iterator[bytes]:
    """The body of a response in chunks. Raises UserError where it has more than ``most`` bytes, or needs longer than
    ``longest`` seconds."""
    started, received = time.monotonic(), 0
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise _endless(response.url, f"announces {announced[:20]} bytes", most, longest)
    for chunk in response.iter_content(CHUNK):
        received += len(chunk)
        if received > most or time.monotonic() - started > longest:
            raise _endless(response.url, f"sent {received} bytes and more", most, longest)
        yield chunk


def _endless(url: str, found: str, most: int, longest: float) -> UserError:
    expected = f"at most {most} bytes, within {longest:g} s"
    return UserError(Fault("download.size", url, found, expected, "is it the right address?"))


def printable(text: str) -> str:
    """Text of a server in one line, without what would steer a terminal."""
    line = "".join(sign if sign.isprintable() else " " for sign in text[:LONGEST_TEXT])
    return " ".join(line.split())


def download(
    url: str, path: Path, sha256: str | None, mend: str, waits: Sequence[float] = WAITS, most: int = LARGEST_FILE
) -> None:
    """Write what ``url`` holds to ``path``. A cut connection goes on where it stopped; a wrong checksum is fetched
    anew, once. sha256: None where it is not known, so that any file is taken. Raises UserError as ``retried``, for a
    wrong checksum, and for more than ``most`` bytes; ``path`` stays as it was then."""
    with whole_file(path) as temporary:
        for _ in range(2):
            temporary.write_bytes(b"")
            retried(url, lambda: _fetch_rest(url, temporary, most), mend, waits)
            found = file_sha256(temporary)
            if sha256 is None or found == sha256:
                return
        with temporary.open("rb") as file:
            what = "a page of HTML or XML" if file.read(99).lstrip().startswith(b"<") else "a file"
        raise UserError(Fault("download.checksum", url, f"twice {what} of sha256 {found}", sha256 or "", mend))


def download_from_drive(
    file_id: str,
    path: Path,
    mend: str,
    progress: Callable[[int, int | None], None],
    waits: Sequence[float] = WAITS,
    most: int = LARGEST_ARCHIVE,
) -> None:
    """Write a public file of Google Drive to ``path``. What a failed or killed call leaves of it (``<name>*.part`` in
    the same folder) is gone on with. Its checksum is unknown; its length is checked against what the server announces.

    progress: called with the bytes so far and in all (None: unknown); what it raises ends the download. Raises
    UserError as ``retried``, and for more than ``most`` bytes.
    """
    import gdown

    url = f"https://drive.google.com/uc?id={file_id}"

    def check(so_far: int, total: int | None) -> None:
        if max(so_far, total or 0) > most:
            raise UserError(Fault("download.size", url, f"{max(so_far, total or 0)} bytes", f"at most {most}", mend))
        progress(so_far, total)

    def fetch() -> None:
        try:
            with asking():
                gdown.download(
                    id=file_id, output=str(path), resume=True, use_cookies=False, timeout=TIMEOUT, progress=check
                )
        except gdown.DownloadError as error:
            raise BadAnswer(" ".join(str(error).split())) from error

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        retried(url, fetch, mend, waits)


def _fetch_rest(url: str, file: Path, most: int) -> None:
    """Append what is still missing, or start anew where the server does not serve parts."""
    start = file.stat().st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with asking(), requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            file.write_bytes(b"")
            raise BadAnswer(f"HTTP 416, nothing behind byte {start}")
        response.raise_for_status()
        if response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise BadAnswer(f"HTTP {response.status_code} without an address to go on to")
        with file.open("ab" if response.status_code == requests.codes.partial_content else "wb") as output:
            for chunk in body_of(response, most - output.tell()):
                output.write(chunk)


def _may_pass(error: requests.RequestException) -> bool:
    if error.response is not None:
        return error.response.status_code in PASSING
    passing = requests.ConnectionError, requests.Timeout, ChunkedEncodingError, ContentDecodingError, BadAnswer
    return isinstance(error, passing) and not isinstance(error, SSLError)


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, TooManyRedirects):
        return "redirects again and again"
    if error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, ChunkedEncodingError | requests.ConnectionError):
        cause = error.args[0] if error.args else error
        cause = getattr(cause, "reason", cause)
        return f"the connection failed ({cause.args[0] if isinstance(cause, ProtocolError) else cause})"
    return str(error)


def _retry_after(error: requests.RequestException) -> float:
    """Seconds that the server asks to wait, 0 where it does not."""
    asked = error.response.headers.get("Retry-After") if error.response is not None else None
    try:
        return min(Retry().parse_retry_after(asked), LONGEST_WAIT) if asked else 0
    except InvalidHeader:
        return 0
