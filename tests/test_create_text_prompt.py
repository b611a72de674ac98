"""create_text_prompt.py against a server on this machine, which answers well, badly or not at all."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from datasets.description_request import DescriptionRequest
from datasets.descriptions import read_descriptions
from models.tiny_clip import save_tiny_clip
from tests.conftest import RunMain, SimulatedTask
from tests.support.chat_server import ChatReply, chat_server
from tests.support.description_answers import FLAT, GOOD, answer, options, records


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# ---- the straight way ------------------------------------------------------------------------------------------------


def test_a_good_answer_is_written_and_kept(run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "new" / "made.json"
    settings = ("--model", "org/m-1", "--temperature", "0.2", "--seed", "7")
    more = (*settings, "--class-names", "B=Bee = cell", "--dataset-name", "D")
    before = datetime.now(UTC).replace(microsecond=0)
    with chat_server(f"Here:\n```json\n{GOOD}\n```") as server:
        code, said, errors = run_main(options(server, output, *more), "create_text_prompt")
    assert (code, errors) == (0, "")
    assert output.read_text() == json.dumps(FLAT, indent=2) + "\n"
    assert sorted(file.name for file in output.parent.iterdir()) == ["made.answers.jsonl", "made.json"]
    (request,) = server.requests
    assert {name: request[name] for name in ("model", "temperature", "seed")} == {
        "model": "org/m-1", "temperature": 0.2, "seed": 7,
    }  # fmt: skip
    assert "features of the D dataset for the classes A, Bee = cell (B) classes" in request["messages"][0]["content"]
    assert "at most 29 words" in request["messages"][0]["content"]
    (record,) = records(output)
    assert record["model"] == "org/m-1"
    assert record["base_url"] == f"{server.url}/"
    assert record["parameters"] == {"temperature": 0.2, "seed": 7}
    assert record["messages"] == request["messages"]
    assert (record["attempt"], record["faults"]) == (1, [])
    assert json.loads(record["body"])["choices"][0]["message"]["content"] == f"Here:\n```json\n{GOOD}\n```"
    assert json.loads(record["body"])["model"] == "org/m-1-as-served"
    assert before <= datetime.fromisoformat(record["time"]) <= datetime.now(UTC)
    assert f"written: {output}" in said
    assert "pathologist" in said


def test_it_goes_where_main_reads_it(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.config.PROJECT", tmp_path)
    arguments = ["--task", "made.v1", "--classes", "A", "B", "--LLM", "gpt"]
    with chat_server(GOOD) as server:
        assert run_main([*arguments, "--base-url", server.url], "create_text_prompt")[0] == 0
    folder = tmp_path / "text_prompt" / "HiVE_MIL" / "gpt"
    assert sorted(file.name for file in folder.iterdir()) == ["made.v1.answers.jsonl", "made.v1.json"]
    assert server.requests[0]["model"] == "gpt"
    assert set(server.requests[0]) == {"path", "model", "messages", "response_format"}
    assert "features of the made.v1 dataset" in server.requests[0]["messages"][0]["content"]
    texts = read_descriptions(folder / "made.v1.json", ["A", "B"], 4, 3, "term")
    assert texts.high_texts[(1 * 4 + 2) * 3 : (1 * 4 + 2) * 3 + 3] == ["Term B2.0", "Term B2.1", "Term B2.2"]


def test_numbers_and_magnifications(run_main: RunMain, tmp_path: Path) -> None:
    numbers = ["--num-low-mag-texts", "2", "--num_high_mag_subtexts", "5", "--low-mag", "10x", "--high_mag", "40"]
    with chat_server(json.dumps(answer(2, 5))) as server:
        zeros = ("--temperature", "0", "--seed", "0")
        code, *_ = run_main(options(server, tmp_path / "made.json", *numbers, *zeros), "create_text_prompt")
    assert code == 0
    assert (server.requests[0]["temperature"], server.requests[0]["seed"]) == (0, 0)
    prompt = server.requests[0]["messages"][0]["content"]
    assert "two representative morphological features observed at 10x magnification, followed by five finer" in prompt
    assert "(40x)" in prompt
    assert len(read_descriptions(tmp_path / "made.json", None, 2, 5).high_texts) == 20


def test_main_trains_with_it(run_main: RunMain, simulated: SimulatedTask, tmp_path: Path) -> None:
    names = ["SIMULATED_A", "SIMULATED_B"]
    reply = json.dumps(dict(zip(names, answer().values(), strict=True)))
    file = tmp_path / "made.json"
    with chat_server(reply) as server:
        arguments = ["--task", "simulated", "--classes", *names, "--LLM", "m", "--base-url", server.url]
        assert run_main([*arguments, "--output", str(file)], "create_text_prompt")[0] == 0
    code, output, errors = run_main(simulated.options(tmp_path / "r", "--text_prompt", str(file), "--dry_run"))
    assert (code, errors) == (0, "")
    assert "all checks passed" in output


@pytest.mark.parametrize(
    "reply", [f"<think>{GOOD}</think>{GOOD}", f"Thoughts: {GOOD}</think>{GOOD}", f'{{"made": {GOOD}}}']
)
def test_drafts_and_wrappers_are_understood(run_main: RunMain, tmp_path: Path, reply: str) -> None:
    output = tmp_path / "made.json"
    with chat_server(reply) as server:
        assert run_main(options(server, output, "--attempts", "1"), "create_text_prompt")[0] == 0
    assert json.loads(output.read_text()) == FLAT
    assert json.loads(records(output)[0]["body"])["choices"][0]["message"]["content"] == reply, "kept whole"


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_schema_is_sent_where_the_endpoint_takes_it(run_main: RunMain, tmp_path: Path, is_taken: bool) -> None:
    output = tmp_path / "made.json"
    replies = (
        [ChatReply("no"), ChatReply(GOOD)] if is_taken else [ChatReply(status=400), ChatReply("no"), ChatReply(GOOD)]
    )
    with chat_server(*replies) as server:
        assert run_main(options(server, output), "create_text_prompt")[0] == 0
    schemas = [request.get("response_format") for request in server.requests]
    assert list(schemas[0]["json_schema"]["schema"]["properties"]) == ["A", "B"]
    assert schemas[1:] == ([schemas[0]] if is_taken else [None, None])
    assert [record["with_schema"] for record in records(output)] == [is_taken, is_taken]


# ---- nothing is overwritten, nothing paid for in vain ----------------------------------------------------------------


def test_an_existing_file_is_kept_and_nobody_asked(run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "made.json"
    output.write_text("mine")
    with chat_server(GOOD) as server:
        code, _, errors = run_main(options(server, output), "create_text_prompt")
    assert code == 2
    assert f"{output}: is there already" in errors
    assert server.requests == []
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_a_file_that_came_meanwhile_is_kept_too(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "made.json"
    read = DescriptionRequest.read_answer

    def read_and_write(*arguments: Any) -> Any:
        output.write_text("mine")
        return read(*arguments)

    monkeypatch.setattr(DescriptionRequest, "read_answer", read_and_write)
    with chat_server(GOOD) as server:
        assert run_main(options(server, output), "create_text_prompt")[0] == 2
    assert output.read_text() == "mine"
    assert len(records(output)) == 1


def test_a_folder_that_cannot_be_written_to_is_found_before_asking(run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with chat_server(GOOD) as server:
        code, _, errors = run_main(options(server, tmp_path / "file" / "made.json"), "create_text_prompt")
    assert (code, server.requests) == (2, [])
    assert errors.startswith("error: ")


def test_openai_without_a_key_is_refused(run_main: RunMain, tmp_path: Path) -> None:
    arguments = ["--task", "t", "--classes", "A", "B", "--LLM", "m", "--output", str(tmp_path / "made.json")]
    code, _, errors = run_main(arguments, "create_text_prompt")
    assert code == 2
    assert "OPENAI_API_KEY: not set, but https://api.openai.com/v1/ needs a key" in errors
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_written_nowhere(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with chat_server("no", GOOD) as server:
        code, said, _ = run_main(options(server, tmp_path / "made.json"), "create_text_prompt")
    assert code == 0
    assert server.headers[0]["authorization"] == "Bearer sk-secret"
    assert "secret" not in said + "".join(file.read_text() for file in tmp_path.iterdir())


# ---- dry run, towers, options ----------------------------------------------------------------------------------------


def test_a_dry_run_prints_what_would_be_sent(run_main: RunMain, tmp_path: Path) -> None:
    with chat_server(GOOD) as server:
        arguments = options(server, tmp_path / "made.json", "--class-names", "A=Aye")
        code, said, _ = run_main([*arguments, "--dry-run"], "create_text_prompt")
        assert (code, server.requests, list(tmp_path.iterdir())) == (0, [], [])
        run_main(arguments, "create_text_prompt")
    assert said == server.requests[0]["messages"][0]["content"] + "\n"


def test_the_chosen_tower_sets_the_limit(run_main: RunMain, tmp_path: Path, golden: Path) -> None:
    for file in (golden / "visible_conch").glob("*onfig.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for file in [golden / "visible_conch" / "pytorch_model.bin", *(golden / "conch_tokenizer").glob("*.json")]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_tiny_clip(tmp_path / "clip", width=16)
    long_for_clip = GOOD.replace("what B3.2 looks like", "cell " * 58)
    for extractor, vlm, expected in (("conch", tmp_path / "pytorch_model.bin", 0), ("tiny", tmp_path / "clip", 2)):
        towers = ("--feature_extractor", extractor, "--vlm-path", str(vlm), "--attempts", "1")
        with chat_server(long_for_clip) as server:
            code, _, errors = run_main(options(server, tmp_path / f"{extractor}.json", *towers), "create_text_prompt")
        assert code == expected, errors
    with chat_server(long_for_clip) as server:
        fewer = ("--num-context-tokens", "8", "--attempts", "1")
        assert run_main(options(server, tmp_path / "fewer.json", *fewer), "create_text_prompt")[0] == 0


def test_a_missing_tower_is_found_before_asking(run_main: RunMain, tmp_path: Path) -> None:
    with chat_server(GOOD) as server:
        arguments = options(server, tmp_path / "made.json", "--feature_extractor", "unknown")
        code, _, errors = run_main(arguments, "create_text_prompt")
    assert (code, server.requests) == (2, [])
    assert "--feature_extractor unknown" in errors


NEEDED = "--task t --classes A B --LLM m"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "required: --task, --classes, --LLM"),
        ("--task t --classes A --LLM m", "--classes A: expected two or more"),
        ("--task t --classes A B A --LLM m", "--classes A B A: expected two or more, each once"),
        (f"{NEEDED} --class-names C=x A=y D=z", "--class-names C, D: not in --classes"),
        (f"{NEEDED} --class-names A", "'A': expected CLASS=full name"),
        (f"{NEEDED} --class-names A=", "'A=': expected CLASS=full name"),
        (f"{NEEDED} --base-url localhost:8000/v1", "expected http://... or https://..."),
        (f"{NEEDED} --vlm_path x", "--vlm_path: expected together with --feature_extractor"),
        (f"{NEEDED} --low-mag 20", "--low_mag 20 --high_mag 20: expected the first to be lower"),
        (f"{NEEDED} --attempts 0", "0 is less than 1"),
        (f"{NEEDED} --temperature -1", "less than 0"),
        ("--task t --classes A B --LLM org/m", "expected a name without slashes"),
        ("--task ../t --classes A B --LLM m", "expected a name without slashes"),
        ("--task t --classes A B --LLM ..", "expected a name without slashes"),
    ],
)
def test_wrong_options_are_refused(run_main: RunMain, arguments: str, said: str) -> None:
    code, _, errors = run_main(arguments.split(), "create_text_prompt")
    assert code == 2
    assert said in errors
