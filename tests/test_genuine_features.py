"""Features that TRIDENT, CLAM, ViLa-MIL and the released pipeline wrote themselves: one note, then a model trains on
them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from datasets.folders import FeatureFolders
from datasets.simulate import simulated_descriptions
from models.tiny_clip import save_tiny_clip
from tests.conftest import SHARED, RunMain

WIDTH = 64
CLASSES = ["A", "B"]
PLACES = {
    "released": ("hive_mil/DATA/tcga_nsclc_plip/plip_5x", "hive_mil/DATA/tcga_nsclc_plip/plip_20x"),
    "trident": ("trident/job", "trident/job"),
    "clam": ("clam/40_5x/feats", "clam/40_20x/feats"),
    "vila_mil": ("vila_mil/vila_clip/clip_5x", "vila_mil/vila_clip/clip_20x"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, WIDTH)
    return folder


def as_a_task(folders: FeatureFolders, root: Path) -> list[str]:
    """The slides under six names, a table, splits and descriptions; -> options of main.py that name them."""
    found = folders.slide_ids("hierarchy")
    names = [f"copy_{number}" for number in range(6)]
    for number, name in enumerate(names):
        for file_of in (folders.low_file, folders.high_file, folders.hierarchical_file):
            shutil.copy(file_of(found[number % len(found)]), file_of(name))
    labels = [CLASSES[number % 2] for number in range(6)]
    pd.DataFrame({"case_id": names, "slide_id": names, "label": labels}).to_csv(root / "table.csv", index=False)
    parts = {part: pd.Series(names[2 * k : 2 * k + 2]) for k, part in enumerate(("train", "val", "test"))}
    (root / "splits").mkdir()
    pd.DataFrame(parts).to_csv(root / "splits" / "splits_0.csv")
    (root / "texts.json").write_text(json.dumps(simulated_descriptions(CLASSES)))
    return [
        *("--dataset_csv", str(root / "table.csv"), "--split_dir", str(root / "splits"), "--few_shot_num", "1"),
        *("--text_prompt", str(root / "texts.json"), "--k", "1", "--max_epochs", "1", "--results_dir", str(root / "r")),
    ]


@pytest.mark.parametrize("tool", PLACES)
def test_one_note_and_training(tmp_path: Path, clip: Path, run_main: RunMain, tool: str) -> None:
    genuine = SHARED / "genuine"
    if not genuine.is_dir():
        pytest.skip("the files of other tools (../shared/genuine) are not here")
    task = ["--data_root_dir", str(tmp_path / "data"), "--task", "genuine", "--feature_extractor", "plip"]
    low, high = (str(genuine / place) for place in PLACES[tool])
    linking = [*task, "--low-dir", low, "--high-dir", high, "--workers", "1"]
    assert run_main(linking, "create_hierarchical_features")[0] == 0
    options = as_a_task(FeatureFolders(tmp_path / "data", "genuine", "plip"), tmp_path)
    code, out, err = run_main([*task, "--vlm_path", str(clip), *options, "--device", "cpu"])
    assert (code, err) == (0, "")
    assert out.count("6 of 6 slides do not say which model made them") == 1 and out.count("warning:") == 1
    assert next((tmp_path / "r").rglob("predictions_0.csv")).is_file()
