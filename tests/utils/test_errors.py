"""Faults: how they read, how steps gather them, and which exit codes they lead to."""

import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from utils.errors import MOST_SHOWN, Fault, Faults, UserError, run_script

MISSING = Fault("table.missing", "a.csv", "file not found", "a table", "make it: python make.py")
NARROW = Fault("features.width", "b.h5", "8 wide")


def refuse(*faults: Fault) -> int:
    raise UserError(faults)


def test_a_fault_reads_as_place_finding_expectation_and_mend() -> None:
    assert str(MISSING) == "a.csv: file not found; expected a table; make it: python make.py"
    assert str(NARROW) == "b.h5: 8 wide"
    assert NARROW.to_dict() == {
        "code": "features.width", "where": "b.h5", "found": "8 wide", "expected": "", "mend": "",
    }  # fmt: skip


def test_one_fault_is_a_line_and_several_are_counted() -> None:
    assert str(UserError(NARROW)) == "error: b.h5: 8 wide"
    assert str(UserError([NARROW, MISSING])).splitlines() == ["error: 2 faults", f"  - {NARROW}", f"  - {MISSING}"]
    lines = str(UserError([NARROW] * (MOST_SHOWN + 3))).splitlines()
    assert (len(lines), lines[-1]) == (MOST_SHOWN + 2, "  ... and 3 more")


def test_faults_of_several_steps_are_raised_together() -> None:
    faults = Faults()
    assert faults.check("sum", lambda: 3).value == 3
    assert not faults.check("table", refuse, MISSING)
    faults.attempt(refuse, NARROW)
    assert (faults.passed, [fault["code"] for fault in faults.to_dict()["faults"]]) == (
        ["sum"], ["table.missing", "features.width"],
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        faults.raise_any()
    assert caught.value.faults == [MISSING, NARROW]


def test_a_step_that_needs_a_failed_one_fails_without_a_fault_of_its_own() -> None:
    faults = Faults()
    table = faults.attempt(refuse, MISSING)
    rows = faults.check("rows", lambda: table.value + 1)
    assert not rows and faults.passed == [] and faults.found == [MISSING]
    with pytest.raises(UserError) as caught:
        _ = rows.value
    assert caught.value.faults == []


@pytest.mark.parametrize("value", [0, None, "", []])
def test_a_step_succeeds_whatever_it_gives(value: object) -> None:
    attempt = Faults().attempt(lambda: value)
    assert attempt and attempt.value == value


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError(NARROW), 2, "error: b.h5: 8 wide\n"),
        (PermissionError(13, "not allowed", "x"), 2, "error: [Errno 13] not allowed: 'x'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (None, 0, ""),
    ],
)
def test_exit_codes(raised: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def script(_: Sequence[str] | None) -> None:
        if raised:
            raise raised

    assert run_script(script) == code
    assert capsys.readouterr().err == said


# ---- the unforeseen --------------------------------------------------------------------------------------------------


def stumble(_: Sequence[str] | None) -> None:
    raise ZeroDivisionError("of two\nlines" + "x" * 5000)


def kept_traceback(err: str) -> Path:
    """The file that the one line on standard error names."""
    assert err.count("\n") == 1 and len(err) < 1000
    told = re.search(r"the traceback is in (\S+);", err)
    assert told, err
    return Path(told[1])


def test_the_unforeseen_is_a_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_script(stumble) == 3
    out, err = capsys.readouterr()
    assert out == "" and "ZeroDivisionError: of two lines" in err
    kept = kept_traceback(err)
    assert kept.parent == tmp_path and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "in stumble\n" in kept.read_text() and "Traceback" in kept.read_text()


def test_the_traceback_goes_home_where_temporary_files_cannot_be_written_and_never_into_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    monkeypatch.chdir(data)
    monkeypatch.setenv("HOME", str(home))
    for folder in (data, tmp_path / "gone"):  # Python's last choice is the current folder
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert run_script(stumble) == 3
        assert kept_traceback(capsys.readouterr().err).parent == home
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    assert run_script(stumble) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "test_errors.py, line" in err
    assert list(data.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_standard_output_is_a_line() -> None:
    code = "import sys; from utils.errors import run_script; sys.exit(run_script(lambda argv: print('x' * 10)))"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("error: ")


ENTRIES = sorted(
    file
    for file in [*PROJECT.glob("*.py"), *(init.parent for init in PROJECT.glob("*/__init__.py"))]
    for file in ([file] if file.is_file() else sorted(file.rglob("*.py")))
    if "tests" not in file.relative_to(PROJECT).parts
    and re.search(r'^if __name__ == "__main__":', file.read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest.mark.parametrize("file", ENTRIES, ids=[str(file.relative_to(PROJECT)) for file in ENTRIES])
def test_every_entry_goes_through_run_script(file: Path) -> None:
    ending = file.read_text(encoding="utf-8").partition('if __name__ == "__main__":\n')[2]
    assert ending == "    sys.exit(run_script(main))\n"


def test_the_entries_are_found() -> None:
    names = {file.name for file in ENTRIES}
    assert {"main.py", "predict.py", "extraction.py", "report_results.py"} <= names
