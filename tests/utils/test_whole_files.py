"""Files on full disks, in odd places, and beside what dead writers left."""

import errno
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import utils.whole_files
from models.tiny_clip import save_tiny_clip
from reports.plots import save_png
from tests.conftest import PROJECT
from tests.support.faults import check_fault, expect_faults
from training.tensorboard_log import log_epoch
from utils.files import write_json, write_tensors, write_text
from utils.h5 import write_h5
from utils.whole_files import TEMPORARY, append_line, require_regular, whole_file, write_bytes

MANY_VALUES = dict.fromkeys(map(str, range(999)), 1.0)
LARGE = np.random.default_rng(0).random((64, 64))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- a full disk -----------------------------------------------------------------------------------------------------

WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text": ("x.csv", lambda folder: write_text(folder / "x.csv", "row\n" * 5000)),
    "json": ("x.json", lambda folder: write_json(folder / "x.json", LARGE.tolist())),
    "tensors": ("x.pt", lambda folder: write_tensors(folder / "x.pt", {"w": torch.from_numpy(LARGE)})),
    "hdf5": ("x.h5", lambda folder: write_h5(folder / "x.h5", {"features": LARGE}, {"seed": 1})),
    "figure": ("x.png", lambda folder: save_png(Figure(), folder / "x.png")),
    "weights": ("model.safetensors", lambda folder: save_tiny_clip(folder, 16)),
    "events": (
        "events.out.tfevents.000003.epoch", lambda folder: log_epoch(folder, 3, MANY_VALUES),
    ),
}  # fmt: skip


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KB; Python ignores the signal of that, as it is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_file_that_finds_no_room_is_named_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    with expect_faults("file.not_written") as faults:
        write(tmp_path)
    check_fault(faults[0], "file.not_written", tmp_path / name, os.strerror(errno.EFBIG), "run the command again")
    assert set(names(tmp_path)) <= {"config.json"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_system_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> None:
    name, write = WRITERS[kind]
    (tmp_path / name).write_text("old")
    real = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if name not in path.name:
            return real(path, content)
        real(path, content[: len(content) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with expect_faults("file.not_written") as faults:
        write(tmp_path)
    check_fault(faults[0], "file.not_written", tmp_path / name, os.strerror(number))
    assert (tmp_path / name).read_text() == "old"
    assert [left for left in names(tmp_path) if left.startswith(".")] == []
    monkeypatch.undo()
    write(tmp_path)
    assert (tmp_path / name).read_bytes() != b"old"


@pytest.mark.parametrize("step", ["mkdir", "open", "replace"])
def test_each_step_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A disk without inodes refuses the folder or the file, one without space may refuse the new name."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, step, refuse)
    with expect_faults("file.not_written") as faults:
        write_text(tmp_path / "x.csv", "new")
    check_fault(faults[0], "file.not_written", tmp_path / "x.csv", "df -i")
    monkeypatch.undo()
    assert names(tmp_path) == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with expect_faults("file.not_written") as faults:
        write_text(tmp_path / "a" / "b" / "x.csv", "new")
    check_fault(faults[0], "file.not_written", tmp_path / "a" / "b" / "x.csv", f"{tmp_path / 'a'}")


@pytest.mark.usefixtures("small_files")
def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    append_line(file, "a" * 3000)
    with expect_faults("file.not_written"):
        append_line(file, "b" * 3000)
    append_line(file, "c")
    assert file.read_text() == "a" * 3000 + "\nc\n"


# ---- odd places ------------------------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "output.folder"),
    "pipe": (os.mkfifo, "output.special"),
    "socket": (make_socket, "output.special"),
    "device": (lambda path: path.symlink_to("/dev/null"), "output.special"),
    "link_to_a_folder": (lambda path: path.symlink_to(path.parent), "output.folder"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_not_replaced(tmp_path: Path, place: str) -> None:
    make, code = PLACES[place]
    path = tmp_path / "x"
    make(path)
    before = path.lstat()
    for write in (write_text, append_line):
        with expect_faults(code) as faults:
            write(path, "new")
        assert faults[0].where == str(path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == ["x"]


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    write_text(link, "new")
    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("precious", "new", False)
    require_regular(tmp_path / "not there")


@pytest.mark.parametrize("letter", ["a", "ä", "字"])
def test_the_longest_names_are_written(tmp_path: Path, letter: str) -> None:
    name = letter * (255 // len(letter.encode()))
    write_text(tmp_path / name, "new")
    assert names(tmp_path) == [name]


# ---- what dead writers left ------------------------------------------------------------------------------------------

HALF = """
import os, sys
from pathlib import Path
from utils.whole_files import whole_file
with whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def start_writer(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HALF, str(file)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    return process


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = start_writer(tmp_path / "dead.h5"), start_writer(tmp_path / "alive.h5")
    dead.kill()
    dead.communicate()
    assert len(names(tmp_path)) == 2
    monkeypatch.setattr(utils.whole_files, "_swept", set())
    write_text(tmp_path / "x.csv", "new")
    left = names(tmp_path)
    assert len(left) == 2 and left[0].startswith(".alive.h5.") and left[1] == "x.csv"
    alive.communicate("")
    assert names(tmp_path) == ["alive.h5", "x.csv"]
    assert (tmp_path / "alive.h5").read_text() == "half"


def test_other_hidden_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.whole_files, "_swept", set())
    mine = [".x.csv.partial.json", ".lock_fold_0", ".x.0123456.writing", "x.csv.01234567.writing", ".env"]
    for name in mine:
        (tmp_path / name).touch()
    (tmp_path / ".x.csv.01234567.writing").touch()
    write_text(tmp_path / "y.csv", "new")
    assert names(tmp_path) == sorted([*mine, "y.csv"])


@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_without_locks_only_old_files_are_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float, stays: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(utils.whole_files.fcntl, "flock", refuse)
    monkeypatch.setattr(utils.whole_files, "_swept", set())
    left = tmp_path / ".x.csv.01234567.writing"
    left.touch()
    then = time.time() - hours * 3600
    os.utime(left, (then, then))
    write_bytes(tmp_path / "y.csv", b"new")
    assert left.exists() == stays
    assert (tmp_path / "y.csv").read_bytes() == b"new"


def test_a_temporary_file_that_was_taken_for_left_over_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = utils.whole_files._lock, []

    def late(handle: int, wait: bool) -> bool:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        return real(handle, wait)

    monkeypatch.setattr(utils.whole_files, "_lock", late)
    with whole_file(tmp_path / "x") as temporary:
        assert temporary.exists() and temporary not in taken and TEMPORARY.fullmatch(temporary.name)
        temporary.write_text("new")
    assert names(tmp_path) == ["x"]
