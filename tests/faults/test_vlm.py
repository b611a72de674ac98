"""Faulty or missing vision-language models."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import SimulatedTask
from tests.support.damage import HIGH, LOW, SLIDE, own_clip
from tests.support.faults import Refused, check_fault


def test_a_folder_of_clip_without_its_text_side(task: SimulatedTask, refused: Refused) -> None:
    folder = own_clip(task)
    file = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if not name.startswith("text_model.encoder")}
    save_file(kept, file, metadata={"format": "pt"})
    (fault,) = refused()
    check_fault(fault, "vlm.incomplete", folder, "32 weights are missing (text_model.")


def test_a_clip_of_another_width_is_told_for_all_files_but_hides_no_other_fault(
    task: SimulatedTask, refused: Refused
) -> None:
    from models.tiny_clip import save_tiny_clip

    save_tiny_clip(task.root / "narrow", width=8)
    (task.root / "simulated.json").unlink()
    found = {fault.where: fault for fault in refused("--vlm_path", str(task.root / "narrow"), faults=1 + 2 * 20)}
    assert found[str(task.root / "simulated.json")].code == "prompt.missing"
    for folder in (LOW, HIGH):
        file = task.features / folder / f"{SLIDE}.h5"
        check_fault(found[str(file)], "features.width", file, "16 wide", "8")


def test_a_feature_extractor_of_unknown_model(refused: Refused) -> None:
    (fault,) = refused(without="--vlm_path")
    check_fault(fault, "vlm.unknown", "--feature_extractor tinyclip", "name it with --vlm_path")


def test_conch_without_its_weights(
    task: SimulatedTask, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.vlms.conch

    weights = tmp_path / "pytorch_model.bin"
    monkeypatch.setattr(models.vlms.conch, "WEIGHTS", weights)
    features = task.features.rename(task.features.with_name("simulated_conch"))
    for folder in (LOW, HIGH):
        (features / folder).rename(features / folder.replace("tinyclip", "conch"))
    (fault,) = refused("--feature_extractor", "conch", without="--vlm_path")
    check_fault(fault, "vlm.missing", weights, "MahmoodLab/CONCH", "--vlm_path")
