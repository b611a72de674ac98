"""What .ci/audit makes of pip-audit's answers: vulnerabilities fail, no network does not."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import PROJECT

CASES = {
    "none": ("No known vulnerabilities found\nx   Dependency not found on PyPI and could not be audited: x", 0, 0),
    "some": ("Found 2 known vulnerabilities in 1 package\nName ID", 1, 1),
    "one": ("Found 1 known vulnerability in 1 package\nName ID", 1, 1),
    "no_network": ("Traceback\nrequests.exceptions.ProxyError: HTTPSConnectionPool", 1, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answers_of_pip_audit(case: str, tmp_path: Path) -> None:
    said, code, expected = CASES[case]
    (tmp_path / "said").write_text(said)
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said\nexit {code}\n")
    program.chmod(0o755)
    ended = subprocess.run([PROJECT / ".ci" / "audit", program], capture_output=True, text=True, check=False)
    assert ended.returncode == expected
    assert ("nothing was audited" in ended.stdout) == (case == "no_network")
    assert ("do not know 1 of" in ended.stdout) == (case == "none")


def test_a_program_that_is_not_there_does_not_fail(tmp_path: Path) -> None:
    ended = subprocess.run([PROJECT / ".ci" / "audit", tmp_path / "none"], capture_output=True, text=True, check=False)
    assert (ended.returncode, "nothing was audited" in ended.stdout) == (0, True)
