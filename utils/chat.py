"""A language model behind any OpenAI-compatible chat-completions endpoint, asked through the ``openai`` package."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from openai import APIError, APIStatusError, DefaultHttpxClient, OpenAI

from utils.download import LONGEST_ANSWER, printable
from utils.errors import Fault, UserError
from utils.redaction import redacted

KEY_VARIABLE = "OPENAI_API_KEY"
LARGEST_ANSWER = 2**24  # bytes
MOST_RETRIES = 4  # of one request, by the client: status 408, 409, 429 and 5xx, lost connections
REFUSALS = {400, 404, 415, 422, 501}
"""Statuses by which endpoints refuse a request with a JSON schema."""


@dataclass(frozen=True)
class Answer:
    """body: what the endpoint sent, as text. text: what the model said, None where the body is no chat completion.
    cut_off: whether it stopped at a length limit."""

    body: str
    text: str | None
    cut_off: bool = False


class ChatModel:
    """One model of one endpoint.

    base_url: of the endpoint; by default OPENAI_BASE_URL, else OpenAI's own. parameters: further fields of the
    request, such as temperature. takes_schemas: whether the endpoint has refused no JSON schema yet. The key comes from
    OPENAI_API_KEY. Raises UserError without a key at OpenAI's own endpoint, other ones may need none.
    """

    def __init__(self, name: str, base_url: str | None = None, parameters: dict[str, Any] | None = None):
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (key.isascii() and key.isprintable()):  # the client's own message would show it
            found = "characters that a key cannot have"
            raise UserError(Fault("key.characters", KEY_VARIABLE, found, expected="printable ASCII"))
        self.name = name
        self.parameters = parameters or {}
        self.takes_schemas = True
        self.secrets = [key]
        try:
            self.client = OpenAI(
                api_key=key or "none",
                base_url=base_url,
                max_retries=MOST_RETRIES,
                default_headers={"Accept-Encoding": "identity"},
                http_client=DefaultHttpxClient(event_hooks={"response": [_bound]}),
            )
            self.base_url = redacted(str(self.client.base_url), self.secrets)
        except (httpx2.InvalidURL, ValueError) as error:
            found = f"not the address of an endpoint ({error})"
            raise UserError(Fault("chat.address", "--base-url", found, expected="http://... or https://...")) from error
        if not key and self.client.base_url.host.endswith(".openai.com"):
            raise UserError(
                Fault(
                    "key.missing",
                    KEY_VARIABLE,
                    f"not set, but {self.base_url} needs a key",
                    mend="export it, or name another endpoint with --base-url (a local one needs no key)",
                )
            )

    def ask(self, messages: Sequence[dict[str, str]], schema: dict[str, Any] | None = None) -> Answer:
        """The answer to a conversation of {role, content}.

        schema: the JSON schema of the answer, sent unless the endpoint has refused one. Raises UserError where the
        endpoint gives no answer, nor one without the schema.
        """
        request: Any = {"model": self.name, "messages": list(messages), **self.parameters}
        if schema and self.takes_schemas:
            form = {"name": "answer", "strict": True, "schema": schema}
            try:
                return self._answer({**request, "response_format": {"type": "json_schema", "json_schema": form}})
            except APIStatusError as error:
                self.takes_schemas = error.status_code not in REFUSALS
                if self.takes_schemas:
                    raise self._no_answer(error) from error
            except APIError as error:
                raise self._no_answer(error) from error
        try:
            return self._answer(request)
        except APIError as error:
            raise self._no_answer(error) from error

    def _answer(self, request: Any) -> Answer:
        body = self.client.chat.completions.with_raw_response.create(**request).text
        return read_completion(redacted(body, self.secrets))

    def _no_answer(self, error: APIError) -> UserError:
        cause = f" ({printable(str(error.__cause__))})" if error.__cause__ else ""
        message = printable(error.message)
        return UserError(
            Fault(
                "chat.no_answer",
                self.base_url,
                redacted(f"no answer from model {self.name!r}: {message.rstrip('.')}{cause}", self.secrets),
                expected="an OpenAI-compatible endpoint (--base-url), a model it has (--model) and its key in "
                f"{KEY_VARIABLE}",
            )
        )


class _Bounded(httpx2.SyncByteStream):
    """A body that ends: after ``LARGEST_ANSWER`` bytes or ``LONGEST_ANSWER`` seconds with an error."""

    def __init__(self, stream: httpx2.SyncByteStream):
        self.stream = stream

    def __iter__(self) -> Iterator[bytes]:
        started, received = time.monotonic(), 0
        for chunk in self.stream:
            received += len(chunk)
            if received > LARGEST_ANSWER or time.monotonic() - started > LONGEST_ANSWER:
                raise httpx2.ReadError(f"an answer of more than {LARGEST_ANSWER} bytes or {LONGEST_ANSWER} s")
            yield chunk

    def close(self) -> None:
        self.stream.close()


def _bound(response: httpx2.Response) -> None:
    """Refuse an answer without end, and one that is compressed, which no request asks for."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx2.DecodingError("a compressed answer")
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Bounded(response.stream)


def read_completion(body: str) -> Answer:
    """What a chat completion says, or what the model refuses with. A lone surrogate in it becomes a question mark."""
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        text = message["content"] or message.get("refusal") or ""
        if isinstance(text, list):  # parts, of which those of another type are reasoning
            text = "".join(part["text"] for part in text if part["type"] == "text")
        text = text.encode("utf-8", "replace").decode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Answer(body, None)
    return Answer(body, text, choice.get("finish_reason") == "length")
