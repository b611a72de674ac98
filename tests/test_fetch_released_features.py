"""fetch_released_assets.py: archives of features and weights by id, from a drive that also fails."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets import released as released_files
from tests.conftest import RunMain
from tests.support.archive_files import archive_of, write_files
from tests.support.archived_features import IDS, features, packed, visible
from tests.support.drive_server import QUOTA, as_attachment, serve_drive
from tests.support.failing_server import Reply, Request, in_turn, no_server, part_of, waits_fixture  # noqa: F401
from tests.support.run_contents import files_below
from tests.support.small_release import Disk, fetch, files, made_fixture, roomy_fixture  # noqa: F401

# ---- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("above", [None, "", "home/somebody/tcga_rcc_plip/", "other_name/"])
def test_an_archive_becomes_a_folder_of_features(
    run_main: RunMain, roomy: Path, tmp_path: Path, form: str, above: str | None
) -> None:
    archive = packed(tmp_path, "tcga_rcc", "plip", form, above)
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}) as server:
        code, output, _ = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
        assert code == 0
        assert files_below(roomy / "tcga_rcc_plip") == features("tcga_rcc", "plip")
        assert visible(roomy) == ["tcga_rcc_plip"]
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
    assert visible(roomy) == ["tcga_brca_conch", "tcga_brca_plip", "tcga_nsclc_plip"]
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
    assert files_below(roomy / "tcga_rcc_plip") == features("tcga_rcc", "plip")
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
    [part] = roomy.glob("*.part")
    assert re.fullmatch(r"tcga_rcc_plip\.archive.{8}\.part", part.name)
    there = part.read_bytes()
    assert archive.startswith(there)
    assert 600_000 > len(there) > 500_000
    with serve_drive({IDS["tcga_rcc"]["plip"]: archive}) as server:
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
        assert server.requests[-1].headers["range"] == f"bytes={len(there)}-"
    assert files_below(roomy / "tcga_rcc_plip") == features("tcga_rcc", "plip")


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
    assert visible(roomy) == []
    (roomy / "tcga_rcc_plip.archive").write_bytes(archive)
    with serve_drive({}) as server:
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
        assert server.requests == []
    assert files_below(roomy / "tcga_rcc_plip") == features("tcga_rcc", "plip")


def test_no_drive(run_main: RunMain, roomy: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    gone = no_server()
    with serve_drive({}) as server:
        server.url = gone
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
    assert code == 2
    assert "refused" in errors.splitlines()[-1]
    assert len(waits) == 5
    assert visible(roomy) == []


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
    assert visible(roomy) == ["tcga_rcc_plip.archive"]


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
    assert visible(roomy) == ["tcga_rcc_plip.archive"]


def test_features_that_are_there_are_not_touched(run_main: RunMain, roomy: Path) -> None:
    write_files(roomy, {"tcga_rcc_plip/plip_5x/mine.h5": b"mine"})
    with serve_drive({}) as server:
        code, _, errors = fetch(run_main, roomy, "--features", "tcga_rcc", "plip")
        assert server.requests == []
    assert code == 2
    assert f"{roomy / 'tcga_rcc_plip'}: is there without all of the released features" in errors
    assert files_below(roomy / "tcga_rcc_plip") == {"plip_5x/mine.h5": b"mine"}


def test_what_a_killed_run_unpacked_is_removed(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    write_files(roomy, {".tcga_rcc_plip.unpacking/tcga_rcc_plip/plip_5x/half.h5": b""})
    with serve_drive({IDS["tcga_rcc"]["plip"]: packed(tmp_path, "tcga_rcc", "plip")}):
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
    assert files_below(roomy / "tcga_rcc_plip") == features("tcga_rcc", "plip")


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
        [part] = roomy.glob("*.part")
        part.unlink()
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
    assert (roomy / "tcga_rcc_plip").is_dir()
