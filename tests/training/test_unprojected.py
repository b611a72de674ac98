"""Features as wide as the image tower's own, and not as the texts', are one fault with the command that mends them."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import training.unprojected
from datasets.folders import FeatureFolders
from models.vlms.registry import Source
from tests.support.faults import check_fault, expect_faults
from tests.support.musk_stand_in import save_musk
from tests.support.published_other_vlms import save_dual_encoder, save_keep, save_open_clip_bert, save_siglip
from tests.support.published_vlms import change_clip_weights, save_conch, save_open_clip
from tests.support.vlm_examples import save_clip
from training.unprojected import check_projected


def save_wide_clip(folder: Path) -> Path:
    save_clip(folder, 0)
    change_clip_weights(folder, lambda state: {**state, "visual_projection.weight": torch.ones(32, 64)})
    return folder


def save_small_musk(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return save_musk(folder, patch)


MODELS: dict[str, tuple[Callable[[Path], Path], int, int]] = {
    "clip": (save_wide_clip, 64, 32),
    "open_clip": (save_open_clip, 32, 16),
    "biomedclip": (save_open_clip_bert, 32, 16),
    "keep": (save_keep, 32, 16),
    "dual_encoder": (save_dual_encoder, 32, 16),
    "musk": (save_small_musk, 16, 8),
}


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    folders = FeatureFolders(tmp_path / "my data", "task", "any")
    folders.low_file("slide").parent.mkdir(parents=True)
    return folders


@pytest.mark.parametrize("name", MODELS)
def test_a_tower_s_own_width_is_told_with_the_command(tmp_path: Path, folders: FeatureFolders, name: str) -> None:
    save, own, joint = MODELS[name]
    path = save(tmp_path / "a model")
    with expect_faults("features.unprojected") as faults:
        check_projected(folders, own, Source("any", str(path)), joint)
    check_fault(faults[0], "features.unprojected", folders.root, f"{own} wide", f"{joint} wide", str(path))
    command = shlex.split(faults[0].mend.partition(": ")[2])
    assert command[-3:] == ["--fix", "--project-with", str(path)]
    assert str(folders.data_root) in command and command[1] == "check_hierarchical_consistency.py"
    for width in (joint, own + 1, None):
        check_projected(folders, width, Source("any", str(path)), joint)


@pytest.mark.parametrize("save", [save_siglip, save_conch, lambda folder: save_open_clip(folder, "resnet")])
def test_models_whose_own_features_are_as_wide_as_the_texts(
    tmp_path: Path, folders: FeatureFolders, save: Callable[[Path], Path]
) -> None:
    check_projected(folders, 1234, Source("any", str(save(tmp_path / "model"))), 16)


def test_a_model_that_is_told_by_its_name_is_told_so(folders: FeatureFolders, tmp_path: Path) -> None:
    """As main.py names it, where the command is run."""
    path = save_keep(tmp_path / "keep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.vlms.registry.files_of_hub", lambda hub, entry, types: files_as_hub(path, hub))
        for source, told in ((Source("keep"), "Astaxanthin/KEEP"), (Source("x", "hf-hub:A/B"), "hf-hub:A/B")):
            with expect_faults("features.unprojected") as faults:
                check_projected(folders, 32, source, 16)
            assert faults[0].mend.endswith(f"--project-with {told}")


def files_as_hub(path: Path, hub: str) -> object:
    from models.vlms.places import ModelFiles

    return ModelFiles(hub, path, (path / "model.safetensors",))


def test_the_model_is_read_only_where_widths_differ(folders: FeatureFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.unprojected, "load_head", None)
    for width in (16, None):
        check_projected(folders, width, Source("keep"), 16)


def test_a_task_of_high_patches_alone_is_extracted_again(tmp_path: Path) -> None:
    """No low files: the command that projects would find no slide."""
    folders = FeatureFolders(tmp_path / "data", "task", "any")
    folders.high_file("slide").parent.mkdir(parents=True)
    with expect_faults("features.unprojected") as faults:
        check_projected(folders, 32, Source("any", str(save_keep(tmp_path / "model"))), 16)
    assert folders.extract_command() in faults[0].mend and "--project-with" not in faults[0].mend
