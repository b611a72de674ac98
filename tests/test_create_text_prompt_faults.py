"""create_text_prompt.py: faulty answers are told to the model, and failing endpoints to the user."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunMain
from tests.support.chat_server import ChatReply, chat_server
from tests.support.description_answers import FLAT, GOOD, answer, options, records


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# ---- faults, and asking again ----------------------------------------------------------------------------------------


def spoilt(spoil: Callable[[dict[str, Any]], object]) -> str:
    value = answer()
    spoil(value)
    return json.dumps(value)


FAULTY = {
    "missing class": (spoilt(lambda value: value.pop("B")), "class 'B' is missing"),
    "full name": (GOOD.replace('"B"', '"Bee"'), "unknown class 'Bee'"),
    "too few": (spoilt(lambda value: value["A"].pop()), "class 'A': found 3 features; expected 4"),
    "pairing": (
        spoilt(lambda value: value["A"][1]["sub_features"].append(value["A"][0]["sub_features"].pop())),
        "class 'A', feature 2: found 4 sub_features; expected 3",
    ),
    "flat": (json.dumps(FLAT), "class 'A': found a dict; expected a list of 4 features"),
    "doubled": (GOOD.replace("Term A1.0", "Term A0.0"), "class 'A': the term 'term a0.0' stands 2 times"),
    "too long": (
        GOOD.replace("what B3.2 looks like", "cell " * 58),
        "class 'B', 'Term B3.2': 64 tokens long; expected at most 59; shorten the explanation",
    ),
    "empty text": (
        GOOD.replace("Term B1.2", " "),
        "class 'B', feature 2, sub-feature 3: found a dict; expected an object",
    ),
    "no JSON": ("I would rather not.", "found none: it holds none"),
    "malformed": (GOOD[:-5], "found none: Expecting"),
    "twice": (GOOD * 2, "found 2; expected one JSON object with the keys ['A', 'B']"),
}  # fmt: skip


@pytest.mark.parametrize(("faulty", "fault"), FAULTY.values(), ids=FAULTY)
def test_the_model_is_told_its_faults_and_mends_them(
    run_main: RunMain, tmp_path: Path, faulty: str, fault: str
) -> None:
    output = tmp_path / "made.json"
    with chat_server(faulty, GOOD) as server:
        code, said, errors = run_main(options(server, output), "create_text_prompt")
    assert (code, errors) == (0, "")
    assert json.loads(output.read_text()) == FLAT
    first, second = (request["messages"] for request in server.requests)
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[:2] == [*first, {"role": "assistant", "content": faulty}]
    assert fault in second[2]["content"]
    kept = records(output)
    assert [len(record["messages"]) for record in kept] == [1, 3]
    assert fault in " ".join(kept[0]["faults"])
    assert json.loads(kept[0]["body"])["choices"][0]["message"]["content"] == faulty
    assert "answer 1 of 3 at most: " in said
    assert kept[0]["faults"][0] in said


@pytest.mark.parametrize(
    "reply",
    [
        *(ChatReply(body=body) for body in (b'{"id": ', b"<html>busy</html>", b"", b"[]", b'{"choices": []}')),
        ChatReply(""), ChatReply(None),
    ],
)  # fmt: skip
def test_where_nothing_was_said_the_prompt_is_sent_again(run_main: RunMain, tmp_path: Path, reply: ChatReply) -> None:
    output = tmp_path / "made.json"
    with chat_server(reply, GOOD) as server:
        code, *_ = run_main(options(server, output), "create_text_prompt")
    assert code == 0
    assert server.requests[0] == server.requests[1]
    kept = records(output)
    assert kept[0]["body"] == reply.content("m").decode()
    assert len(kept[0]["faults"]) == 1
    assert [record["attempt"] for record in kept] == [1, 2]
    if reply.body is not None:
        assert f"no chat completion, but {reply.body.decode()!r}" in kept[0]["faults"][0]


def test_an_answer_cut_off_and_a_refusal_are_told(run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "made.json"
    refusal = ChatReply(None, refusal="I must not.")
    with chat_server(ChatReply(GOOD[:200], finish_reason="length"), refusal, GOOD) as server:
        assert run_main(options(server, output), "create_text_prompt")[0] == 0
    assert "- the answer was cut off at a length limit\n- found none" in server.requests[1]["messages"][2]["content"]
    assert server.requests[2]["messages"][1]["content"] == "I must not."
    with chat_server(ChatReply(GOOD, finish_reason="length")) as server:
        assert run_main(options(server, tmp_path / "whole.json"), "create_text_prompt")[0] == 0, "whole all the same"


def test_a_lone_surrogate_goes_back_as_a_question_mark(run_main: RunMain, tmp_path: Path) -> None:
    with chat_server("No \ud800", GOOD) as server:
        assert run_main(options(server, tmp_path / "made.json"), "create_text_prompt")[0] == 0
    assert server.requests[1]["messages"][1]["content"] == "No ?"
    assert "\\ud800" in records(tmp_path / "made.json")[0]["body"]


def test_failures_of_the_connection_and_of_the_answer_one_after_another(run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "made.json"
    bad = [
        ChatReply(status=500),
        ChatReply(status=429),
        ChatReply(body=b"{"),
        ChatReply(GOOD, cut=True),
        ChatReply(status=503),
    ]
    with chat_server(*bad, FAULTY["flat"][0], ChatReply(status=500), GOOD) as server:
        code, *_ = run_main(options(server, output), "create_text_prompt")
    assert code == 0
    assert json.loads(output.read_text()) == FLAT
    assert len(server.requests) == 8
    assert [bool(record["faults"]) for record in records(output)] == [True, True, False]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_model_that_never_gets_it_right(run_main: RunMain, tmp_path: Path, attempts: int) -> None:
    output = tmp_path / "made.json"
    last = GOOD.replace("Term A1.0", "Term A0.0").replace('"B"', '"Bee"')
    replies = [*["no"] * (attempts - 1), last, GOOD]
    with chat_server(*replies) as server:
        code, _, errors = run_main(options(server, output, "--attempts", str(attempts)), "create_text_prompt")
    assert code == 2
    assert len(server.requests) == attempts
    kept = output.with_suffix(".answers.jsonl")
    assert list(tmp_path.iterdir()) == [kept], "nothing but the raw answers"
    assert len(records(output)) == attempts
    assert errors.splitlines() == [
        "error: 4 faults",
        f"  - {kept}: {attempts} answers of m, each with faults; nothing else was written. Those of the last follow",
        "  - unknown class 'Bee'; expected ['A', 'B']",
        "  - class 'B' is missing",
        "  - class 'A': the term 'term a0.0' stands 2 times",
    ]


@pytest.mark.parametrize("before", [0, 1])
def test_an_endpoint_that_fails_for_good(run_main: RunMain, tmp_path: Path, before: int) -> None:
    output = tmp_path / "made.json"
    with chat_server(*["no"] * before, ChatReply(status=401)) as server:
        code, _, errors = run_main(options(server, output), "create_text_prompt")
    assert code == 2
    assert errors.startswith(f"error: {server.url}/: no answer from model 'm': Error code: 401 - planned failure 401;")
    assert not output.exists()
    kept = records(output)
    assert len(kept) == before + 1
    assert "planned failure 401" in kept[-1]["failure"]
    assert "body" not in kept[-1]


def test_answers_of_earlier_runs_stay(run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "made.json"
    with chat_server("no", GOOD) as server:
        assert run_main(options(server, output, "--attempts", "1"), "create_text_prompt")[0] == 2
        first = output.with_suffix(".answers.jsonl").read_text()
        assert run_main(options(server, output, "--attempts", "1"), "create_text_prompt")[0] == 0
    assert output.with_suffix(".answers.jsonl").read_text().startswith(first)
    assert [record["attempt"] for record in records(output)] == [1, 1]
