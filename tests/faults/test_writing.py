"""Scripts that find no room, that are told to write over what they read, and what killed ones left."""

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import utils.whole_files
from datasets.folders import FeatureFolders
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import HIGH, LOW, SLIDE, change
from tests.support.faults import check_fault
from tests.support.run_contents import files_below, numbers
from utils.files import write_text


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Python ignores the signal of a file that grows too large, and gets an error as it would of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- a full disk -----------------------------------------------------------------------------------------------------


def test_a_training_that_finds_no_room_is_resumed(
    task: SimulatedTask, finished_run: Path, faults_of: FaultsOf, run_main: RunMain, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    options = task.options(results, "--max_epochs", "1")
    with no_file_beyond(40_000):
        (fault,) = faults_of(options)
    check_fault(fault, "file.not_written", task.run_folder(results) / "resume_0.pt", os.strerror(errno.EFBIG))
    assert not [name for name in files_below(tmp_path / "results") if name.endswith(".writing")]
    assert run_main([*options, "--resume"])[0] == 0
    expected = numbers(task.run_folder(finished_run))
    found = numbers(task.run_folder(results))
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} <= {"fold_0.json", "fold_1.json"}


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("create_simulated_task", ["--output-dir", "OUT", "--classes", "2", "--slides-per-class", "9"]),
        ("create_mil_task", ["--csv", "CSV", "--output-dir", "OUT", "--k", "5"]),
    ],
)
def test_a_script_that_finds_no_room_says_so(
    faults_of: FaultsOf, tmp_path: Path, script: str, options: list[str]
) -> None:
    table = tmp_path / "bags.csv"
    rows = [f"{bag % 2},{bag},{','.join(map(str, range(1, 60)))}\n" for bag in range(40) for _ in range(60)]
    table.write_text("".join(rows))
    places = {"OUT": str(tmp_path / "out"), "CSV": str(table)}
    with no_file_beyond(10_000):
        (fault,) = faults_of([places.get(option, option) for option in options], script)
    assert fault.code == "file.not_written" and os.strerror(errno.EFBIG) in fault.found
    assert not [name for name in files_below(tmp_path) if name.endswith(".writing")]


