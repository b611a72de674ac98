"""create_mil_task.py: what it writes, what it refuses, and training on it."""

import shlex
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import create_mil_task
from datasets.mil_task import DATASETS
from datasets.splits import read_split_ids
from tests.conftest import RunMain


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 bags of two classes, 1 to 5 instances of 6 features, of which the last is constant. Read only."""
    generator = np.random.default_rng(2)
    rows = []
    for bag in range(24):
        for _ in range(generator.integers(1, 6)):
            features = [*generator.normal(100 * (bag % 2), 50, 5).round(3), 7]
            rows.append([bag % 2, bag, *features])
    file = tmp_path_factory.mktemp("mil") / "made.csv"
    pd.DataFrame(rows).to_csv(file, header=False, index=False)
    return file


def read(folder: Path, bag: int, extractor: str = "mil6") -> tuple[np.ndarray, np.ndarray, dict]:
    with h5py.File(folder / f"made_{extractor}" / f"{extractor}_20x" / f"{bag}.h5") as file:
        return file["features"][()], file["coords"][()], dict(file.attrs)


def test_what_is_written(run_main: RunMain, source: Path, tmp_path: Path) -> None:
    code, output, _ = run_main(["--csv", str(source), "--output_dir", str(tmp_path), "--k", "3"], "create_mil_task")
    assert code == 0 and "24 bags of 1 to 5 instances" in output and "classes 0, 1; 3 folds" in output
    rows = np.loadtxt(source, delimiter=",")
    table = pd.read_csv(tmp_path / "made.csv", dtype=str)
    assert table["slide_id"].tolist() == [str(bag) for bag in range(24)] == table["case_id"].tolist()
    assert table["label"].tolist() == ["0", "1"] * 12
    for bag in range(24):
        expected = rows[rows[:, 1] == bag, 2:]
        features, coords, made = read(tmp_path, bag)
        assert features.dtype == np.float32 and coords.dtype == np.int64
        np.testing.assert_allclose(features, expected, rtol=1e-6)
        assert coords.tolist() == [[number, 0] for number in range(len(expected))]
        assert made["source"] == "made.csv" and not made["standardised"]
    ids = [read_split_ids(tmp_path / "splits" / f"splits_{fold}.csv") for fold in range(3)]
    assert not (tmp_path / "splits" / "splits_3.csv").exists()
    assert sorted(bag for fold in ids for bag in fold["test"]) == sorted(table["slide_id"])
    assert [[len(fold[name]) for name in ("train", "val", "test")] for fold in ids] == [[12, 4, 8]] * 3


def test_names_seed_and_standardisation(run_main: RunMain, source: Path, tmp_path: Path) -> None:
    common = ["--csv", str(source), "--k", "3", "--feature_extractor", "raw", "--standardise"]
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        code, _, _ = run_main(
            [*common, "--task", "made", "--seed", seed, "--output-dir", str(tmp_path / folder)], "create_mil_task"
        )
        assert code == 0
    contents = {
        folder: [(tmp_path / folder / "splits" / f"splits_{fold}.csv").read_bytes() for fold in range(3)]
        for folder in "abc"
    }
    assert contents["a"] == contents["b"] != contents["c"]
    features = np.concatenate([read(tmp_path / "a", bag, "raw")[0] for bag in range(24)])
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(0), [1, 1, 1, 1, 1, 0], atol=1e-6)
    assert read(tmp_path / "a", 0, "raw")[2]["standardised"]


def test_nothing_is_overwritten(run_main: RunMain, source: Path, tmp_path: Path) -> None:
    (tmp_path / "made.csv").write_text("mine")
    code, _, errors = run_main(["--csv", str(source), "--output-dir", str(tmp_path), "--k", "3"], "create_mil_task")
    assert code == 2 and "is there already" in errors
    assert [file.name for file in tmp_path.iterdir()] == ["made.csv"] and (tmp_path / "made.csv").read_text() == "mine"


def test_too_many_folds_are_refused(run_main: RunMain, source: Path, tmp_path: Path) -> None:
    code, _, errors = run_main(["--csv", str(source), "--output-dir", str(tmp_path), "--k", "13"], "create_mil_task")
    assert code == 2 and "class '0' has 12 bags; expected at least 13" in errors and "class '1'" in errors
    assert not list(tmp_path.iterdir())


def test_the_known_data_sets_are_offered() -> None:
    assert set(create_mil_task.PACKAGED) == set(DATASETS)


def test_training_on_it(run_main: RunMain, source: Path, tmp_path: Path) -> None:
    """A task whose classes lie far apart is learned."""
    code, output, _ = run_main(
        ["--csv", str(source), "--output-dir", str(tmp_path / "a task"), "--k", "3", "--standardise"], "create_mil_task"
    )
    assert code == 0
    command = shlex.split(output[output.index("main.py") :])[1:]
    code, _, errors = run_main(
        [*command, "--results_dir", str(tmp_path / "results"), "--max_epochs", "3", "--lr", "1e-3", "--device", "cpu"]
    )
    assert code == 0, errors
    results = pd.read_csv(next((tmp_path / "results").rglob("results.csv")), index_col="metric")
    assert results.loc["mean", "test_auc"] > 0.9
