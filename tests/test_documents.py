"""What documents say of this project: files they name are there, and options they name are."""

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from utils.config import OPTIONS

DOCUMENTS = sorted((PROJECT / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_tests_that_are_named_are_there(document: Path) -> None:
    named = set(re.findall(r"`(tests/[\w/]+(?:\.py)?)`", document.read_text()))
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


def test_options_of_the_fidelity_page_exist() -> None:
    text = (PROJECT / "docs" / "fidelity.md").read_text()
    text = re.sub(r"`\w+\.py [^`]*`", "", text)  # of other scripts
    named = {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", text)}
    assert named and named <= OPTIONS.keys() | {"two_scale"}
