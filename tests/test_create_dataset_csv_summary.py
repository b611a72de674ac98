"""create_dataset_csv.py --summary: slides and patches by class, against the features themselves."""

from pathlib import Path

import h5py
import pandas as pd
import pytest

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.slide_tables import csv_rows

SCRIPT = "create_dataset_csv"


@pytest.fixture
def task(simulated: SimulatedTask, tmp_path: Path) -> Path:
    """Links to a simulated task, whose files may be taken away."""
    source = simulated.root / "features" / "simulated_tinyclip"
    for file in source.rglob("*.h5"):
        link = tmp_path / "features" / "simulated_tinyclip" / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    (tmp_path / "simulated.csv").write_bytes((simulated.root / "simulated.csv").read_bytes())
    return tmp_path


def options(folder: Path, *more: str) -> list[str]:
    return [
        *("--summary", "--task", "simulated", "--feature_extractor", "tinyclip"),
        *("--data_root_dir", str(folder / "features"), "--dataset_csv", str(folder / "simulated.csv"), *more),
    ]


def counted(folder: Path, run_main: RunMain) -> pd.DataFrame:
    output = folder / "counts.csv"
    code, said, errors = run_main(options(folder, "--output", str(output), "--overwrite"), SCRIPT)
    assert (code, errors) == (0, "")
    table = pd.read_csv(output, index_col="class")
    for name, numbers in table.iterrows():
        assert [str(name), *(f"{number:,}" for number in numbers)] in [line.split() for line in said.splitlines()]
    return table


def expected(folder: Path) -> dict[str, list[int]]:
    """{class: slides, 5x, 20x}, by reading all features."""
    found: dict[str, list[int]] = {}
    for row in csv_rows(folder / "simulated.csv"):
        counts = found.setdefault(row["label"], [0, 0, 0])
        file = folder / "features" / "simulated_tinyclip" / "hierarchical_tinyclip_5x_20x" / f"{row['slide_id']}.h5"
        with h5py.File(file) as opened:
            features = opened["features"][()]
        for place, number in enumerate((1, len(features), int((features != 0).any(-1).sum()))):
            counts[place] += number
    return found


def test_counts_of_each_folder_are_those_of_the_features(run_main: RunMain, task: Path) -> None:
    wanted = expected(task)
    total = [sum(column) for column in zip(*wanted.values(), strict=True)]
    root = task / "features" / "simulated_tinyclip"
    whole = counted(task, run_main)
    assert list(whole.columns) == ["slides", "without features", "patches 5x", "patches 20x"]
    shown = whole.drop(columns="without features")
    assert {str(name): list(row) for name, row in shown.iterrows()} == {**wanted, "all": total}
    if (root / "tinyclip_20x").is_dir():
        (root / "tinyclip_20x").rename(task / "away")
        pd.testing.assert_frame_equal(counted(task, run_main), whole)
    for file in (root / "hierarchical_tinyclip_5x_20x").iterdir():
        with h5py.File(file) as opened:
            arrays = {name: opened[name][()] for name in ("features", "coords")}
        file.unlink()
        with h5py.File(file, "w") as written:
            for name, values in arrays.items():
                written[name] = values
    pd.testing.assert_frame_equal(counted(task, run_main), whole)


def test_slides_without_features_are_told(run_main: RunMain, task: Path) -> None:
    before = counted(task, run_main)
    row = csv_rows(task / "simulated.csv")[0]
    for file in (task / "features").rglob(f"{row['slide_id']}.h5"):
        file.unlink()
    after = counted(task, run_main)
    assert after.loc[row["label"], "without features"] == after.loc["all", "without features"] == 1
    assert list(after["slides"]) == list(before["slides"])
    assert after.loc[row["label"], "patches 20x"] < before.loc[row["label"], "patches 20x"]
    assert row["slide_id"] in run_main(options(task), SCRIPT)[1].splitlines()[0]


def test_what_cannot_be_counted_is_a_fault(faults_of: FaultsOf, task: Path) -> None:
    root = task / "features" / "simulated_tinyclip"
    for name in [row["slide_id"] for row in csv_rows(task / "simulated.csv")][:2]:
        (root / "tinyclip_5x" / f"{name}.h5").unlink()
        (root / "tinyclip_5x" / f"{name}.h5").write_bytes(b"cut off")
    assert [fault.code for fault in faults_of(options(task), SCRIPT)] == ["h5.unreadable"] * 2
    same = options(task, "--output", str(task / "simulated.csv"), "--overwrite")
    assert [fault.code for fault in faults_of(same, SCRIPT)] == ["output.is_input"]
    (task / "simulated.csv").unlink()
    assert [fault.code for fault in faults_of(options(task), SCRIPT)] == ["table.missing"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--summary --task t", "--summary needs --data_root_dir"),
        ("--summary --task t --data_root_dir d --wsi-dir w", "--wsi-dir: only with --gdc or --slides-dir or --ref"),
        ("--summary --task t --data_root_dir d --gdc", "not allowed with"),
        ("--summary --task t --data_root_dir d --low_mag 20", "expected the first to be lower"),
        ("--task t --gdc --feature_extractor plip", "--feature-extractor: only with --summary"),
    ],
)
def test_wrong_options_are_refused(run_main: RunMain, arguments: str, said: str) -> None:
    code, _, errors = run_main(arguments.split(), SCRIPT)
    assert code == 2
    assert said in errors
