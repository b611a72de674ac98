"""Faults: how they read, how steps gather them, and which exit codes they lead to."""

from collections.abc import Sequence

import pytest

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
