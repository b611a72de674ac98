"""fetch_released_assets.py: the authors' files by checksum and their archives by id, from servers that also fail."""

from pathlib import Path

import pytest

from datasets import released as released_files
from datasets.descriptions import read_descriptions
from datasets.splits import read_split_ids
from datasets.task import read_slides
from tests.conftest import SHARED, RunMain
from tests.support.archive_files import write_files
from tests.support.failing_server import Reply, Request, files_of, in_turn, no_server, part_of, serve, waits_fixture  # noqa: F401
from tests.support.run_contents import files_below
from tests.support.small_release import MADE, SCRIPT, files, made_fixture, options, sha256  # noqa: F401
from utils.config import Config

# ---- tables, splits and descriptions: the authors' -------------------------------------------------------------------


def test_the_checksums_are_those_of_the_released_files(released: Path) -> None:
    mirrored = {name: content for name, content in files_below(released).items() if name.endswith((".csv", ".json"))}
    assert {name: sha256(content) for name, content in mirrored.items()} == released_files.RELEASED["files"]
    assert len(mirrored) == 3 + 3 * 5 + 3


def test_the_ids_are_those_of_the_list() -> None:
    notes = SHARED / "spec" / "released_downloads.md"
    if not notes.exists():
        pytest.skip("the list of downloads (../shared/spec) is not here")
    text = notes.read_text()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    expected = {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[2:]}
    assert released_files.RELEASED["feature_archives"] == expected
    assert f"`conch/pytorch_model.bin`): {released_files.RELEASED['conch_weights']}," in text
    assert released_files.RELEASED["commit"] in text
    assert released_files.RELEASED["repository"].removeprefix("https://") in text


def test_what_is_fetched_is_read_by_main_and_by_the_audit(run_main: RunMain, released: Path, tmp_path: Path) -> None:
    with serve(files_of(released)) as server:
        code, output, errors = run_main(["--base-url", f"{server.url}/", "--output-dir", str(tmp_path)], SCRIPT)
    assert (code, errors) == (0, "")
    assert "21 fetched, 0 there already" in output
    fetched = files_below(tmp_path)
    assert len(fetched) == 21
    assert all(content == (released / name).read_bytes() for name, content in fetched.items())
    for task, classes in (
        ("tcga_brca", ["IDC", "ILC"]),
        ("tcga_nsclc", ["LUAD", "LUSC"]),
        ("tcga_rcc", ["CCRCC", "CHRCC", "PRCC"]),
    ):
        config = Config(task=task, few_shot_num=16, LLM="gpt4o")
        here = {path: tmp_path / path.relative_to(Path(__file__).resolve().parent.parent)
                for path in (config.csv_path(), config.split_path(4), config.prompt_path())}  # fmt: skip
        table, split, descriptions = here.values()
        class_names, slides = read_slides(table)
        assert class_names == classes
        assert {slide_id for ids in read_split_ids(split).values() for slide_id in ids} <= set(slides)
        assert len(read_descriptions(descriptions, classes, 4, 3).high_texts) == 12 * len(classes)
    code, output, _ = run_main(["--audit", str(tmp_path / "splits")], "create_splits")
    assert code == 1, "the authors' splits share patients"
    assert output.count("fold 4: ") == 3


def test_the_address_is_githubs_form_for_short_commits(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(released_files, "download", lambda url, path, *_: asked.append((url, path)))
    assert run_main(["--output_dir", str(tmp_path)], SCRIPT)[0] == 0
    table = "dataset_csv/tcga_brca.csv"
    url = f"https://github.com/bryanwong17/HiVE-MIL/raw/31c8f6c/{table}"
    assert asked[0] == (url, tmp_path / table)
    assert len(asked) == 21


# ---- tables, splits and descriptions: faults -------------------------------------------------------------------------


def test_faults_that_pass_are_got_over(run_main: RunMain, made: Path, tmp_path: Path, waits: list[float]) -> None:
    good = files_of(made)

    def cut(request: Request) -> Reply:
        return part_of(good(request).body, request, cut=1)

    replies = (Reply(b"", 503), good, cut, good, Reply(b"wrong"), Reply(b"", 429, {"Retry-After": "40"}), good)
    with serve(in_turn(*replies)) as server:
        assert run_main(options(server.url, tmp_path), SCRIPT)[0] == 0
    assert files_below(tmp_path) == MADE
    assert waits == [1, 1, 40]


@pytest.mark.parametrize(
    ("reply", "message", "attempts"),
    [
        (Reply(b"", 500), "HTTP 500 Internal Server Error, 6 attempts", 6),
        (Reply(b"404: Not Found", 404), "HTTP 404 Not Found", 1),
        (Reply(b"x" * 99, cut=9), "the connection failed", 6),
        (Reply(b"other"), f"sha256 {sha256(b'other')}; expected {sha256(MADE['splits/a/a_16/splits_0.csv'])}", 2),
    ],
)
def test_faults_that_stay_are_reported(
    run_main: RunMain, made: Path, tmp_path: Path, waits: list[float], reply: Reply, message: str, attempts: int
) -> None:
    """What came before the fault stays, whole; nothing of the faulty file does; the next call fetches the rest."""
    with serve(in_turn(files_of(made), reply)) as server:
        code, _, errors = run_main(options(server.url, tmp_path), SCRIPT)
        assert len(server.requests) == 1 + attempts
    assert code == 2
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: {server.url}/splits/a/a_16/splits_0.csv: ")
    assert message in last
    assert "--base-url names another branch, commit or mirror" in last
    assert files(tmp_path) == ["dataset_csv/a.csv"]
    with serve(files_of(made)) as server:
        code, output, _ = run_main(options(server.url, tmp_path), SCRIPT)
        assert len(server.requests) == 2
    assert code == 0
    assert "2 fetched, 1 there already" in output
    assert files_below(tmp_path) == MADE


def test_no_server(run_main: RunMain, made: Path, tmp_path: Path, waits: list[float]) -> None:
    code, _, errors = run_main(options(no_server(), tmp_path), SCRIPT)
    assert code == 2
    assert "refused" in errors
    assert "with internet access run the command again" in errors
    assert files(tmp_path) == []


def test_other_files_are_kept(run_main: RunMain, made: Path, tmp_path: Path) -> None:
    own = {"dataset_csv/a.csv": b"mine", "text_prompt/a.json": b"mine too", "splits/b.csv": b"another"}
    write_files(tmp_path, own)
    with serve(files_of(made)) as server:
        code, _, errors = run_main(options(server.url, tmp_path), SCRIPT)
        assert code == 2
        assert errors.startswith("error: 2 faults")
        assert f"{tmp_path}/dataset_csv/a.csv: is not the authors' file; --overwrite replaces it" in errors
        assert f"{tmp_path}/text_prompt/a.json: is not" in errors
        assert files_below(tmp_path) == own
        assert server.requests == []
        code, output, _ = run_main(options(server.url, tmp_path, "--overwrite"), SCRIPT)
        assert code == 0
        assert "3 fetched, 0 there already" in output
        assert files_below(tmp_path) == {**MADE, "splits/b.csv": b"another"}
        assert "0 fetched, 3 there" in run_main(options(server.url, tmp_path, "--overwrite"), SCRIPT)[1]
        assert len(server.requests) == 3
