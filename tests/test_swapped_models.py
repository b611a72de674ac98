"""Every script refuses features of one model and texts of another of the same width, and names both."""

import json
import shutil
from pathlib import Path

import h5py
import pytest

from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import change_json


@pytest.fixture(scope="module")
def other(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, as wide as the one that the features are of."""
    folder = tmp_path_factory.mktemp("other") / "clip"
    width = json.loads((simulated.root / "tinyclip" / "config.json").read_text())["projection_dim"]
    save_tiny_clip(folder, width, seed=7)
    return folder


def names(*models: Path) -> list[str]:
    return [str(load_image_side("tinyclip", str(model)).identity()) for model in models]


@pytest.mark.parametrize("script", ["main", "main --dry_run"])
def test_before_training(
    simulated: SimulatedTask, other: Path, tmp_path: Path, faults_of: FaultsOf, script: str
) -> None:
    name, *more = script.split()
    given = simulated.options(tmp_path, "--vlm_path", str(other), *more)
    (fault,) = [fault for fault in faults_of(given, name) if fault.code == "features.other_model"]
    own, swapped = names(simulated.root / "tinyclip", other)
    assert own in fault.found and swapped in fault.expected
    assert not any(tmp_path.rglob("*_checkpoint.pt"))


def test_doctor(simulated: SimulatedTask, other: Path, tmp_path: Path, run_main: RunMain) -> None:
    code, out, _ = run_main(simulated.options(tmp_path, "--vlm_path", str(other), "--json"), "doctor")
    assert code == 1 and "features.other_model" in out
    assert all(name in out for name in names(simulated.root / "tinyclip", other))


@pytest.mark.parametrize("script", ["predict", "explain"])
def test_with_a_trained_run(
    simulated: SimulatedTask, whole: Path, other: Path, tmp_path: Path, faults_of: FaultsOf, script: str
) -> None:
    given = ["--checkpoint", str(simulated.run_folder(whole) / "s_0_checkpoint.pt"), "--vlm_path", str(other)]
    given += ["--output", str(tmp_path / "x.csv")] if script == "predict" else ["--output-dir", str(tmp_path / "x")]
    faults = {fault.code: fault for fault in faults_of(given, script)}
    own, swapped = names(simulated.root / "tinyclip", other)
    assert own in faults["features.other_model"].found and swapped in faults["features.other_model"].expected
    assert own in faults["run.other_settings"].expected and str(other) in faults["run.other_settings"].found
    assert list(tmp_path.iterdir()) == []


def test_new_features_of_another_model(
    simulated: SimulatedTask, whole: Path, other: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    """The run's model is named, and the features are another's."""
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    identity = load_image_side("tinyclip", str(other)).identity()
    for file in (tmp_path / "features").rglob("*.h5"):
        with h5py.File(file, "r+") as opened:
            opened.attrs.update(identity.attributes())
    checkpoint = str(simulated.run_folder(whole) / "s_0_checkpoint.pt")
    given = ["--checkpoint", checkpoint, "--data_root_dir", str(tmp_path / "features")]
    for script, output in (("predict", "--output"), ("explain", "--output-dir")):
        (fault,) = faults_of([*given, output, str(tmp_path / "x")], script)
        assert fault.code == "features.other_model" and str(identity) in fault.found
        assert names(simulated.root / "tinyclip")[0] in fault.expected


def test_the_report_on_class_separation(simulated: SimulatedTask, other: Path, run_main: RunMain) -> None:
    place = ["--task", "simulated", "--data_root_dir", str(simulated.root / "features")]
    texts = [str(simulated.root / "simulated.json"), "--feature_extractor", "tinyclip"]
    own, swapped = simulated.root / "tinyclip", other
    assert run_main([*texts, "--vlm_path", str(own), *place], "report_class_separation")[0] == 0
    assert run_main([*texts, "--vlm_path", str(swapped)], "report_class_separation")[0] == 0
    code, _, err = run_main([*texts, "--vlm_path", str(swapped), *place], "report_class_separation")
    assert code == 2 and all(name in err for name in names(own, swapped))
    for one in (place[:2], place[2:]):
        assert run_main([*texts, "--vlm_path", str(own), *one], "report_class_separation")[0] == 2


def test_files_that_do_not_say_get_one_note(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    """As those of other tools; ``--assume-model`` takes the note away, and is recorded."""
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    for file in (tmp_path / "features").rglob("*.h5"):
        with h5py.File(file, "r+") as opened:
            for name in [name for name in opened.attrs if name.startswith("model_")]:
                del opened.attrs[name]
    place = ["--data_root_dir", str(tmp_path / "features"), "--k_end", "1", "--max_epochs", "1"]
    code, out, err = run_main(simulated.options(tmp_path / "noted", *place))
    assert (code, err) == (0, "") and out.count("do not say which model made them") == 1
    code, out, err = run_main(simulated.options(tmp_path / "assumed", *place, "--assume-model", "tinyclip"))
    assert (code, err) == (0, "") and "do not say" not in out
    records = [
        json.loads((simulated.run_folder(tmp_path / name) / "config.json").read_text()) for name in ("noted", "assumed")
    ]
    assert [record["options"]["assume_model"] for record in records] == [None, "tinyclip"]
    assert [record["features_model"] for record in records] == [None, None]


def test_a_record_holds_the_model(simulated: SimulatedTask, whole: Path, faults_of: FaultsOf, tmp_path: Path) -> None:
    identity = load_image_side("tinyclip", str(simulated.root / "tinyclip")).identity()
    config = simulated.run_folder(whole) / "config.json"
    record = json.loads(config.read_text())
    assert record["features_model"] == vars(identity) and record["inputs"]["features_model"] == identity.sha256
    shutil.copytree(config.parent, tmp_path / "run")
    change_json(tmp_path / "run" / "config.json", lambda said: {**said, "features_model": {"family": "KEEP"}})
    given = ["--checkpoint", str(tmp_path / "run" / "s_0_checkpoint.pt"), "--output", str(tmp_path / "x.csv")]
    assert [fault.code for fault in faults_of(given, "predict")] == ["run.unreadable"]
