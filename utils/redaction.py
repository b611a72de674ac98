"""Texts without what nobody should read: passwords in addresses, keys and tokens."""

import os
import re
from collections.abc import Iterable

HIDDEN = "***"
SECRET_WORDS = "|".join(["key", "token", "secret", "password", "passwd", "credential", "signature", "sig"])
SECRET_VARIABLE = re.compile(rf"(?:^|_)(?:{SECRET_WORDS})s?$", re.IGNORECASE)
"""Names of environment variables whose values are secrets: OPENAI_API_KEY, HF_TOKEN."""
SHORTEST_SECRET = 6  # characters; a shorter value is a placeholder, and stands in words of all kinds
PATTERNS = (
    # user:password@ of an address; the password may hold slashes, which should have been written as %2F
    (re.compile(r"(?<=://)(?:[^/\s?#\"<>]*|[^/\s:@\"<>]*:(?!\d+(?:[/?#]|$))[^\s\"<>]*)@"), f"{HIDDEN}@"),
    # ?token=... of an address
    (re.compile(rf"(?i)([?&][\w-]*(?:{SECRET_WORDS})=)[^\s&#\"'<>]+"), rf"\1{HIDDEN}"),
    # headers, and what tells of them
    (re.compile(r"(?i)\b(api[_-]?key[\"']?\s*[:=]\s*[\"']?)[^\s&#\"',;)}\]]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=\S*\d)[\w.+/=~-]{8,}"), rf"\1 {HIDDEN}"),
    # keys by their published beginnings: OpenAI and its kin, the Hugging Face hub, GitHub
    (re.compile(r"\b(?:sk-|hf_|gh[opsu]_|github_pat_)[\w*-]{12,}"), HIDDEN),
)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with ``***`` in place of secrets: what stands before the @ of an address, values of parameters that are
    called keys or tokens, keys by their form, values of environment variables that hold keys, and ``secrets``."""
    known = {value for name, value in os.environ.items() if SECRET_VARIABLE.search(name)} | set(secrets)
    for secret in sorted((value.strip() for value in known), key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text
