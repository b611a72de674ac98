"""Locks of runs: between processes, on file systems without locks, and through links."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.support.faults import expect_faults
from utils.locks import LockedError, locked

HOLD = """
import fcntl, os, sys
from pathlib import Path
from utils.locks import locked
number = int(sys.argv[2])
def refuse(*_):
    raise OSError(number, os.strerror(number))
if number:
    fcntl.flock = refuse
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
ERRORS = [0, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.mark.parametrize("number", ERRORS)
def test_a_lock_keeps_a_process_out_until_its_holder_ends_or_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """number: what the file system answers to a lock, 0 for one."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "run" / ".lock_fold_0"
    for ends_by_itself in (True, False):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), str(number)],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout and process.stdout.readline() == "held\n"
        with pytest.raises(LockedError) as caught, locked(path):
            pass
        assert (f"remove {path}.soft" in caught.value.remedy) == bool(number)
        if not ends_by_itself:
            process.kill()
        process.communicate("" if ends_by_itself else None)
        with locked(path), pytest.raises(LockedError), locked(path):
            pass


def test_a_lock_leaves_the_file_behind_a_link_as_it_is(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / ".lock_fold_0"
    target.write_text("precious")
    path.symlink_to(target)
    with expect_faults("file.not_written") as faults, locked(path):
        pass
    assert faults[0].where == str(path)
    assert target.read_text() == "precious"
