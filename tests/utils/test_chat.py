"""Asking an endpoint that answers well, badly or not at all."""

import json
import re
import time

import pytest

from tests.support.chat_server import ChatReply, chat_server
from tests.support.faults import expect_faults
from utils.chat import KEY_VARIABLE, MOST_RETRIES, ChatModel, read_completion

QUESTION = [{"role": "user", "content": "How é?"}]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_the_question_is_sent_and_the_answer_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, " sk-1\n")
    with chat_server("So é.") as server:
        answer = ChatModel("m", server.url, {"temperature": 0.5, "seed": 3}).ask(QUESTION)
    assert server.requests == [
        {"path": "/v1/chat/completions", "model": "m", "messages": QUESTION, "temperature": 0.5, "seed": 3}
    ]
    assert server.headers[0]["authorization"] == "Bearer sk-1"
    assert (answer.text, answer.cut_off) == ("So é.", False)
    assert json.loads(answer.body)["model"] == "m-as-served"


def test_a_local_endpoint_needs_no_key() -> None:
    with chat_server("yes") as server:
        assert ChatModel("m", server.url).ask(QUESTION).text == "yes"
    assert set(server.requests[0]) == {"path", "model", "messages"}, "nothing is sent that was not asked for"


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
@pytest.mark.parametrize("key", [None, " "])
def test_openai_needs_a_key(monkeypatch: pytest.MonkeyPatch, base_url: str | None, key: str | None) -> None:
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)
    with expect_faults("key.missing") as faults:
        ChatModel("m", base_url)
    assert faults[0].where == KEY_VARIABLE and "--base-url" in faults[0].mend


@pytest.mark.parametrize("base_url", ["http://notopenai.com/v1", "http://localhost:1/openai.com"])
def test_other_hosts_do_not(base_url: str) -> None:
    assert ChatModel("m", base_url).base_url == f"{base_url}/"


def test_the_endpoint_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server("yes") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert ChatModel("m").ask(QUESTION).text == "yes"


@pytest.mark.parametrize("key", ["sk-secret\nmore", "sk-secreté"])
def test_a_damaged_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with expect_faults("key.characters") as faults:
        ChatModel("m", "http://localhost:1/v1")
    assert faults[0].where == KEY_VARIABLE
    assert "secret" not in str(faults[0])


@pytest.mark.parametrize(
    "failures",
    [
        [ChatReply(status=500), ChatReply(status=503), ChatReply(status=502), ChatReply(status=500)],
        [ChatReply(status=429), ChatReply(status=408)],
        [ChatReply("x" * 5000, cut=True)],
    ],
    ids=["5xx", "429", "cut"],
)
def test_what_may_pass_is_tried_again(failures: list[ChatReply]) -> None:
    with chat_server(*failures, "at last") as server:
        assert ChatModel("m", server.url).ask(QUESTION).text == "at last"
    assert len(server.requests) == len(failures) + 1
    assert all(request["messages"] == QUESTION for request in server.requests)


@pytest.mark.parametrize(
    ("reply", "requests", "said"),
    [
        (ChatReply(status=500), MOST_RETRIES + 1, "Error code: 500 - planned failure 500"),
        (ChatReply(status=429), MOST_RETRIES + 1, "Error code: 429 - planned failure 429"),
        (ChatReply(status=401), 1, "Error code: 401 - planned failure 401"),
        (ChatReply(status=404, body=b"<html>"), 1, "Error code: 404"),
    ],
)
def test_a_lasting_failure_is_reported(reply: ChatReply, requests: int, said: str) -> None:
    with chat_server(reply) as server, expect_faults("chat.no_answer") as faults:
        ChatModel("m", server.url).ask(QUESTION)
    assert len(server.requests) == requests
    assert str(faults[0]).startswith(f"{server.url}/: no answer from model 'm': {said}")
    assert "--base-url" in faults[0].expected


def test_no_endpoint_at_all_is_reported_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with chat_server("gone") as server:
        pass
    with expect_faults("chat.no_answer") as faults:
        ChatModel("m", server.url).ask(QUESTION)
    assert re.search(r"Connection error .*refused", faults[0].found)


def completion(message: object, **more: object) -> str:
    return json.dumps({"choices": [{"message": message, **more}]})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (completion({"content": "a"}), "a"),
        (completion({"content": None, "refusal": "no"}), "no"),
        (completion({"content": "a", "refusal": "no"}), "a"),
        (completion({"content": None}), ""),
        (completion({"content": ""}), ""),
        (completion({"content": "a\ud800b"}), "a?b"),
        (completion({"content": [{"type": "text"}]}), None),
        (completion({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "ab"),
        (completion({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]}), "a"),
        (completion({}), None),
        (completion(None), None),
        *((body, None) for body in ("", "<html>", "[1]", "3", "null", '{"choices": []}', '{"choices": [3]}')),
        *((body, None) for body in ('{"choices": null}', '{"error": "x"}', '{"choices": ', "[" * 100_000)),
    ],
)
def test_what_a_body_says(body: str, text: str | None) -> None:
    answer = read_completion(body)
    assert (answer.body, answer.text, answer.cut_off) == (body, text, False)


@pytest.mark.parametrize(("reason", "cut_off"), [("length", True), ("stop", False), (None, False)])
def test_an_answer_that_was_cut_off(reason: str | None, cut_off: bool) -> None:
    assert read_completion(completion({"content": "a"}, finish_reason=reason)).cut_off is cut_off


@pytest.mark.parametrize("body", [b'{"id": ', b"", b"\xff\xfe\x00", b'{"choices": [3]}'])
def test_a_body_that_is_no_completion_is_kept(body: bytes) -> None:
    with chat_server(ChatReply(body=body)) as server:
        answer = ChatModel("m", server.url).ask(QUESTION)
    assert answer.text is None
    assert len(server.requests) == 1
    assert body.decode("ascii", "ignore") in answer.body


# ---- JSON schemas ----------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"A": {"type": "string"}}, "required": ["A"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}


def test_a_schema_is_sent_where_it_is_taken() -> None:
    with chat_server("yes") as server:
        model = ChatModel("m", server.url)
        assert [model.ask(QUESTION, SCHEMA).text for _ in range(2)] == ["yes", "yes"]
    assert [request["response_format"] for request in server.requests] == [FORM, FORM]
    assert model.takes_schemas


@pytest.mark.parametrize("status", [400, 404, 415, 422])
def test_without_a_schema_where_it_is_refused(status: int) -> None:
    """The question is asked again without one, and no later question has one."""
    with chat_server(ChatReply(status=status), "yes") as server:
        model = ChatModel("m", server.url)
        assert [model.ask(QUESTION, SCHEMA).text for _ in range(2)] == ["yes", "yes"]
    assert ["response_format" in request for request in server.requests] == [True, False, False]
    assert not model.takes_schemas


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (403, 1), (404, 2), (500, MOST_RETRIES + 1)])
def test_a_failure_for_another_reason_is_reported(status: int, requests: int) -> None:
    with chat_server(ChatReply(status=status)) as server, expect_faults("chat.no_answer") as faults:
        ChatModel("m", server.url).ask(QUESTION, SCHEMA)
    assert len(server.requests) == requests
    assert f"Error code: {status}" in faults[0].found


def test_no_endpoint_is_asked_once_for_all_its_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with chat_server("gone") as server:
        pass
    with expect_faults("chat.no_answer"):
        ChatModel("m", server.url).ask(QUESTION, SCHEMA)
