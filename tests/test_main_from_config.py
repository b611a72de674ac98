"""main.py --from_config repeats a run to the byte, or says what has changed."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.run_contents import files_below
from utils.sealed import DIGESTS, write_sealed


def edited(whole: Path, simulated: SimulatedTask, tmp_path: Path, **changes: object) -> Path:
    """A copy of a run's config.json in another folder, with some of its fields changed; None removes one."""
    file = tmp_path / "run" / "config.json"
    file.parent.mkdir()
    content = json.loads((simulated.run_folder(whole) / "config.json").read_text()) | changes
    write_sealed(file, {name: value for name, value in content.items() if value is not None})
    return file


def test_a_repeated_run_has_the_same_bytes(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    recorded = simulated.run_folder(whole) / "config.json"
    code, out, err = run_main(["--from_config", str(recorded), "--results_dir", str(tmp_path)])
    assert (code, err) == (0, "") and "may differ" not in out
    first, second = (files_below(simulated.run_folder(results)) for results in (whole, tmp_path))
    records = [json.loads(files.pop("config.json")) for files in (first, second)]
    assert second == first and "s_1_checkpoint.pt" in first
    assert records[0]["num_threads"] == torch.get_num_threads() == 1
    assert "from_config" not in records[1]["options"]
    for record in records:  # which part of the run was trained, and where it lies
        for name in ("k_start", "k_end", "results_dir"):
            del record["options"][name]
        del record[DIGESTS]
    assert records[0] == records[1]


def test_the_folds_that_the_record_tells_of_are_repeated(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    recorded = str(simulated.run_folder(whole) / "config.json")
    assert run_main(["--from_config", recorded, "--results_dir", str(tmp_path / "a"), "--k_start", "1"])[0] == 0
    one = str(simulated.run_folder(tmp_path / "a") / "config.json")
    assert run_main(["--from_config", one, "--results_dir", str(tmp_path / "b")])[0] == 0
    assert not (simulated.run_folder(tmp_path / "b") / "fold_0.json").exists()
    folders = [simulated.run_folder(results) for results in (whole, tmp_path / "b")]
    assert len({(folder / "s_1_checkpoint.pt").read_bytes() for folder in folders}) == 1


def test_changed_inputs_are_named(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, faults_of: FaultsOf, run_main: RunMain
) -> None:
    table, texts, splits = tmp_path / "table.csv", tmp_path / "texts.json", tmp_path / "splits"
    table.write_text(simulated.root.joinpath("simulated.csv").read_text() + "\n")
    texts.write_text(simulated.root.joinpath("simulated.json").read_text().replace(".", "!"))
    shutil.copytree(simulated.split_dir, splits)
    (splits / "splits_1.csv").write_text((splits / "splits_1.csv").read_text() + "\n")
    shutil.copytree(simulated.root / "features", tmp_path / "features")
    for file in (tmp_path / "features" / "simulated_tinyclip" / "tinyclip_5x").glob("*.h5"):
        with h5py.File(file, "r+") as opened:
            opened["features"][0, 0] += 1.0
    options = ["--from_config", str(simulated.run_folder(whole) / "config.json"), "--results_dir", str(tmp_path / "r")]
    places = {"--dataset_csv": table, "--text_prompt": texts, "--split_dir": splits}
    options += [str(part) for pair in places.items() for part in pair]
    options += ["--data_root_dir", str(tmp_path / "features")]
    faults = {fault.found.split()[0]: fault for fault in faults_of(options)}
    assert {fault.code for fault in faults.values()} == {"run.input_changed"}
    assert {name: fault.where for name, fault in faults.items()} == {
        "dataset_csv": str(table),
        "text_prompt": str(texts),
        "splits_1": str(splits / "splits_1.csv"),
        "features_0": f"--data_root_dir {tmp_path / 'features'}",
        "features_1": f"--data_root_dir {tmp_path / 'features'}",
    }
    assert not (tmp_path / "r" / "simulated" / "tinyclip" / "4").exists()
    code, out, _ = run_main([*options, "--dry_run", "--json"])
    assert code == 2 and len(json.loads(out)["faults"]) == 5


def test_another_text_tower_is_named(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    inputs = json.loads((simulated.run_folder(whole) / "config.json").read_text())["inputs"]
    file = edited(whole, simulated, tmp_path, inputs={**inputs, "text_tower": "of another day"})
    (fault,) = faults_of(["--from_config", str(file), "--dry_run"])
    assert (fault.code, fault.where) == ("run.input_changed", f"--vlm_path {simulated.root / 'tinyclip'}")


@pytest.mark.parametrize(
    ("options", "code"),
    [(["--lr", "0.5"], "run.other_settings"), (["--seed", "2"], "run.other_settings")],
)
def test_other_settings_are_no_repetition(
    simulated: SimulatedTask, whole: Path, faults_of: FaultsOf, options: list[str], code: str
) -> None:
    recorded = str(simulated.run_folder(whole) / "config.json")
    (fault,) = faults_of(["--from_config", recorded, *options])
    assert (fault.code, fault.where) == (code, " ".join(options))


def test_what_is_no_record_is_refused(whole: Path, tmp_path: Path, faults_of: FaultsOf) -> None:
    assert [fault.code for fault in faults_of(["--from_config", str(tmp_path / "config.json")])] == ["run.missing"]
    assert [fault.code for fault in faults_of(["--from_config", str(tmp_path / "other.json")])] == ["run.foreign"]


def test_the_recorded_number_of_threads_is_used(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    file = edited(whole, simulated, tmp_path, num_threads=2)
    code, out, _ = run_main(["--from_config", str(file), "--dry_run"])
    assert code == 0 and "may differ" not in out
    assert torch.get_num_threads() == 2


def test_what_may_change_bytes_is_noted(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    """A record of an older version tells of no threads."""
    file = edited(whole, simulated, tmp_path, num_threads=None, versions={"torch": "1.0"})
    code, out, _ = run_main(["--from_config", str(file), "--dry_run"])
    assert code == 0
    assert "note: the run was trained on an unrecorded number of threads, now 1: bytes may differ" in out
    assert f"note: the run was trained with torch 1.0, now {torch.__version__}" in out


def test_a_resumed_run_notes_another_number_of_threads(
    simulated: SimulatedTask, whole: Path, tmp_path: Path, run_main: RunMain
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    torch.set_num_threads(2)
    code, out, _ = run_main(simulated.options(tmp_path, "--resume"))
    assert code == 0
    assert "note: the run was trained on 1 threads, now 2: bytes may differ" in out


def test_every_run_is_deterministic(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        assert run_main(simulated.options(tmp_path, "--dry_run"))[0] == 0
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    finally:
        torch.use_deterministic_algorithms(before)
