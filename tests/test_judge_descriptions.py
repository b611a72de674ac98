"""judge_descriptions.py against a server on this machine that judges well, badly or not at all."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import FaultsOf, RunMain
from tests.support.chat_server import ChatReply, ChatServer, chat_server

SCRIPT = "judge_descriptions"
CLASSES = {"LUAD": "lung adenocarcinoma", "LUSC": "lung squamous cell carcinoma"}
TEXTS = {
    name: {f"{name.lower()} term {place}": f"sign number {place} of kind {number}" for place in range(16)}
    for number, name in enumerate(CLASSES)
}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts" / "made.json"
    path.parent.mkdir()
    path.write_text(json.dumps({name: {f"Term {k[-2:]}": v for k, v in of.items()} for name, of in TEXTS.items()}))
    return path


def options(server: ChatServer, file: Path, *more: str) -> list[str]:
    output = file.parent.parent / "out" / "judged.json"
    return [str(file), "--output", str(output), "--model", "judge-1", "--base-url", server.url, *more]


def told(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((file.parent.parent / "out" / "judged.json").read_text())
    return value


def said(name: str) -> str:
    return json.dumps({"class": name})


def question(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"])


# ---- the straight way ------------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_paper(run_main: RunMain, file: Path) -> None:
    """LUAD is right but for its second low text and two high ones; LUSC is always right but for one high text."""
    wrong = {1, 6, 15, 16 + 9}
    truth = ["LUAD"] * 16 + ["LUSC"] * 16
    other = {"LUAD": "LUSC", "LUSC": "LUAD"}
    answers = [said(other[name] if place in wrong else name) for place, name in enumerate(truth)]
    with chat_server(*answers) as server:
        code, output, errors = run_main(options(server, file, "--temperature", "0", "--seed", "7"), SCRIPT)
    assert (code, errors) == (0, "")
    assert "correct: 28 of 32 (7 of 8 at 5x / 21 of 24 at 20x)" in output
    judged = told(file)
    assert judged["correct"] == {
        "both": {"correct": 28, "of": 32}, "low": {"correct": 7, "of": 8}, "high": {"correct": 21, "of": 24},
    }  # fmt: skip
    assert judged["by_class"] == {"LUAD": {"correct": 13, "of": 16}, "LUSC": {"correct": 15, "of": 16}}
    assert [(row["magnification"], row["class"], row["guess"]) for row in judged["missed"]] == [
        ("5x", "LUAD", "LUSC"), ("20x", "LUAD", "LUSC"), ("20x", "LUAD", "LUSC"), ("20x", "LUSC", "LUAD"),
    ]  # fmt: skip
    assert output.count("  missed: ") == 4
    table = pd.read_csv(file.parent.parent / "out" / "judged.csv")
    assert list(table["class"]) == truth
    assert set(table.index[~table["is_correct"]]) == wrong
    assert len(server.requests) == 32
    assert {(one["model"], one["temperature"], one["seed"]) for one in server.requests} == {("judge-1", 0, 7)}


def test_one_description_alone_is_shown_and_the_order_gives_nothing_away(run_main: RunMain, file: Path) -> None:
    with chat_server(said("LUAD")) as server:
        run_main(options(server, file), SCRIPT)
        prompts = [question(request) for request in server.requests]
        assert all(len(request["messages"]) == 1 for request in server.requests)
    shown = [re.findall(r"sign number \d+ of kind \d", prompt) for prompt in prompts]
    assert shown == [[text] for of_class in TEXTS.values() for text in of_class.values()]
    assert [f"{magnification}x magnification" in prompt for magnification, prompt in zip(
        ([5] * 4 + [20] * 12) * 2, prompts, strict=True)] == [True] * 32  # fmt: skip
    first = [prompt.index("- LUAD") < prompt.index("- LUSC") for prompt in prompts]
    for of_class in (first[:16], first[16:]):
        assert 3 <= sum(of_class) <= 13, "both orders, for either class"
    with chat_server(said("LUAD")) as server:
        other = [*options(server, file, "--order-seed", "2"), "--output", str(file.parent / "b.json")]
        run_main(other, SCRIPT)
        assert [question(request) for request in server.requests] != prompts
    texts = json.loads(file.read_text())
    swapped = file.with_name("swapped.json")
    swapped.write_text(json.dumps({"LUAD": texts["LUSC"], "LUSC": texts["LUAD"]}))
    with chat_server(said("LUAD")) as server:
        run_main([*options(server, swapped), "--output", str(file.parent / "c.json")], SCRIPT)
        assert sorted(question(request) for request in server.requests) == sorted(prompts), "whatever the class is"


@pytest.mark.parametrize(
    "answer",
    [
        "LUSC", "lusc.", "**LUSC**", "The class is: LUSC", "Lung squamous cell carcinoma", '{"class": "lusc"}',
        "LUSC: lung squamous cell carcinoma",
        '<think>First LUAD: {"class": "LUAD"}, but no.</think>\nThe signs fit.\n{"class": "LUSC"}',
        'Perhaps {"class": "LUAD"}.</think>It is LUSC after all:\nLUSC', "<think>LUAD</think>LUSC",
        'Not LUAD, since {nothing} fits.\n```json\n{"class": "LUSC", "why": "signs"}\n```\nI hope this helps.',
    ],
)  # fmt: skip
def test_a_class_is_read_from_what_is_said_around_it(run_main: RunMain, file: Path, answer: str) -> None:
    names = [f"{name}={full}" for name, full in CLASSES.items()]
    with chat_server(answer) as server:
        code, _, _ = run_main(options(server, file, "--class-names", *names), SCRIPT)
    assert code == 0
    assert told(file)["by_class"] == {"LUAD": {"correct": 0, "of": 16}, "LUSC": {"correct": 16, "of": 16}}
    assert len(server.requests) == 32


@pytest.mark.parametrize(
    "answer",
    [
        said("SARCOMA"), "It is certainly not LUAD", "LUAD or LUSC", "", '{"class": null}', '{"class": ["LUAD"]}',
        ChatReply("{", finish_reason="length"), '<think>Perhaps {"class": "LUAD"}, but', "<think>\nLUAD",
    ],
    ids=["unknown", "negated", "both", "empty", "null", "list", "cut off", "thought alone", "a thought's last line"],
)  # fmt: skip
def test_an_answer_without_a_class_is_asked_again_and_then_missed(
    run_main: RunMain, file: Path, answer: str | ChatReply
) -> None:
    with chat_server(answer, said("LUAD")) as server:
        assert run_main(options(server, file), SCRIPT)[0] == 0
        assert len(server.requests) == 33, "the first one was asked again"
        again = server.requests[1]["messages"]
        assert question(server.requests[0]) == again[0]["content"]
        assert len(again) in (1, 3)
    assert (told(file)["without_class"], told(file)["correct"]["both"]["correct"]) == (0, 16)
    with chat_server(answer) as server:
        more = ("--attempts", "2", "--output", str(file.parent / "never.json"))
        code, output, _ = run_main([*options(server, file), *more], SCRIPT)
        assert (code, len(server.requests)) == (0, 64)
    assert "correct: 0 of 32" in output
    assert "note: 32 descriptions got no answer with a class" in output


# ---- names that give a class away ------------------------------------------------------------------------------------


def test_descriptions_that_name_their_class_are_counted(run_main: RunMain, file: Path) -> None:
    texts = json.loads(file.read_text())
    entries = [list(of_class.items()) for of_class in texts.values()]
    entries[0][0] = ("Typical luad", "pattern")
    entries[0][5] = ("A sign", "of Lung Adenocarcinoma, say")
    entries[1][3] = ("Other", "unlike LUAD")
    entries[1][4] = ("Spelt within", "xluscx")
    file.write_text(json.dumps({name: dict(of) for name, of in zip(texts, entries, strict=True)}))
    with chat_server(said("LUAD")) as server:
        full = "LUAD=lung adenocarcinoma"
        code, output, _ = run_main(options(server, file, "--class-names", full), SCRIPT)
    assert code == 0
    judged = told(file)
    assert (judged["naming_their_class"], judged["others"]) == (2, {"correct": 14, "of": 30})
    table = pd.read_csv(file.parent.parent / "out" / "judged.csv", keep_default_na=False)
    assert list(table.index[table["names_its_class"]]) == [0, 5]
    named = {place: names for place, names in enumerate(table["classes_named"]) if names}
    assert named == {0: "LUAD", 5: "LUAD", 16 + 3: "LUAD"}
    assert "note: 2 descriptions name their own class" in output


def test_short_names_count_as_they_are_written(run_main: RunMain, tmp_path: Path) -> None:
    """A is no article, EC no syllable."""
    file = tmp_path / "made.json"
    file.write_text(json.dumps({"EC": {"a": "ec of a", "b": "EC of b"}, "A": {"c": "a cell", "d": "cell d"}}))
    numbers = ("--num_low_mag_texts", "1", "--num_high_mag_subtexts", "1", "--output", str(tmp_path / "o.json"))
    with chat_server(said("A")) as server:
        run_main([str(file), "--model", "m", "--base-url", server.url, *numbers], SCRIPT)
    assert json.loads((tmp_path / "o.json").read_text())["naming_their_class"] == 1


# ---- nothing paid for twice ------------------------------------------------------------------------------------------


def spoil_nothing(kept: Path) -> None:
    pass


def cut_last_line(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-9])


def add_rubbish(kept: Path) -> None:
    with kept.open("a") as opened:
        opened.write('{"is_settled": true}\n[]\nnull\n{"is_sett')


@pytest.mark.parametrize(("spoil", "asked"), [(spoil_nothing, 27), (cut_last_line, 28), (add_rubbish, 27)])
def test_what_was_answered_is_not_asked_again(
    run_main: RunMain, file: Path, spoil: Callable[[Path], None], asked: int
) -> None:
    with chat_server(*[said("LUAD")] * 5, ChatReply(status=401)) as server:
        url, (code, _, errors) = server.url, run_main(options(server, file), SCRIPT)
    assert code == 2
    assert "no answer from model 'judge-1': " in errors
    kept = file.parent.parent / "out" / "judged.answers.jsonl"
    assert sorted(path.name for path in kept.parent.iterdir()) == [kept.name]
    kept.write_text(kept.read_text().replace(url, "http://127.0.0.1:1/v1"))
    with chat_server(said("LUSC")) as server:
        kept.write_text(kept.read_text().replace("http://127.0.0.1:1/v1", server.url))
        spoil(kept)
        code, output, _ = run_main(options(server, file), SCRIPT)
        assert (code, len(server.requests)) == (0, asked)
        assert f"answered before: {32 - asked} of 32" in output
        assert told(file)["by_class"]["LUAD"]["correct"] == 32 - asked
        before = {path.name: path.read_bytes() for path in kept.parent.iterdir()}
        assert run_main(options(server, file), SCRIPT)[0] == 0
        assert len(server.requests) == asked
        assert {path.name: path.read_bytes() for path in kept.parent.iterdir()} == before


def test_another_judgement_is_kept(run_main: RunMain, faults_of: FaultsOf, file: Path) -> None:
    with chat_server(said("LUAD")) as server:
        assert run_main(options(server, file), SCRIPT)[0] == 0
        before = told(file)
        for more in (("--model", "other"), ("--order-seed", "3"), ("--temperature", "1"), ("--class-names", "LUAD=x")):
            assert [fault.code for fault in faults_of([*options(server, file), *more], SCRIPT)] == ["judgement.exists"]
        file.write_text(file.read_text().replace("sign", "mark"))
        assert [fault.code for fault in faults_of(options(server, file), SCRIPT)] == ["judgement.exists"]
        assert len(server.requests) == 32
    assert told(file) == before


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_openai_without_a_key_is_refused(faults_of: FaultsOf, file: Path) -> None:
    arguments = [file, "--output", file.parent / "o.json", "--model", "m"]
    assert [fault.code for fault in faults_of(arguments, SCRIPT)] == ["key.missing"]


@pytest.mark.parametrize(
    ("reply", "code"),
    [(ChatReply(status=404), "chat.no_answer"), (ChatReply(body=b"<html>busy</html>"), "answer.no_completion")],
    ids=["wrong model", "no completion"],
)
def test_an_endpoint_that_gives_no_answer_ends_it(faults_of: FaultsOf, file: Path, reply: ChatReply, code: str) -> None:
    with chat_server(reply) as server:
        assert [fault.code for fault in faults_of(options(server, file), SCRIPT)] == [code]
    assert not (file.parent.parent / "out" / "judged.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--class-names", "SARC=sarcoma"), "option.value"),
        (("--num_low_mag_texts", "3"), "prompt.number"),
        (("--output", "{file}"), "output.is_input"),
    ],
)
def test_wrong_options_are_refused_before_anybody_is_asked(
    faults_of: FaultsOf, file: Path, arguments: tuple[str, str], code: str
) -> None:
    with chat_server(said("LUAD")) as server:
        found = faults_of([*options(server, file), *(one.format(file=file) for one in arguments)], SCRIPT)
        assert server.requests == []
    assert {fault.code for fault in found} == {code}


def test_the_output_is_a_json_file(run_main: RunMain, file: Path) -> None:
    with chat_server(said("LUAD")) as server:
        code, _, errors = run_main([*options(server, file), "--output", "judged.csv"], SCRIPT)
    assert code == 2
    assert "expected a name that ends in .json" in errors
