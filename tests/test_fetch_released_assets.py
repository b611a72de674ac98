"""fetch_released_assets.py: the authors' files by checksum and their archives by id, from servers that also fail."""

import hashlib
import io
import json
import re
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import gdown
import numpy as np
import pytest
import torch

from datasets import released as released_files
from datasets.descriptions import read_descriptions
from datasets.splits import read_split_ids
from datasets.task import read_slides
from tests.conftest import SHARED, RunMain
from tests.support.archive_files import archive_of, write_files
from tests.support.drive_server import QUOTA, as_attachment, serve_drive
from tests.support.failing_server import Reply, Request, files_of, in_turn, no_server, part_of, serve, waits_fixture  # noqa: F401
from tests.support.run_contents import files_below
from utils.config import Config

SCRIPT = "fetch_released_assets"
MADE = {
    "dataset_csv/a.csv": b"case_id,slide_id\n",
    "splits/a/a_16/splits_0.csv": b",train\n",
    "text_prompt/a.json": b"{}",
}


def files(folder: Path) -> list[str]:
    return sorted(files_below(folder))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small release in place of the authors'."""
    names = {name: sha256(content) for name, content in MADE.items()}
    monkeypatch.setitem(released_files.RELEASED, "files", names)
    return write_files(tmp_path_factory.mktemp("made"), MADE)


def options(url: str, folder: Path, *more: str) -> list[str]:
    return ["--base-url", url, "--output-dir", str(folder), *more]


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


# ---- features --------------------------------------------------------------------------------------------------------

IDS = released_files.RELEASED["feature_archives"]
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch, made: Path, tmp_path: Path) -> Path:
    """A data root with room for everything; the small files are there already. No cookies are kept anywhere."""
    monkeypatch.setattr(sys.modules[gdown.download.__module__], "DEFAULT_COOKIES_FILE", str(tmp_path / "cookies"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**13, 0, 10**13))
    write_files(tmp_path / "project", MADE)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def fetch(run_main: RunMain, data: Path, *more: str) -> tuple[int, str, str]:
    arguments = options("http://unused", data.parent / "project", "--data-root-dir", str(data), *more)
    return run_main(arguments, SCRIPT)


def features(task: str, extractor: str, above: str = "") -> dict[str, bytes]:
    names = (f"{extractor}_5x", f"hierarchical_{extractor}_5x_20x")
    generator = np.random.default_rng(len(extractor))
    return {f"{above}{name}/{task}-{number}.h5": generator.bytes(400_000) for name in names for number in range(3)}


def packed(tmp_path: Path, task: str, extractor: str, form: str = "zip", above: str | None = None) -> bytes:
    above = f"{task}_{extractor}/" if above is None else above
    folder = write_files(tmp_path / "packed", features(task, extractor, above))
    archive = archive_of(folder, form, tmp_path / "archive").read_bytes()
    shutil.rmtree(folder)
    return archive


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("above", [None, "", "home/somebody/tcga_rcc_plip/", "other_name/"])
def test_an_archive_becomes_a_folder_of_features(
    run_main: RunMain, roomy: Path, tmp_path: Path, form: str, above: str | None
) -> None:
    archive = packed(tmp_path, "tcga_rcc", "plip", form, above)
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}) as server:
        code, output, _ = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
        assert code == 0
        assert files_below(roomy) == features("tcga_rcc", "plip", "tcga_rcc_plip/")
        assert sorted(path.name for path in roomy.iterdir()) == ["tcga_rcc_plip"]
        assert f"unpacked: {roomy / 'tcga_rcc_plip'}" in output
        assert not (tmp_path / "cookies").exists()
        asked = len(server.requests)
        code, output, _ = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
        assert code == 0
        assert f"there already: {roomy / 'tcga_rcc_plip'}" in output
        assert len(server.requests) == asked


def test_the_archive_is_kept_on_request(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    archive = packed(tmp_path, "tcga_rcc", "plip")
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}):
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip", "--keep_archive")[0] == 0
    assert (roomy / "tcga_rcc_plip.archive").read_bytes() == archive


