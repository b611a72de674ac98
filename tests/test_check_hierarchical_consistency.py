"""check_hierarchical_consistency.py: its table and exit code, and that --fix leaves files that pass and train."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.folders import FeatureFolders
from tests.conftest import RunMain, SimulatedTask
from tests.support.h5_files import arrays_of
from tests.support.run_contents import files_below

SCRIPT = "check_hierarchical_consistency"


@pytest.fixture
def task(simulated: SimulatedTask, tmp_path: Path) -> SimulatedTask:
    task = SimulatedTask(tmp_path / "copy")
    shutil.copytree(simulated.root, task.root)
    return task


def folders_of(task: SimulatedTask) -> FeatureFolders:
    return FeatureFolders(task.root / "features", "simulated", "tinyclip")


def options(task: SimulatedTask, *more: str) -> list[str]:
    names = "--task", "simulated", "--feature_extractor", "tinyclip"
    return ["--data_root_dir", str(task.root / "features"), *names, "--workers", "1", *more]


def as_released(file: Path) -> bool:
    """Drop the mask and the childless parents; whether there were any."""
    arrays = arrays_of(file)
    keep = arrays.pop("mask").any(1)
    with h5py.File(file, "w") as opened:
        for name, array in arrays.items():
            opened[name] = array[keep]
    return not keep.all()


def row_of(out: str, slide_id: str) -> list[str]:
    found = re.search(rf"^{slide_id} +(\d+) +(\d+) +(\d+)  (.*)$", out, flags=re.MULTILINE)
    assert found, out
    return list(found.groups())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_clean_task_passes_untouched(task: SimulatedTask, run_main: RunMain, workers: str) -> None:
    before = files_below(task.root)
    for more in ((), ("--fix",)):
        code, out, err = run_main(options(task, "--workers", workers, *more), SCRIPT)
        assert (code, err) == (0, "")
        assert "20 slides: 20 consistent (0 repaired), 0 with faults" in out
        mask = arrays_of(folders_of(task).hierarchical_file("SIM-0000"))["mask"]
        numbers = [str(len(mask)), str(mask.sum()), str((~mask.any(1)).sum())]
        assert row_of(out, "SIM-0000") == [*numbers, "ok"]
    assert files_below(task.root) == before


def test_faults_are_told_by_slide_and_in_sum_and_fixed(task: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
    folders = folders_of(task)
    originals = {file.name: arrays_of(file) for file in folders.hierarchical_file("x").parent.iterdir()}
    for slide_id in ("SIM-0000", "SIM-0001"):
        with h5py.File(folders.hierarchical_file(slide_id), "r+") as opened:
            opened["mask"][0, :] = False
    with h5py.File(folders.hierarchical_file("SIM-0002"), "r+") as opened:
        for name in ("features", "coords", "mask"):
            opened[name][...] = opened[name][()][::-1]
    folders.hierarchical_file("SIM-0003").unlink()
    with h5py.File(folders.low_file("SIM-0004"), "r+") as opened:
        opened["features"][0] = np.nan
    before = files_below(task.root)
    code, out, err = run_main(options(task), SCRIPT)
    assert (code, err) == (1, "")
    assert files_below(task.root) == before
    assert "20 slides: 15 consistent (0 repaired), 5 with faults" in out
    assert "  masks: 2 slides" in out and "  file: 2 slides" in out and "  order: 1 slides" in out
    assert "masks" in row_of(out, "SIM-0000")[3] and row_of(out, "SIM-0005")[3] == "ok"
    assert re.search(r"SIM-0000: masks: \d+ rows with features where the mask is False", out)
    assert re.search(r"SIM-0004: file: .*tinyclip_5x/SIM-0004\.h5: .* NaN", out)
    assert "--fix repairs" in out

    code, out, _ = run_main(options(task, "--fix"), SCRIPT)
    assert code == 1
    assert "20 slides: 19 consistent (4 repaired), 1 with faults" in out
    assert row_of(out, "SIM-0000")[3] == "repaired" and row_of(out, "SIM-0003")[3] == "repaired"
    assert re.search(r"SIM-0004: not repaired: .*extract this slide again", out)
    folder = folders.hierarchical_file("x").parent
    backups = {file.name.removesuffix(".bak") for file in folder.iterdir() if file.suffix == ".bak"}
    assert backups == {"SIM-0000.h5", "SIM-0001.h5", "SIM-0002.h5"}
    for name in backups:
        assert (folder / f"{name}.bak").read_bytes() == before[str((folder / name).relative_to(task.root))]
    for name, original in originals.items():
        for key, values in arrays_of(folder / name).items():
            np.testing.assert_array_equal(values, original[key])
    with h5py.File(folders.low_file("SIM-0004"), "r+") as opened:
        opened["features"][0] = 1
    assert run_main(options(task), SCRIPT)[0] == 0


@pytest.mark.parametrize("has_high", [True, False])
def test_released_files_without_their_childless_parents_are_completed(
    task: SimulatedTask, run_main: RunMain, tmp_path: Path, has_high: bool
) -> None:
    folders = folders_of(task)
    folder = folders.hierarchical_file("x").parent
    originals = {file.name: arrays_of(file) for file in folder.iterdir()}
    incomplete = sum([as_released(file) for file in sorted(folder.iterdir())])
    assert incomplete > 3
    if not has_high:
        shutil.rmtree(folders.high_file("x").parent)
    code, _, err = run_main(task.options(tmp_path / "results", "--dry_run"))
    assert (code, "expected the same parents in the rows of both" in re.sub(r"\s+", " ", err)) == (2, True)
    code, out, _ = run_main(options(task), SCRIPT)
    assert code == 1
    assert f"{20 - incomplete} consistent (0 repaired), {incomplete} with faults" in out
    assert "no mask, as in released files: rows that are not zero are the children (20 slides)" in out
    assert ("no 20x file: children not compared (20 slides)" in out) is not has_high

    code, out, _ = run_main(options(task, "--fix"), SCRIPT)
    assert code == 0, out
    assert "20 consistent (20 repaired), 0 with faults" in out
    assert run_main(options(task), SCRIPT)[0] == 0
    for name, original in originals.items():
        for key, values in arrays_of(folder / name).items():
            np.testing.assert_array_equal(values, original[key])
    code, out, err = run_main(task.options(tmp_path / "results", "--dry_run"))
    assert (code, err) == (0, "")


def test_a_task_without_files(tmp_path: Path, run_main: RunMain) -> None:
    code, _, err = run_main(options(SimulatedTask(tmp_path)), SCRIPT)
    assert code == 2
    assert "no feature files; make them with: python create_hierarchical_features.py" in err


def test_hierarchical_files_alone_are_checked_for_what_they_tell(task: SimulatedTask, run_main: RunMain) -> None:
    folders = folders_of(task)
    shutil.rmtree(folders.low_file("x").parent)
    with h5py.File(folders.hierarchical_file("SIM-0000"), "r+") as opened:
        opened["features"][0, 0] = np.inf
        opened["mask"][0, 0] = True
    code, out, _ = run_main(options(task, "--fix"), SCRIPT)
    assert code == 1
    assert row_of(out, "SIM-0000")[3] == "file, values"
    assert row_of(out, "SIM-0001")[3] == "file"
    assert "tinyclip_5x/SIM-0001.h5: file not found" in out