def test_a_repair_that_finds_no_room_is_no_success(
    task: SimulatedTask, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file in the released form, which has no fault: --fix was to add its mask."""
    file = task.features / HIGH / f"{SLIDE}.h5"
    change(file, "mask", None)
    before = files_below(task.features)
    argv = ["--data_root_dir", str(task.root / "features"), "--task", "simulated", "--feature_extractor", "tinyclip"]
    script = "check_hierarchical_consistency"
    assert run_main([*argv, "--workers", "1"], script)[0] == 0
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if ".writing" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    code, out, _ = run_main([*argv, "--workers", "1", "--fix"], script)
    assert (code, "not repaired" in out) == (1, True)
    assert files_below(task.features) == before
    monkeypatch.undo()
    assert run_main([*argv, "--workers", "1", "--fix"], script)[0] == 0
    assert file.with_name(f"{file.name}.bak").read_bytes() == before[str(file.relative_to(task.features))]


# ---- outputs that are inputs -----------------------------------------------------------------------------------------

FEATURES = f"features/simulated_tinyclip/{LOW}/{SLIDE}.h5"
READ_BY_PREDICT = ["simulated.csv", "simulated.json", "tinyclip/config.json", FEATURES]
OF_THE_RUN = ["s_0_checkpoint.pt", "config.json", "fold_0.json", "splits_1.csv", "predictions_0.csv", "results.csv"]


@pytest.mark.parametrize("name", [*READ_BY_PREDICT, *OF_THE_RUN, "/dev/null", "tinyclip"])
def test_predict_replaces_nothing_that_it_reads(
    task: SimulatedTask, results: Path, faults_of: FaultsOf, name: str
) -> None:
    run = task.run_folder(results)
    output = run / name if name in OF_THE_RUN else task.root / name
    before = files_below(task.root) | files_below(results)
    device = Path("/dev/null").stat()
    inputs = {"data_root_dir": "features", "dataset_csv": "simulated.csv", "text_prompt": "simulated.json"}
    given = [part for option, at in inputs.items() for part in (f"--{option}", task.root / at)]
    faults = faults_of(
        ["--checkpoint", run / "s_0_checkpoint.pt", "--output", output, "--vlm_path", task.root / "tinyclip", *given],
        "predict",
    )
    code = {"/dev/null": "output.special", "tinyclip": "output.folder"}.get(name, "output.is_input")
    assert [(fault.code, fault.where) for fault in faults] == [(code, f"--output {output}")]
    assert files_below(task.root) | files_below(results) == before
    assert (Path("/dev/null").stat().st_mode, Path("/dev/null").stat().st_ino) == (device.st_mode, device.st_ino)


def test_explain_replaces_nothing_that_it_reads(task: SimulatedTask, results: Path, faults_of: FaultsOf) -> None:
    table = task.root / f"{SLIDE}_5x.csv"
    shutil.copy(task.root / "simulated.csv", table)
    (fault,) = faults_of(
        ["--checkpoint", task.run_folder(results) / "s_0_checkpoint.pt", "--dataset_csv", table, "--slide", SLIDE,
         "--output-dir", task.root], "explain",
    )  # fmt: skip
    check_fault(fault, "output.is_input", f"--output-dir {task.root}", str(table))


def test_splits_replace_no_table(task: SimulatedTask, faults_of: FaultsOf) -> None:
    table = task.root / "out" / "simulated_4" / "splits_0.csv"
    table.parent.mkdir(parents=True)
    shutil.copy(task.root / "simulated.csv", table)
    before = table.read_bytes()
    options = ["--task", "simulated", "--dataset_csv", table, "--output_dir", task.root / "out", "--few_shot_num", "4"]
    (fault,) = faults_of([*options, "--k", "2", "--overwrite"], "create_splits")
    assert fault.code == "output.is_input"
    assert table.read_bytes() == before


def test_links_replace_no_features(task: SimulatedTask, faults_of: FaultsOf) -> None:
    folders = FeatureFolders(task.root / "features", "simulated", "tinyclip")
    low, high = folders.low_file("x").parent, folders.hierarchical_file("x").parent.with_name("tinyclip_20x")
    shutil.copytree(low, high)
    before = files_below(task.features)
    faults = faults_of(
        ["--data_root_dir", task.root / "features", "--task", "simulated", "--feature_extractor", "tinyclip",
         "--output-dir", low, "--overwrite"], "create_hierarchical_features",
    )  # fmt: skip
    assert {fault.code for fault in faults} == {"output.is_input"} and len(faults) == 20
    assert files_below(task.features) == before


def test_a_page_replaces_no_page_of_a_slide(
    task: SimulatedTask, results: Path, faults_of: FaultsOf, tmp_path: Path
) -> None:
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / f"{SLIDE}.html"
    page.write_text("a page")
    options = [task.run_folder(results), "--output", page, "--explanations", page.parent]
    (fault,) = faults_of(options, "results_page")
    check_fault(fault, "output.is_input", f"--output {page}")
    assert page.read_text() == "a page"


def test_a_run_replaces_no_split_that_it_reads(task: SimulatedTask, results: Path, faults_of: FaultsOf) -> None:
    run = task.run_folder(results)
    options = task.options(results, "--max_epochs", "1", "--split_dir", str(run), "--resume")
    before = files_below(run)
    faults = faults_of(options)
    assert {fault.code for fault in faults} == {"output.is_input"}
    assert files_below(run) == before


def test_a_table_is_not_its_manifest(faults_of: FaultsOf, tmp_path: Path) -> None:
    options = ["--task", "T", "--gdc", "--output", tmp_path / "x.csv", "--manifest", tmp_path / "." / "x.csv"]
    (fault,) = faults_of(options, "create_dataset_csv")
    assert fault.code == "output.same_file"


# ---- what killed ones left -------------------------------------------------------------------------------------------


def test_the_next_run_removes_what_a_killed_one_left(
    task: SimulatedTask, results: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = task.run_folder(results)
    left = run / ".resume_1.pt.01234567.writing"
    write_text(run / "x", "")
    left.write_bytes(b"half")
    (run / "fold_1.json").unlink()
    monkeypatch.setattr(utils.whole_files, "_swept", set())
    assert run_main(task.options(results, "--max_epochs", "1", "--resume"))[0] == 0
    assert not left.exists() and (run / "fold_1.json").exists()