def test_several_archives_and_one_that_fails(
    run_main: RunMain, roomy: Path, tmp_path: Path, waits: list[float]
) -> None:
    """Each pair once; a fault does not keep the others back."""
    archives = {IDS["tcga_brca"][fe]: packed(tmp_path, "tcga_brca", fe) for fe in ("plip", "conch")}
    archives[IDS["tcga_nsclc"]["plip"]] = packed(tmp_path, "tcga_nsclc", "plip")
    with serve_drive(archives):
        more = ["--features", "tcga_brca", "all", "--features", "all", "plip"]
        code, output, errors = fetch(run_main, roomy, *more)
    assert code == 2
    assert sorted(re.findall("fetching .*/(.*)", output)) == [
        *("tcga_brca_conch", "tcga_brca_plip", "tcga_brca_quiltnet", "tcga_nsclc_plip", "tcga_rcc_plip")
    ]
    assert sorted(path.name for path in roomy.iterdir()) == ["tcga_brca_conch", "tcga_brca_plip", "tcga_nsclc_plip"]
    assert "error: 2 faults" in errors
    for task, extractor in (("tcga_brca", "quiltnet"), ("tcga_rcc", "plip")):
        assert f"https://drive.google.com/uc?id={IDS[task][extractor]}: " in errors.split("error: 2 faults")[1]


def test_a_cut_download_goes_on_where_it_stopped(
    run_main: RunMain, roomy: Path, tmp_path: Path, waits: list[float]
) -> None:
    archive = packed(tmp_path, "tcga_rcc", "plip", "tar")

    def cut(request: Request) -> Reply:
        return as_attachment(part_of(archive, request, cut=700_000))

    def whole(request: Request) -> Reply:
        return as_attachment(part_of(archive, request))

    # a first request tells the size, the next one asks for the rest
    with serve_drive({IDS["tcga_rcc"]["plip"]: in_turn(cut, whole, cut, whole, cut, whole, whole)}) as server:
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
        starts = [int(asked[6:-1]) for request in server.requests if (asked := request.headers.get("range"))]
    assert len(starts) == 3
    assert 0 < starts[0] < starts[1] < starts[2]
    assert files_below(roomy) == features("tcga_rcc", "plip", "tcga_rcc_plip/")
    assert waits == [1, 2, 4]


def test_the_next_call_goes_on_too(run_main: RunMain, roomy: Path, tmp_path: Path, waits: list[float]) -> None:
    archive = packed(tmp_path, "tcga_rcc", "plip", "tar")

    def cut(request: Request) -> Reply:
        return as_attachment(part_of(archive, request, cut=700_000))

    with serve_drive({IDS["tcga_rcc"]["plip"]: in_turn(cut, Reply(QUOTA, headers={"Content-Type": "text/html"}))}):
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
    assert code == 2
    assert len(waits) == 5
    assert "Download is incomplete" in errors
    assert "run the command again, it goes on where this one stopped" in errors
    [part] = roomy.iterdir()
    assert re.fullmatch(r"tcga_rcc_plip\.archive.{8}\.part", part.name)
    there = part.read_bytes()
    assert archive.startswith(there)
    assert 600_000 > len(there) > 500_000
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}) as server:
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
        assert server.requests[-1].headers["range"] == f"bytes={len(there)}-"
    assert files_below(roomy) == features("tcga_rcc", "plip", "tcga_rcc_plip/")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(QUOTA, headers={"Content-Type": "text/html"}), "Too many users have viewed or downloaded this file"),
        (Reply(b"<html>", 503, {"Content-Type": "text/html"}), "Failed to retrieve file url"),
        (as_attachment(Reply(b"", 500)), "HTTP 500 Internal Server Error"),
    ],
)
def test_a_drive_that_refuses(
    run_main: RunMain, roomy: Path, tmp_path: Path, waits: list[float], reply: Reply, message: str
) -> None:
    archive = packed(tmp_path, "tcga_rcc", "plip")
    with serve_drive({IDS["tcga_rcc"]["plip"]: lambda request: reply}):
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
    assert code == 2
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: https://drive.google.com/uc?id={IDS['tcga_rcc']['plip']}: ")
    assert message in last
    assert f"download the file in a browser, put it at {roomy / 'tcga_rcc_plip.archive'}" in last
    assert len(waits) == 5
    assert files(roomy) == []
    (roomy / "tcga_rcc_plip.archive").write_bytes(archive)
    with serve_drive({}) as server:
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
        assert server.requests == []
    assert files_below(roomy) == features("tcga_rcc", "plip", "tcga_rcc_plip/")


