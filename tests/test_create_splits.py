"""create_splits.py: what it writes, that it repeats itself, what it refuses, and main.py's use of it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import create_splits
from datasets.splits import read_split_ids
from tests.conftest import PROJECT, RunMain, SimulatedTask
from tests.support.run_contents import files_below
from tests.support.split_tables import audited, options, table_fixture  # noqa: F401

PARTS = ("train", "val", "test")
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
# patients shared in the released splits, by fold, as ../shared/released_assets/README.md counts them
TRAIN_TEST = {"tcga_nsclc": [3, 2, 2, 1, 5], "tcga_rcc": [1, 2, 2, 2, 1], "tcga_brca": [1, 0, 0, 0, 0]}
VAL_TEST = {"tcga_nsclc": [18, 13, 12, 18, 15], "tcga_rcc": [8, 11, 10, 8, 4], "tcga_brca": [5, 1, 3, 3, 0]}


# ---- what is written -------------------------------------------------------------------------------------------------


def test_files_have_the_released_form(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    code, output, _ = run_main(options(table, tmp_path, "--few_shot_num", "4", "2"), "create_splits")
    assert code == 0
    names = [
        f"made_{shots}/{file}" for shots in (2, 4) for file in ("manifest.json", *(f"splits_{k}.csv" for k in range(3)))
    ]
    assert sorted(files_below(tmp_path)) == names
    assert f"written: {tmp_path / 'made_4'}" in output
    for shots in (2, 4):
        for fold in range(3):
            lines = (tmp_path / f"made_{shots}" / f"splits_{fold}.csv").read_text().split("\n")
            assert lines[0] == ",train,val,test"
            assert lines[-1] == ""
            cells = [line.split(",") for line in lines[1:-1]]
            assert [row[0] for row in cells] == [str(number) for number in range(len(cells))]
            assert {len(row) for row in cells} == {4}
            for column in range(1, 4):
                filled = [bool(row[column]) for row in cells]
                assert filled == sorted(filled, reverse=True), "blanks only pad the end of a column"
            assert sum(bool(row[1]) for row in cells) == 2 * shots


def test_the_manifest_says_what_the_files_hold(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    more = ["--few-shot-num", "3", "--seed", "7", "--group", "site", "--exclude-normals", "--balanced_val", "9"]
    code, output, _ = run_main(options(table, tmp_path, *more), "create_splits")
    assert code == 0
    manifest = json.loads((tmp_path / "made_3" / "manifest.json").read_text())
    assert manifest["options"] == {
        "few_shot_num": 3,
        "k": 3,
        "seed": 7,
        "group": "site",
        "balanced_val": 9,
        "balanced_test": None,
        "exclude_normals": True,
    }
    assert manifest["dataset_csv"] == {"file": "made.csv", "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
    assert manifest["left_out"] == {"without_label": 0, "normal_tissue": {"A": 0, "B": 5}}
    assert "left out, normal tissue: A 0, B 5" in output
    labels = pd.read_csv(table).set_index("slide_id")["label"]
    assert [record["fold"] for record in manifest["folds"]] == [0, 1, 2]
    for record in manifest["folds"]:
        file = tmp_path / "made_3" / f"splits_{record['fold']}.csv"
        assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        columns = pd.read_csv(file, index_col=0)
        ids = {name: columns[name].dropna() for name in PARTS}
        for name in PARTS:
            assert record["slides"][name] == labels[ids[name]].value_counts().sort_index().to_dict()
        assert record["slides"]["train"] == {"A": 3, "B": 3}
        assert record["slides"]["val"] == {"A": 9, "B": 9}
        for kind, end in (("patients", 12), ("sites", 7)):
            for first, second in PAIRS:
                shared = set(ids[first].str[:end]) & set(ids[second].str[:end])
                assert record[f"shared_{kind}"][f"{first}/{second}"] == len(shared) == 0
        assert not columns.stack().str.contains("-11A").any()


def test_shots_are_nested_and_the_rest_is_the_same(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    assert run_main(options(table, tmp_path, "--few_shot_num", "2", "4", "16"), "create_splits")[0] == 0
    assert run_main(options(table, tmp_path / "alone", "--few_shot_num", "4"), "create_splits")[0] == 0
    assert files_below(tmp_path / "alone" / "made_4") == files_below(tmp_path / "made_4")
    for fold in range(3):
        two, four, sixteen = (read_split_ids(tmp_path / f"made_{n}" / f"splits_{fold}.csv") for n in (2, 4, 16))
        assert set(two["train"]) < set(four["train"]) < set(sixteen["train"])
        assert (two["val"], two["test"]) == (sixteen["val"], sixteen["test"])


def test_the_second_run_is_the_same_in_another_process(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    more = ("--few_shot_num", "4", "--group", "site")
    assert run_main(options(table, tmp_path / "first", *more), "create_splits")[0] == 0
    before = files_below(tmp_path / "first")
    assert run_main(options(table, tmp_path / "first", *more), "create_splits")[0] == 0
    assert files_below(tmp_path / "first") == before
    command = [sys.executable, "create_splits.py", *options(table, tmp_path / "second", *more)]
    subprocess.run(command, cwd=PROJECT, env={**os.environ, "PYTHONHASHSEED": "1"}, check=True, capture_output=True)
    assert files_below(tmp_path / "second") == before


def test_the_order_of_the_rows_does_not_matter(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "made.csv"
    pd.read_csv(table).sample(frac=1, random_state=5).to_csv(shuffled, index=False)
    for file, name in ((table, "a"), (shuffled, "b")):
        assert run_main(options(file, tmp_path / name, "--few_shot_num", "4"), "create_splits")[0] == 0
    one, other = files_below(tmp_path / "a"), files_below(tmp_path / "b")
    assert one.pop("made_4/manifest.json") != other.pop("made_4/manifest.json")  # the table's sha256
    assert one == other


def test_seeds_and_folds_differ(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        assert run_main(options(table, tmp_path / seed, "--few_shot_num", "4", "--seed", seed), "create_splits")[0] == 0
    files = [file.read_bytes() for file in tmp_path.rglob("splits_*.csv")]
    assert len(files) == len(set(files)) == 6


def test_slides_without_label_are_left_out(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    rows.loc[:9, "label"] = ""
    rows.to_csv(tmp_path / "made.csv", index=False)
    code, output, _ = run_main(options(tmp_path / "made.csv", tmp_path, "--few_shot_num", "4"), "create_splits")
    assert code == 0
    assert "left out, without a label: 10" in output
    assert "note: normal tissue among the slides: A 0, B " in output
    written = " ".join(read_split_ids(tmp_path / "made_4" / "splits_0.csv")["val"])
    assert not any(slide_id in written for slide_id in rows["slide_id"][:10])
    arguments = ["--audit", str(tmp_path), "--dataset_csv", str(tmp_path / "made.csv")]
    counts = audited(run_main(arguments, "create_splits")[1])["made_4"]["counts"]
    assert sum(int(row[2]) for row in counts if row[0] == "0") == 190


def test_names_and_places_by_default(
    run_main: RunMain, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("create_splits", "datasets.split_report", "utils.config"):
        monkeypatch.setattr(f"{module}.PROJECT", tmp_path)
    (tmp_path / "dataset_csv").mkdir()
    (tmp_path / "dataset_csv" / "made.csv").write_bytes(table.read_bytes())
    assert run_main(["--task", "made"], "create_splits")[0] == 0
    assert sorted(file.name for file in (tmp_path / "splits" / "made").iterdir()) == ["made_16", "made_4", "made_8"]
    assert len(list((tmp_path / "splits" / "made" / "made_8").glob("splits_*.csv"))) == 5
    assert run_main(["--audit", str(tmp_path / "splits")], "create_splits")[0] == 0


def test_shared_patients_and_patients_of_one_slide_are_told(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    code, output, _ = run_main(options(table, tmp_path / "slide", "--group", "slide"), "create_splits")
    assert code == 0
    assert "warning: patients with slides in two splits" in output
    rows = pd.read_csv(table)
    rows.assign(slide_id=rows["slide_id"].str.lower()).to_csv(tmp_path / "made.csv", index=False)
    code, output, _ = run_main(options(tmp_path / "made.csv", tmp_path / "lower"), "create_splits")
    assert code == 0
    assert "is case_id the patient?" in output
    cases = ["", "", "", "p", "p"] + [f"p{number}" for number in range(len(rows) - 5)]
    rows.assign(slide_id=rows["slide_id"].str.lower(), case_id=cases).to_csv(tmp_path / "made.csv", index=False)
    code, output, _ = run_main(options(tmp_path / "made.csv", tmp_path / "gaps"), "create_splits")
    assert code == 0
    assert "note: 3 slides without a case_id, each counts as a patient" in output


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_other_splits_are_kept_unless_overwritten(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made_4"
    first = options(table, tmp_path, "--few_shot_num", "4")
    second = options(table, tmp_path, "--few_shot_num", "2", "4", "--seed", "9", "--k", "2")
    assert run_main(first, "create_splits")[0] == 0
    (folder / "notes.txt").write_text("mine")
    before = files_below(tmp_path)
    code, _, errors = run_main(second, "create_splits")
    assert code == 2
    assert f"{folder}: found other splits ('splits_0.csv', 'splits_1.csv', 'splits_2.csv'" in errors
    assert "--overwrite" in errors
    assert files_below(tmp_path) == before, "nothing is written, made_2 neither"
    assert run_main([*second, "--overwrite"], "create_splits")[0] == 0
    assert sorted(file.name for file in folder.iterdir()) == [
        "manifest.json",
        "notes.txt",
        "splits_0.csv",
        "splits_1.csv",
    ]
    assert run_main(second, "create_splits")[0] == 0


def test_what_an_interrupted_run_left_is_completed(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    arguments = options(table, tmp_path, "--few_shot_num", "4")
    assert run_main(arguments, "create_splits")[0] == 0
    before = files_below(tmp_path)
    (tmp_path / "made_4" / "manifest.json").unlink()
    (tmp_path / "made_4" / "splits_2.csv").unlink()
    assert run_main(arguments, "create_splits")[0] == 0
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--few_shot_num", "40", "50"], "class 'B': found"),
        (["--balanced-test", "50"], "error: 2 faults"),
        (["--dataset-csv", "nowhere.csv"], "nowhere.csv: the table of slides is not there"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(
    run_main: RunMain, table: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    code, _, errors = run_main(options(table, tmp_path, *more), "create_splits")
    assert code == 2
    assert message in errors
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("given", [["4", "40"], ["50", "4", "40", "2"]])
def test_the_numbers_of_shots_that_are_possible_are_written(
    run_main: RunMain, table: Path, tmp_path: Path, given: list[str]
) -> None:
    possible = [shots for shots in given if shots in ("2", "4")]
    assert run_main(options(table, tmp_path / "alone", "--few_shot_num", *possible), "create_splits")[0] == 0
    code, output, _ = run_main(options(table, tmp_path / "all", "--few_shot_num", *given), "create_splits")
    assert code == 0
    assert files_below(tmp_path / "all") == files_below(tmp_path / "alone")
    for shots in set(given) - set(possible):
        told = output.split(f"not written, {shots} shots:")[1].split("not written")[0]
        assert "class 'B': found 30 slides" in told and f"expected {shots}: " in told


def test_sites_must_be_known(run_main: RunMain, simulated: SimulatedTask, tmp_path: Path) -> None:
    table = simulated.root / "simulated.csv"
    code, _, errors = run_main(options(table, tmp_path, "--group", "site"), "create_splits")
    assert code == 2
    assert f"{table}: 20 slides without a site ('SIM-0000', 'SIM-0001', " in errors
    assert "'SIM-0004' and 15 more); found the columns 'case_id'" in errors
    with_sites = tmp_path / "sites.csv"
    pd.read_csv(table).assign(site=[f"S{number % 7}" for number in range(20)]).to_csv(with_sites, index=False)
    assert run_main(options(with_sites, tmp_path, "--group", "site", "--few_shot_num", "3"), "create_splits")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        *("", "--k 3", "--audit . --k 3", "--task t --k 0", "--task t --seed -1", "--task t --few_shot_num 0"),
        *("--task t --few_shot_num", "--task t --group hospital", "--task t --shots 4"),
    ],
)
def test_wrong_options_are_refused(run_main: RunMain, arguments: str) -> None:
    assert run_main(arguments.split(), "create_splits")[0] == 2


def test_every_option_has_both_spellings() -> None:
    for name in ("dataset_csv", "output_dir", "few_shot_num", "balanced_test", "balanced_val"):
        for spelling in (name, name.replace("_", "-")):
            assert name in create_splits.parse(["--task", "t", f"--{spelling}", "5"])
    for spelling in ("--exclude_normals", "--exclude-normals"):
        assert create_splits.parse(["--task", "t", spelling])["exclude_normals"]


# ---- use by main.py --------------------------------------------------------------------------------------------------


def test_main_accepts_the_splits(run_main: RunMain, simulated: SimulatedTask, tmp_path: Path) -> None:
    arguments = ["--task", "simulated", "--dataset_csv", str(simulated.root / "simulated.csv")]
    made = [*arguments, "--output-dir", str(tmp_path / "splits"), "--k", "2", "--few_shot_num", "4", "2"]
    code, output, _ = run_main(made, "create_splits")
    assert code == 0
    assert "SIMULATED_A  4 (40.0 %)  3 (30.0 %)  3 (30.0 %)" in output
    for shots in ("4", "2"):
        split_dir = str(tmp_path / "splits" / f"simulated_{shots}")
        more = ("--split_dir", split_dir, "--few_shot_num", shots, "--dry_run")
        code, output, errors = run_main(simulated.options(tmp_path / "results", *more))
        assert (code, errors) == (0, "")
        assert "dry run: all checks passed" in output
        assert "warning: patients" not in output
        assert run_main(["--audit", split_dir, *arguments], "create_splits")[0] == 0
