"""Passwords, keys and tokens do not stay in texts."""

import pytest

from utils.errors import Fault, UserError
from utils.redaction import redacted

KEY = "sk-proj-abcdef0123456789"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ann:secret@host/x", "https://***@host/x"),
        ("see http://ann@host:80/x, or ftp://b:c@d", "see http://***@host:80/x, or ftp://***@d"),
        ("https://ann:p@ss@host/x", "https://***@host/x"),
        ("https://ann:p/a?s#s@host/x", "https://***@host/x"),
        ("https://host/x?token=abc&page=2", "https://host/x?token=***&page=2"),
        ("https://host/x?page=2&X-Amz-Signature=abc", "https://host/x?page=2&X-Amz-Signature=***"),
        ("https://host/x?api_key=abc#top", "https://host/x?api_key=***#top"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ('{"api-key": "abc", "a": 1}', '{"api-key": "***", "a": 1}'),
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: ***."),
        ("hf_abcdefghijklmnop", "***"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8000/a/@b/c", "https://host/a@b", "mail a@b.org", "--num_context_tokens 16",
        "the key 'a' is missing",
        "token: 5", "task sk-learn", "/data/user@host/x", "class_specific_token False", "a basic misunderstanding",
    ],
)  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    assert redacted(text) == text


def test_values_of_variables_and_given_ones_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "ordinary-words")
    monkeypatch.setenv("SHORT_KEY", "none")
    assert redacted("none of the ordinary-words, nor of others", ["others"]) == "none of the ***, nor of ***"


def test_a_fault_holds_none() -> None:
    fault = Fault("a.b", "https://u:pw@h/x", "no https://u:pw@h/x", "https://u:pw@h/x", "see https://u:pw@h/x")
    assert "pw" not in str(fault) + str(fault.to_dict()) + repr(fault) + str(UserError(fault))
    assert fault.where == "https://***@h/x"
