"""Real slides for the tests."""

from pathlib import Path

import pytest

from tests.conftest import SHARED


def real_slide(name: str) -> Path:
    """A real slide; the test is skipped where it is not at hand."""
    file = SHARED / "slides" / name
    if not file.exists():
        pytest.skip("the real slides (../shared/slides) are not here")
    return file
