"""run_experiments.py: grids of folds from options to results.csv, with a stand-in for main.py's folds."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import experiments.launch
import run_experiments
from tests.conftest import PROJECT, RunMain, SimulatedTask
from tests.support.made_settings import RESULT
from tests.support.stand_in import options, run_folder, stand_in_fixture, starts  # noqa: F401
from training.metrics import RESULT_COLUMNS
from utils.errors import UserError


@pytest.mark.usefixtures("stand_in")
def test_finished_folds_are_skipped(run_main: RunMain) -> None:
    code, out, err = run_main(options("--seed", "1", "5"), "run_experiments")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "2 runs, 4 folds, 0 of them finished"
    before = {path: path.stat().st_mtime_ns for path in Path("R").rglob("*") if path.is_file()}
    # the tables are made where their process was lost: the stand-in writes none
    table = pd.read_csv(run_folder(5) / "results.csv", index_col="metric")
    assert table.loc["mean", list(RESULT_COLUMNS)].tolist() == [0.125] * 6
    assert table.loc["std", list(RESULT_COLUMNS)].tolist() == [0.125] * 6
    (run_folder(1) / "fold_1.json").unlink()
    code, out, _ = run_main(options("--seed", "1", "5", "9"), "run_experiments")
    assert code == 0 and out.splitlines()[0] == "3 runs, 6 folds, 3 of them finished"
    assert [starts(run_folder(seed)) for seed in (1, 5, 9)] == [[1, 2], [1, 1], [1, 1]]
    after = {path: path.stat().st_mtime_ns for path in before}
    changed = {str(path) for path in before if after[path] != before[path]} - {
        "R/experiment.json",
        "R/.lock_experiment",
    }
    assert {Path(name).name for name in changed} == {"fold_1.json", "fold_1.log", "results.csv", "summary.csv"}
    assert all("_s1/" in name for name in changed)
    code, out, _ = run_main(options("--seed", "1", "5", "9"), "run_experiments")
    assert code == 0 and "6 of them finished" in out and starts(run_folder(1)) == [1, 2]


@pytest.mark.usefixtures("stand_in")
def test_failures_are_told_at_the_end(run_main: RunMain) -> None:
    code, out, err = run_main(options("--seed", "200", "1", "201", "--retries", "1"), "run_experiments")
    assert code == 1
    assert "2 folds failed" in err and "4 of 6 folds, 2 failed" in out
    for seed in (200, 201):
        assert f"HiVE_MIL: t_plip_HiVE_MIL_16_s{seed} fold 1" in err
        assert starts(run_folder(seed)) == [1, 1]  # a user's mistake is not tried again
        assert not (run_folder(seed) / "results.csv").exists()
    assert err.count("exit code 2; the end of") == err.count("    error: a user's mistake\n") == 1  # both end alike
    assert (run_folder(1) / "results.csv").exists()


@pytest.mark.usefixtures("stand_in")
def test_failures_that_end_alike_are_told_once(run_main: RunMain, stand_in: Path) -> None:
    (stand_in / "main.py").write_text("import sys\nprint('no space')\nsys.exit(5)")
    code, _, err = run_main(options("--retries", "1", "--seed", "1", "2"), "run_experiments")
    assert code == 1 and [starts(run_folder(seed)) for seed in (1, 2)] == [[2, 2], [2, 2]]
    assert "4 folds failed" in err and err.count("exit code 5; the end of") == err.count("    no space") == 1
    assert all(f"_s{seed} fold {fold}\n" in err for seed in (1, 2) for fold in (0, 1))


@pytest.mark.usefixtures("stand_in")
def test_results_that_other_machines_do_not_share(run_main: RunMain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.launch, "SECONDS_OF_A_SHARED_FOLDER", 0)
    code, _, err = run_main(options("--seed", "400"), "run_experiments")
    assert code == 2 and "share" in err and "fold_0.json" in err and "fold_1.json" in err


def test_dry_run(stand_in: Path, run_main: RunMain) -> None:
    (run_folder(5)).mkdir(parents=True)
    (run_folder(5) / "fold_1.json").write_text(json.dumps({**vars(RESULT), "fold": 1}))
    code, out, _ = run_main(options("--seed", "5", "--dry_run"), "run_experiments")
    command = f"  python {stand_in}/main.py --task=t --data_root_dir=D --results_dir=R/k=2 --seed=5 --k=2 --resume"
    assert code == 0 and out.splitlines()[:5] == [
        "1 runs, 2 folds, 1 of them finished",
        "waiting  HiVE_MIL: t_plip_HiVE_MIL_16_s5 fold 0",
        f"{command} --k_start=0 --k_end=1",
        "finished  HiVE_MIL: t_plip_HiVE_MIL_16_s5 fold 1",
        f"{command} --k_start=1 --k_end=2",
    ]
    assert not (Path("R") / "experiment.json").exists()


def test_a_dry_run_names_the_files_that_are_missing(run_main: RunMain, simulated: SimulatedTask) -> None:
    root = simulated.root
    files = ["--dataset_csv", str(root / "simulated.csv"), "--split_dir", str(simulated.split_dir)]
    given = [*files, "--data_root_dir", "D", "--task", "simulated", "--k", "2"]
    code, out, err = run_main(["--dry_run", "--preset", "table11", *given], "run_experiments")
    told = [line for line in out.splitlines() if line.startswith("  - ")]
    assert (code, err, len(told)) == (0, "", 4)
    classes = "--classes SIMULATED_A SIMULATED_B"
    for line, label, name in zip(
        told,
        ("DeepSeek R1", "Grok 3", "Gemini 2.5 Pro", "GPT-4o (HiVE-MIL)"),
        ("deepseek-r1", "grok-3", "gemini-2.5-pro", "gpt4o"),
        strict=True,
    ):
        assert f"text_prompt/HiVE_MIL/{name}/simulated.json: " in line and line.endswith(f"(of {label})")
        assert f"python create_text_prompt.py --task simulated {classes} --LLM {name}" in line
    code, out, _ = run_main(
        ["--dry_run", "--preset", "table2", *given, "--text_prompt", str(root / "simulated.json")], "run_experiments"
    )
    assert code == 0 and out.startswith("4 runs, 8 folds") and "  - " not in out
    files[3] = str(root / "none")
    code, out, _ = run_main(["--dry_run", "--preset", "table1", *given[4:], *files], "run_experiments")
    (split,) = [line for line in out.splitlines() if line.startswith("  - ") and "splits_" in line]
    assert "none/splits_0.csv" in split and "create_splits.py" in split and "10 more" in split


@pytest.mark.usefixtures("stand_in")
def test_grid_file_presets_and_record(run_main: RunMain) -> None:
    Path("grid.yaml").write_text("task: t\ndata_root_dir: D\nk: [1]\nseed: [1, 2]\nruns: {mine: {lr: 0.5}}\n")
    grid = ["--local", "--grid", "grid.yaml", "--results_dir", "R", "--jobs", "4"]
    assert run_main([*grid, "--seed", "7"], "run_experiments")[0] == 0
    code, out, _ = run_main(
        [*grid, "--seed", "7", "--preset", "table14", "figure4", "--feature_extractor", "plip"], "run_experiments"
    )
    assert code == 0 and out.startswith("8 runs, 7 folds, 1 of them finished")  # the whole model stands in both
    record = json.loads(Path("R/experiment.json").read_text())["runs"]
    assert sorted((entry["preset"] or "", entry["options"].get("instances", "both")) for entry in record) == [
        ("", "both"), *[("figure4", "both")] * 4, ("table14", "both"), ("table14", "high"), ("table14", "low")
    ]  # fmt: skip
    assert all((Path("R") / entry["path"] / "results.csv").exists() for entry in record)
    whole = {entry["path"] for entry in record if entry["label"].endswith("(HiVE-MIL)")}
    assert whole == {"k=1/t/plip/16/t_plip_HiVE_MIL_16_s7"}
    assert record[0]["label"] == "mine"  # the earlier grid's run, once
    assert len(record) == 8


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--local", "--address", "auto"], "--address names a cluster"),
        (["--address", "auto", "--jobs", "2"], "--address names a cluster"),
        (["--gpus_per_fold", "1.5"], "part of a GPU"),
        (["--gpus_per_fold", "-1"], "-1 is less than 0"),
        (["--k_start", "1"], "unrecognized arguments: --k_start"),
        (["--cpus_per_fold", "0"], "less than 1"),
        (["--local", "--few_shot_num", "four"], "'four' is not an integer"),
        (["--preset", "table99"], "table99"),
        (["--grid", "grid.yaml"], "grid.yaml: file not found"),
        ([], "--task: no value"),
    ],
)
def test_mistakes(stand_in: Path, run_main: RunMain, more: list[str], words: str) -> None:
    code, _, err = run_main([*more, "--data_root_dir", "D"], "run_experiments")
    assert code == 2 and words in err and "Traceback" not in err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("given", "count", "visible", "expected"),
    [
        (["--jobs", "3"], 0, None, ["", "", ""]),
        (["--jobs", "9"], 2, None, ["0", "1"]),
        (["--jobs", "1"], 2, None, ["0"]),
        (["--jobs", "9", "--gpus_per_fold", "0.5"], 2, "4,7", ["4", "7", "4", "7"]),
        (["--jobs", "9", "--gpus_per_fold", "2"], 4, None, ["0,1", "2,3"]),
        (["--jobs", "2", "--gpus_per_fold", "0"], 2, None, ["", ""]),
        (["--jobs", "2", "--gpus_per_fold", "3"], 2, None, "found 2 GPUs"),
    ],
)
def test_gpus_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, given: list[str], count: int, visible: str | None, expected: list[str] | str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    parsed, _ = run_experiments.parse(["--local", *given])
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            experiments.launch.local_shares(parsed)
    else:
        assert experiments.launch.local_shares(parsed) == [{"CUDA_VISIBLE_DEVICES": share} for share in expected]


def test_as_many_at_a_time_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    for cpus, jobs in (("1", 7), ("2", 3), ("8", 1)):
        assert len(experiments.launch.local_shares(run_experiments.parse(["--cpus_per_fold", cpus])[0])) == jobs


def test_help_is_quick() -> None:
    command = [sys.executable, "-X", "importtime", "run_experiments.py", "--help"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "--gpus_per_fold" in done.stdout and "--few_shot_num" in done.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "pandas", "numpy", "ray", "h5py", "matplotlib"}
