"""interpretability_analysis.ipynb runs from top to bottom, on a tiny trained task, with and without the slide."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PROJECT, SimulatedTask

NOTEBOOK = PROJECT / "interpretability_analysis.ipynb"


@pytest.fixture(scope="module")
def executed(simulated: SimulatedTask, whole: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RUN": str(simulated.run_folder(whole)), "FOLD": "1", "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(PROJECT)}})
        return client.execute()


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """Everything of a MIME type that the notebook shows, or its printed text."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if kind == "stdout":
        return [output["text"] for output in found if output.get("name") == kind]
    return [output["data"][kind] for output in found if kind in output.get("data", {})]


def test_it_runs_and_shows_everything(executed: nbformat.NotebookNode) -> None:
    printed = "".join(outputs(executed, "stdout"))
    for words in ("predicted SIMULATED_", "5x anchor", "20x anchor", "patches keep a text", "along the curve"):
        assert words in printed
    assert len(outputs(executed, "image/png")) == 6  # similarity twice, texts, contributions, distributions, removal
    tables = "".join(outputs(executed, "text/html"))
    for words in (
        "probability",
        "positive",
        "negative",
        "5x patch of SIMULATED_",
        "20x anchor patch",
        "negative patches",
        "layer 1",
        "kept",
        "Simulated detail",
    ):
        assert words in tables


def test_parameters_are_in_the_first_code_cell_and_nothing_is_left_in_the_file() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(name in code[0].source for name in ("RUN", "FOLD", "SLIDE", "WSI_DIR"))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    run = next(line for line in code[0].source.splitlines() if line.startswith("RUN ="))
    made = SimulatedTask(Path("demo")).run_folder(Path("demo/results"))
    assert str(made) in run  # what the Makefile's demo writes
