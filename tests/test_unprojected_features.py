"""main.py warns of CONCH features from before the projection."""

import shutil
from pathlib import Path

import h5py

from tests.conftest import RunMain, SimulatedTask
from tests.support.conch_features import unit

# ---- main.py ---------------------------------------------------------------------------------------------------------


def test_every_start_of_a_run_warns(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    task = SimulatedTask(tmp_path / "copy")
    shutil.copytree(simulated.root, task.root)
    features = task.features.rename(task.features.with_name("simulated_myconch"))
    for folder in features.iterdir():
        folder.rename(folder.with_name(folder.name.replace("tinyclip", "myconch")))
    argv = task.options(tmp_path / "results", "--dry_run")
    argv[argv.index("--feature_extractor") + 1] = "myconch"
    for long in (False, True):
        for folder in ("myconch_5x", "hierarchical_myconch_5x_20x"):
            for file in (features / folder).iterdir():
                with h5py.File(file, "r+") as opened:
                    opened["features"][...] = (22 if long else 1) * unit(opened["features"][()])
        for _ in range(2):
            code, out, err = run_main(argv)
            assert (code, err) == (0, "")
            assert out.count("slides have rows that are not of length 1") == long
            assert ("--feature_extractor myconch --fix --project-with conch/pytorch_model.bin" in out) is long
