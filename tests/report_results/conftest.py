"""Results of made-up runs, made once, and copies of them to change."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import RunMain
from tests.support.made_results import folds_of
from tests.support.run_folders import CLASSES, write_run, write_table
from utils.sealed import write_sealed


@pytest.fixture
def report(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunMain:
    """The report without its figures, which take longer than all else."""
    monkeypatch.setattr("reports.compose.add_figures", lambda *_: None)

    def run(*arguments: object, output: str = "report") -> tuple[int, str, str]:
        options = ["--output-dir", str(tmp_path / output), "--resamples", "200"]
        return run_main([*options, *map(str, arguments)], "report_results")

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nsclc.csv: 90 slides of 60 patients, of whom every second has two. results/: three settings, one of them with two
    seeds; the folds are the same."""
    root = tmp_path_factory.mktemp("made")
    patients = [patient for index in range(60) for patient in [index] * (1 + index % 2)]
    slides = {f"S-{number:03}": patient % 3 for number, patient in enumerate(patients)}
    write_table(root / "nsclc.csv", slides, dict(zip(slides, map("case {}".format, patients), strict=True)), CLASSES)
    folds = folds_of(root / "nsclc.csv")
    for setting, skill, options in (
        ("best", 1.0, {}),
        ("middle", 0.5, {"htcl": "none"}),
        ("worst", 0.2, {"model_type": "ABMIL"}),
    ):
        for seed in (1, 2) if setting == "best" else (1,):
            ratio = float("nan") if setting == "worst" else skill / 2
            write_run(
                root / "results" / setting, root / "nsclc.csv", folds, skill, seed=seed, hit_ratio=ratio, **options
            )
    return root


@pytest.fixture
def table(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "nsclc.csv", tmp_path))


@pytest.fixture
def results(made: Path, table: Path, tmp_path: Path) -> Path:
    """A copy to change, with the table beside it."""
    folder = Path(shutil.copytree(made / "results", tmp_path / "results"))
    for file in folder.rglob("config.json"):
        record = json.loads(file.read_text())
        record["options"]["dataset_csv"] = str(table)
        write_sealed(file, record)
    return folder
