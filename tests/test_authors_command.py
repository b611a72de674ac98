"""The command of the authors' README on their own files: what the first lines of a run say."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import main
from models.tiny_clip import save_tiny_clip
from tests.conftest import PROJECT, SHARED
from utils.config import Config

ASSETS = SHARED / "released_assets"
COMMAND = (
    "--task tcga_nsclc --feature_extractor plip --feature_dim 16 --few_shot_num 16 --model_type HiVE_MIL "
    "--mode transformer --seed 1 --k 5 --k_start -1 --k_end -1 --lr 1e-4 --reg 1e-5 --opt adam --bag_loss ce "
    "--max_epochs 50 --early_stopping --drop_out --log_data --low-mag 5x --high-mag 20x --filter-alpha 0.5 "
    "--num-context-tokens 16 --num-low-mag-texts 4 --num-high-mag-subtexts 3 --contrastive_lambda 0.5"
)


@pytest.fixture(scope="module")
def authors_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that holds the authors' files, and features of their form of the slides of all folds."""
    if not ASSETS.is_dir():
        pytest.skip("the released assets (../shared/released_assets) are not here")
    folder = tmp_path_factory.mktemp("authors")
    project = folder / "project"
    for name in ("dataset_csv", "splits", "text_prompt"):
        shutil.copytree(ASSETS / name, project / name)
    shutil.copytree(PROJECT / "text_prompt" / "HiVE_MIL" / "builtin", project / "text_prompt" / "HiVE_MIL" / "builtin")
    root = folder / "features" / "tcga_nsclc_plip"
    for name in ("plip_5x", "hierarchical_plip_5x_20x"):
        (root / name).mkdir(parents=True)
    parents = np.array([[0, 0], [4096, 0]])
    children = parents[:, None] + 1024 * np.stack(np.divmod(np.arange(16), 4), 1)
    splits = [pd.read_csv(file) for file in (project / "splits" / "tcga_nsclc" / "tcga_nsclc_16").glob("splits_*.csv")]
    names = {name for split in splits for part in ("train", "val", "test") for name in split[part].dropna()}
    for scale, coords in (("plip_5x", parents), ("hierarchical_plip_5x_20x", children)):
        features = np.random.default_rng(0).standard_normal((*coords.shape[:-1], 16))
        with h5py.File(folder / f"{scale}.h5", "w") as file:
            file["features"], file["coords"] = features.astype("float32"), coords
        for name in names:
            (root / scale / f"{name}.h5").hardlink_to(folder / f"{scale}.h5")
    save_tiny_clip(folder / "clip", width=16)
    return folder


@pytest.fixture
def authors_files(authors_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These, in place of the project's own."""
    monkeypatch.setattr("utils.config.PROJECT", authors_project / "project")
    return authors_project


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], ("variant paper", "gpt4o")),
        (["--variant", "released"], ("variant released", "gpt4o")),
        (["--LLM", "builtin", "--k_start", "2", "--k_end", "4"], ("folds 2 to 3", "builtin")),
    ],
    ids=["as it stands", "the flag that computes theirs", "builtin"],
)
def test_the_first_lines_say_what_is_computed(
    authors_files: Path, capfd: pytest.CaptureFixture[str], more: list[str], said: tuple[str, str]
) -> None:
    places = ["--data_root_dir", str(authors_files / "features"), "--vlm_path", str(authors_files / "clip")]
    main.main([*COMMAND.split(), *places, "--results_dir", str(authors_files / "results"), *more, "--dry_run"])
    first, second, *rest = capfd.readouterr().out.splitlines()
    folder = authors_files / "project" / "text_prompt" / "HiVE_MIL" / said[1]
    assert said[0] in first and ("folds 0 to 4" in first or more[-1:] == ["4"]) and "tcga_nsclc" in first
    assert said[1] in second and second.endswith(str(folder / "tcga_nsclc.json"))
    assert rest[-1] == "dry run: all checks passed"


def test_the_record_names_the_language_model(authors_files: Path) -> None:
    config = Config(task="tcga_nsclc")
    assert (config.language_model(), config.to_dict()["LLM"]) == ("gpt4o", "gpt4o")
    assert Config(task="tcga_nsclc", LLM="builtin").language_model() == "builtin"
    assert Config(task="other").language_model() == "builtin"
    assert Config(task="other", model_type="ABMIL").to_dict()["LLM"] is None
    own = authors_files / "project" / "text_prompt" / "ViLa_MIL" / "gpt4o" / "other.csv"
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert Config(task="other", model_type="ViLa_MIL").language_model() == "gpt4o"
    by_class = json.loads((config.prompt_path()).read_text())
    assert config.prompt_path().parent.name == "gpt4o" and list(by_class) == ["LUAD", "LUSC"]