def test_no_drive(run_main: RunMain, roomy: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    gone = no_server()
    with serve_drive({}) as server:
        server.url = gone
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
    assert code == 2
    assert "refused" in errors.splitlines()[-1]
    assert len(waits) == 5
    assert files(roomy) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda archive: archive[:2_000_000], "neither a zip nor a tar archive, or cut off"),
        (lambda archive: archive[:200_000] + b"?" + archive[200_001:], "damaged (Bad CRC-32"),
        (lambda archive: b"<html>sign in</html>", "neither a zip nor a tar archive"),
    ],
)
def test_a_spoilt_archive_leaves_no_features(
    run_main: RunMain, roomy: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    archive = spoil(packed(tmp_path, "tcga_rcc", "plip"))
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}):
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
    assert code == 2
    assert f"{roomy / 'tcga_rcc_plip.archive'}: {message}" in errors
    assert files(roomy) == ["tcga_rcc_plip.archive"]
    assert len(list(roomy.iterdir())) == 1


@pytest.mark.parametrize(
    "inside",
    [
        features("tcga_rcc", "conch", "x/"),
        {**features("tcga_rcc", "plip", "a/"), **features("tcga_rcc", "plip", "b/")},
        {"plip_5x/a.h5": b""},
        {"a.h5": b""},
    ],
)
def test_an_archive_of_something_else(run_main: RunMain, roomy: Path, tmp_path: Path, inside: dict[str, bytes]) -> None:
    archive = archive_of(write_files(tmp_path / "in", inside), "zip", tmp_path / "archive").read_bytes()
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}):
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
    assert code == 2
    found = sorted({name.split("/")[0] for name in inside if "/" in name})
    assert f"holds the folders {found[0] if found else 'none'}" in errors
    assert "expected one that holds plip_5x and hierarchical_plip_5x_20x" in errors
    assert files(roomy) == ["tcga_rcc_plip.archive"]


def test_features_that_are_there_are_not_touched(run_main: RunMain, roomy: Path) -> None:
    write_files(roomy, {"tcga_rcc_plip/plip_5x/mine.h5": b"mine"})
    with serve_drive({}) as server:
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
        assert server.requests == []
    assert code == 2
    assert f"{roomy / 'tcga_rcc_plip'}: is there without all of the released features" in errors
    assert files_below(roomy) == {"tcga_rcc_plip/plip_5x/mine.h5": b"mine"}


def test_what_a_killed_run_unpacked_is_removed(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    write_files(roomy, {".tcga_rcc_plip.unpacking/tcga_rcc_plip/plip_5x/half.h5": b""})
    with serve_drive({IDS["tcga_rcc"]["plip"]: packed(tmp_path, "tcga_rcc", "plip")}):
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
    assert files_below(roomy) == features("tcga_rcc", "plip", "tcga_rcc_plip/")


# ---- room on the disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "there", "needed"),
    [
        (["tcga_rcc", "plip"], 0, 40),
        (["tcga_rcc", "plip"], 15, 25),
        (["tcga_rcc", "all"], 0, 80),
        (["all", "all"], 0, 200),
        (["all", "all", "--keep-archive"], 0, 360),
    ],
)
def test_a_disk_that_is_surely_too_small_is_refused_at_once(
    run_main: RunMain, roomy: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], there: int, needed: int
) -> None:
    """needed: GB, with archives of 20 GB unpacked to 20 GB and each removed before the next."""
    if there:
        with (roomy / "tcga_rcc_plip.archive12345678.part").open("wb") as part:
            part.truncate(there * 10**9)
    free = needed * 10**9 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**13, 0, free))
    with serve_drive({}) as server:
        code, _, errors = fetch(run_main, roomy if there else roomy / "not" / "yet", "--features", *more)
        assert server.requests == []
    assert code == 2
    assert f"need {needed}.0 GB more, {needed}.0 GB are free" in errors


