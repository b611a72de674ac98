"""What a language model thinks aloud before it answers, told from the answer."""

import re

KIND = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|analysis|scratchpad)"
OPENED = re.compile(rf"<{KIND}>|\[{KIND}\]|◁{KIND}▷", re.IGNORECASE)
CLOSED = re.compile(rf"</{KIND}>|\[/{KIND}\]|◁/{KIND}▷", re.IGNORECASE)
"""Marks of most models, of Magistral, of Kimi."""
FINAL = re.compile(r"<\|channel\|>\s*final\b.*?<\|message\|>")
"""The mark of the answer in gpt-oss's format."""


def without_reasoning(text: str) -> str:
    """What a model answers, without its reasoning, in which drafts of the answer may stand.

    Reasoning is what stands between two marks. Reasoning that is closed and never opened begins with the text;
    reasoning that is never closed, as in an answer that was cut off, ends with the text.
    """
    text = FINAL.split(text)[-1]
    kept, place = "", 0
    while opened := OPENED.search(text, place):
        closed = CLOSED.search(text, opened.end())
        kept += text[place : opened.start()]
        place = closed.end() if closed else len(text)
    return CLOSED.split(kept + text[place:])[-1]
