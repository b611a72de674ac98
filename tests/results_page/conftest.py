"""A made-up run and its page, made once."""

from pathlib import Path

import pytest

from tests.support.made_page import ODD_CLASSES, ODD_SLIDE, write_made_up_run
from training.run_folder import RunFolder


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three of four folds are finished. Read only."""
    path = tmp_path_factory.mktemp("results") / "made up & odd"
    return write_made_up_run(path, ODD_CLASSES, 4, [0, 1, 3], lr=0.01)


@pytest.fixture(scope="module")
def page_of_made_up(made_up: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page, beside a folder of explanations of two slides."""
    import results_page

    folder = tmp_path_factory.mktemp("page")
    explanations = folder / "why: so?"
    explanations.mkdir()
    for slide_id in (ODD_SLIDE, "S-5"):
        (explanations / f"{slide_id}.html").write_text("<title>explained</title>")
    (explanations / "S-55.html").touch()
    page = folder / "results.html"
    results_page.main([str(made_up.path), "--output", str(page), "--explanations", str(explanations)])
    return page


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a page's time: tests that do not look at them go without."""
    monkeypatch.setattr("reports.run_page.data_uri", lambda figure: "data:,")