def test_the_announced_size_is_what_counts(
    run_main: RunMain, roomy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little room by a single byte for the archive that the server announces, told at the first 512 KiB of it."""
    archive = packed(tmp_path, "tcga_rcc", "plip", "tar")
    monkeypatch.setattr(released_files, "SMALLEST_ARCHIVE", 0)
    monkeypatch.setattr(released_files, "GIGABYTE", 1)
    room = [2 * len(archive) - 512 * 1024 - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**13, 0, room[0]))
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}):
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
        assert code == 2
        assert f"need {2 * len(archive) - 512 * 1024}.0 GB more, {room[0]}.0 GB are free" in errors
        assert not (roomy / "tcga_rcc_plip").exists()
        room[0] += 1
        [part] = roomy.iterdir()
        part.unlink()
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
    assert (roomy / "tcga_rcc_plip").is_dir()


# ---- CONCH's weights, and the options --------------------------------------------------------------------------------


def test_conch_weights(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    state = {"logit_scale": torch.tensor(4.0), "text.ln_final.weight": torch.arange(5.0)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    arguments = options("http://unused", tmp_path / "project", "--conch-weights")
    with serve_drive({released_files.RELEASED["conch_weights"]: buffer.getvalue()}) as server:
        code, output, _ = run_main(arguments, SCRIPT)
        file = tmp_path / "project" / "conch" / "pytorch_model.bin"
        assert code == 0
        assert f"fetched: {file}" in output
        assert torch.equal(torch.load(file, weights_only=True)["text.ln_final.weight"], torch.arange(5.0))
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        asked = len(server.requests)
        code, output, _ = run_main(arguments, SCRIPT)
        assert code == 0
        assert f"there already: {file}" in output
        assert len(server.requests) == asked


def test_weights_that_are_none_leave_nothing(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    with serve_drive({released_files.RELEASED["conch_weights"]: b"not tensors"}):
        code, _, errors = run_main(options("http://unused", tmp_path / "project", "--conch-weights"), SCRIPT)
    assert code == 2
    assert "not readable as tensors" in errors
    assert files(tmp_path / "project" / "conch") == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "tcga_rcc", "plip"], "--features needs --data-root-dir"),
        (["--data-root-dir", "x"], "--data-root-dir and --keep-archive are for --features"),
        (["--keep-archive"], "--data-root-dir and --keep-archive are for --features"),
        (["--features", "tcga_rcc"], "expected 2 arguments"),
    ],
)
def test_options_that_do_not_fit(run_main: RunMain, more: list[str], message: str) -> None:
    code, _, errors = run_main(more, SCRIPT)
    assert code == 2
    assert message in errors


def test_unknown_features_are_all_named(run_main: RunMain, roomy: Path) -> None:
    code, _, errors = fetch(run_main, roomy, "--features", "camelyon16", "uni", "--features", "all", "gigapath")
    assert code == 2
    assert errors.startswith("error: 3 faults")
    assert "--features camelyon16 uni: unknown 'camelyon16', expected tcga_brca, tcga_nsclc, tcga_rcc or all" in errors
    assert "unknown 'uni', expected plip, quiltnet, conch or all" in errors
    assert "--features all gigapath: unknown 'gigapath'" in errors


def test_the_list_of_files_is_well_formed() -> None:
    """Also where ../shared is not at hand."""
    text = Path(released_files.__file__).with_name("released_assets.json").read_text()
    listed = json.loads(text)["files"]
    assert len(set(listed.values())) == len(listed)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in listed.values())
    assert {name.split("/")[0] for name in listed} == {"dataset_csv", "splits", "text_prompt"}
