"""--features-from: a job of TRIDENT is read in its place, and everything is as with the files linked from it."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.conftest import FaultsOf, RunMain, SimulatedTask, made_once
from tests.support.faults import check_fault
from tests.support.feature_files import write_trident
from tests.support.h5_files import arrays_of
from tests.support.run_contents import files_below

LINK = "create_hierarchical_features"
SLIDE = "SIM-0003"
FORMS = "hierarchy", "both", "patches"


def write_job(job: Path, simulated: SimulatedTask) -> None:
    folders = FeatureFolders(simulated.root / "features", "simulated", "tinyclip")
    for slide_id in folders.slide_ids("hierarchy"):
        for scale, file in ((5, folders.low_file(slide_id)), (20, folders.high_file(slide_id))):
            arrays = arrays_of(file)
            write_trident(job, slide_id, arrays["features"], arrays["coords"], scale, 40, "tinyclip")


@pytest.fixture(scope="module")
def job(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated task's features as TRIDENT writes them. Read only."""
    return made_once(tmp_path_factory, "job", lambda folder: write_job(folder, simulated))


@pytest.fixture(scope="module")
def linked(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root of the files linked from the job. Read only."""
    import create_hierarchical_features

    def link(root: Path) -> None:
        names = "--task", "simulated", "--feature_extractor", "tinyclip", "--workers", "1"
        dirs = "--low-dir", str(job), "--high-dir", str(job)
        create_hierarchical_features.main(["--data_root_dir", str(root), *names, *dirs])

    return made_once(tmp_path_factory, "linked", link)


def options(task: SimulatedTask, results: Path, *more: str) -> list[str]:
    """One epoch of fold 0, without --data_root_dir."""
    given = task.options(results, "--max_epochs", "1", "--k_end", "1", *more)
    place = given.index("--data_root_dir")
    return given[:place] + given[place + 2 :]


def written(task: SimulatedTask, results: Path) -> dict[str, bytes]:
    """A run's checkpoints and tables, without what says where it lies."""
    found = files_below(task.run_folder(results))
    return {name: contents for name, contents in found.items() if not name.endswith(".json")}


def record_of(task: SimulatedTask, results: Path) -> dict:
    return json.loads((task.run_folder(results) / "config.json").read_text())


@pytest.mark.parametrize("form", FORMS)
def test_a_bag_is_that_of_the_linked_files(job: Path, linked: Path, form: str) -> None:
    names = "simulated", "tinyclip", 5, 20
    in_place, beside = FeatureFolders(Path("nowhere"), *names, job), FeatureFolders(linked, *names)
    assert in_place.slide_ids(form) == beside.slide_ids(form)
    for slide_id in in_place.slide_ids(form)[:5]:
        ours, theirs = (read_bag(folders, Slide(slide_id, "p", 1), 16, form) for folders in (in_place, beside))
        assert ours.features().keys() == theirs.features().keys()
        pairs = [(value, theirs.features()[name]) for name, value in ours.features().items()]
        pairs += [(ours.low_coords, theirs.low_coords), (ours.high_coords, theirs.high_coords)]
        for one, other in pairs:
            assert (one is None and other is None) or (torch.equal(one, other) and one.dtype == other.dtype)
        assert (ours.label, ours.slide_id) == (1, slide_id)


def test_a_run_is_that_of_the_linked_files(
    simulated: SimulatedTask, job: Path, linked: Path, tmp_path: Path, run_main: RunMain
) -> None:
    before = files_below(job)
    runs = {"job": ("--features-from", str(job)), "linked": ("--data_root_dir", str(linked))}
    for name, where in runs.items():
        code, _, err = run_main(options(simulated, tmp_path / name, *where))
        assert (code, err) == (0, "")
    assert written(simulated, tmp_path / "job") == written(simulated, tmp_path / "linked") != {}
    ours, theirs = (record_of(simulated, tmp_path / name) for name in runs)
    assert ours["options"]["features_from"] == str(job) and theirs["options"]["features_from"] is None
    assert ours["inputs"] == theirs["inputs"] and ours["features"] == theirs["features"]
    assert files_below(job) == before

    # repeated from the job that config.json names, and from the linked files
    config = str(simulated.run_folder(tmp_path / "job") / "config.json")
    for name, more in (("again", []), ("moved", ["--data_root_dir", str(linked)])):
        code, _, err = run_main(["--from_config", config, "--results_dir", str(tmp_path / name), *more])
        assert (code, err) == (0, "")
        assert written(simulated, tmp_path / name) == written(simulated, tmp_path / "job")
        place = record_of(simulated, tmp_path / name)["options"]["features_from"]
        assert place == (None if more else str(job))

    # gone on with, by the other way to the same features
    for name, where in (("job", runs["linked"]), ("linked", runs["job"])):
        code, _, err = run_main(options(simulated, tmp_path / name, *where, "--k_end", "2", "--resume"))
        assert (code, err) == (0, "")
    assert written(simulated, tmp_path / "job") == written(simulated, tmp_path / "linked")

    # predicted and explained
    checkpoint = str(simulated.run_folder(tmp_path / "job") / "s_0_checkpoint.pt")
    tables = []
    for name, more in (("p1", []), ("p2", ["--data_root_dir", str(linked)]), ("p3", ["--features-from", str(job)])):
        output = tmp_path / f"{name}.csv"
        assert run_main(["--checkpoint", checkpoint, "--output", str(output), *more], "predict")[0] == 0
        tables.append(output.read_bytes())
    assert tables[0] == tables[1] == tables[2]
    given = ["--checkpoint", checkpoint, "--slides", SLIDE]
    for name, more in (("e1", []), ("e2", ["--data_root_dir", str(linked)])):
        assert run_main([*given, "--output-dir", str(tmp_path / name), *more], "explain")[0] == 0
    pages = [files_below(tmp_path / name) for name in ("e1", "e2")]
    csvs = [{name: text for name, text in page.items() if name.endswith((".csv", ".geojson"))} for page in pages]
    assert csvs[0] == csvs[1] != {}


@pytest.mark.parametrize("model", ["ViLa_MIL", "ABMIL"])
def test_models_of_other_forms(
    simulated: SimulatedTask, job: Path, linked: Path, tmp_path: Path, run_main: RunMain, model: str
) -> None:
    found = []
    for name, where in (("job", ["--features-from", str(job)]), ("linked", ["--data_root_dir", str(linked)])):
        code, _, err = run_main(options(simulated, tmp_path / name, *where, "--model_type", model))
        assert (code, err) == (0, "")
        files = {Path(file).name: contents for file, contents in files_below(tmp_path / name).items()}
        found.append({file: contents for file, contents in files.items() if not file.endswith(".json")})
    assert found[0] == found[1] != {}


def test_doctor_and_dry_run(simulated: SimulatedTask, job: Path, tmp_path: Path, run_main: RunMain) -> None:
    given = options(simulated, tmp_path, "--features-from", str(job))
    code, out, err = run_main([*given, "--dry_run"])
    assert (code, err) == (0, "") and "dry run: all checks passed" in out
    code, out, _ = run_main([*given, "--json"], "doctor")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert str(job) in str(checks["features"])


def test_a_changed_job_is_told(
    simulated: SimulatedTask, job: Path, tmp_path: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    own = tmp_path / "job"
    shutil.copytree(job, own)
    assert run_main(options(simulated, tmp_path / "r", "--features-from", str(own)))[0] == 0
    for file in own.glob("20x_*/features_tinyclip/*.h5"):
        with h5py.File(file, "r+") as opened:
            opened["features"][...] *= np.float32(1.5)
    config = str(simulated.run_folder(tmp_path / "r") / "config.json")
    (fault,) = faults_of(["--from_config", config, "--results_dir", str(tmp_path / "again")])
    check_fault(fault, "run.input_changed", f"--features-from {own}")


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_job_without_parents(simulated: SimulatedTask, job: Path, tmp_path: Path, faults_of: FaultsOf) -> None:
    shutil.copytree(job, tmp_path / "job", ignore=shutil.ignore_patterns("5x_*"))
    (fault,) = faults_of(options(simulated, tmp_path / "r", "--features-from", str(tmp_path / "job")))
    check_fault(fault, "features.missing", tmp_path / "job", "5x")


def test_a_job_of_one_scale_is_enough_for_a_flat_model(
    simulated: SimulatedTask, job: Path, tmp_path: Path, run_main: RunMain
) -> None:
    shutil.copytree(job, tmp_path / "job", ignore=shutil.ignore_patterns("5x_*"))
    given = options(simulated, tmp_path / "r", "--features-from", str(tmp_path / "job"), "--dry_run")
    code, _, err = run_main([*given, "--model_type", "MeanPooling"])
    assert (code, err) == (0, "")


def test_a_slide_that_the_job_lacks_and_tensors(
    simulated: SimulatedTask, job: Path, tmp_path: Path, faults_of: FaultsOf
) -> None:
    own = tmp_path / "job"
    shutil.copytree(job, own)
    folder = own / "20x_256px_0px_overlap" / "features_tinyclip"
    (folder / f"{SLIDE}.h5").unlink()
    given = options(simulated, tmp_path / "r", "--features-from", str(own))
    (fault,) = faults_of(given)
    check_fault(fault, "file.missing", folder / f"{SLIDE}.h5", "--features-from")
    for file in folder.glob("*.h5"):
        torch.save(torch.from_numpy(arrays_of(file)["features"]), file.with_suffix(".pt"))
        file.unlink()
    (fault,) = faults_of(given)
    check_fault(fault, "features.kind", folder, f"python {LINK}.py", f"--low-dir {own} --high-dir {own}")


def test_options_that_are_needed_and_that_exclude_each_other(
    simulated: SimulatedTask, job: Path, tmp_path: Path, faults_of: FaultsOf, run_main: RunMain
) -> None:
    faults = faults_of(options(simulated, tmp_path / "r"))
    assert ("option.missing", "--data_root_dir") in [(fault.code, fault.where) for fault in faults]
    given = ["--checkpoint", "s_0_checkpoint.pt", "--wsi-dir", str(tmp_path), "--features-from", str(job)]
    code, _, err = run_main(given, "predict")
    assert (code, "expected one of the two" in err) == (2, True)
