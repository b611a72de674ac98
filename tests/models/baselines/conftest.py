"""Where the golden cases of the baselines lie."""

from pathlib import Path

import pytest

from tests.conftest import SHARED


@pytest.fixture(scope="session")
def golden_baselines(request: pytest.FixtureRequest) -> Path:
    """A folder with one golden case a model; the test is skipped where there is none."""
    folder = Path(request.config.getoption("--golden-baselines") or SHARED / "golden" / "baselines")
    if not folder.is_dir():
        pytest.skip("the golden cases of the baselines (../shared/golden/baselines) are not here")
    return folder
