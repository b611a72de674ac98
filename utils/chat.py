"""A language model behind any OpenAI-compatible chat-completions endpoint, asked through the ``openai`` package."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai import APIError, OpenAI

from utils.errors import Fault, UserError

KEY_VARIABLE = "OPENAI_API_KEY"
MOST_RETRIES = 4  # of one request, by the client: status 408, 409, 429 and 5xx, lost connections


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
    request, such as temperature. The key comes from OPENAI_API_KEY. Raises UserError without a key at OpenAI's own
    endpoint, other ones may need none.
    """

    def __init__(self, name: str, base_url: str | None = None, parameters: dict[str, Any] | None = None):
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (key.isascii() and key.isprintable()):  # the client's own message would show it
            found = "characters that a key cannot have"
            raise UserError(Fault("key.characters", KEY_VARIABLE, found, expected="printable ASCII"))
        self.name = name
        self.parameters = parameters or {}
        self.client = OpenAI(api_key=key or "none", base_url=base_url, max_retries=MOST_RETRIES)
        self.base_url = str(self.client.base_url)
        if not key and self.client.base_url.host.endswith(".openai.com"):
            raise UserError(
                Fault(
                    "key.missing",
                    KEY_VARIABLE,
                    f"not set, but {self.base_url} needs a key",
                    mend="export it, or name another endpoint with --base-url (a local one needs no key)",
                )
            )

    def ask(self, messages: Sequence[dict[str, str]]) -> Answer:
        """The answer to a conversation of {role, content}. Raises UserError where the endpoint gives none."""
        request: Any = {"model": self.name, "messages": list(messages), **self.parameters}
        try:
            body = self.client.chat.completions.with_raw_response.create(**request).text
        except APIError as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise UserError(
                Fault(
                    "chat.no_answer",
                    self.base_url,
                    f"no answer from model {self.name!r}: {error.message.rstrip('.')}{cause}",
                    expected="an OpenAI-compatible endpoint (--base-url), a model it has (--model) and its key in "
                    f"{KEY_VARIABLE}",
                )
            ) from error
        return read_completion(body)


def read_completion(body: str) -> Answer:
    """What a chat completion says, or what the model refuses with. A lone surrogate in it becomes a question mark."""
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        text = message["content"] or message.get("refusal") or ""
        text = text.encode("utf-8", "replace").decode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Answer(body, None)
    return Answer(body, text, choice.get("finish_reason") == "length")
