"""Grids: which runs come of which options, and where they lie."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import main
from experiments.grid import GridRun, Rows, expand, read_grid, replaced_by_rows
from utils.config import OPTIONS, Config
from utils.errors import Fault, UserError

BASE = {"task": ["t"], "data_root_dir": ["DATA"]}
PLAIN = [Rows({"": {}})]
CHOICES = {name: set(told.choices or ()) for name, told in OPTIONS.items()}


def faults_of_grid(*arguments: Any) -> list[Fault]:
    with pytest.raises(UserError) as caught:
        expand(*arguments)
    return caught.value.faults


def written(folder: Path, text: str) -> Path:
    file = folder / "grid.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def by_main(run: GridRun) -> Config:
    return Config(**main.parse(run.argv())[1])


# ------------------------------------------------------------------------------------------------ expanding


def test_every_combination_once() -> None:
    seeds, shots, models = ["1", "2", "3"], ["4", "16"], ["HiVE_MIL"]
    runs = expand({**BASE, "seed": seeds, "few_shot_num": shots, "model_type": models}, PLAIN, Path("R"))
    found = sorted((run.config.seed, run.config.few_shot_num) for run in runs)
    assert found == [(seed, shot) for seed in (1, 2, 3) for shot in (4, 16)]
    assert {run.label for run in runs} == {"HiVE_MIL"}
    assert len({run.config.run_path() for run in runs}) == 6


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "htcl": st.lists(st.sampled_from(sorted(CHOICES["htcl"])), min_size=1, max_size=2, unique=True),
            "tgdf": st.lists(st.sampled_from(sorted(CHOICES["tgdf"])), min_size=1, max_size=2, unique=True),
            "filter_alpha": st.lists(st.floats(-2, 2), min_size=1, max_size=2, unique_by=lambda x: x + 0.0),
            "lr": st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=2, unique=True),
            "early_stopping": st.lists(st.booleans(), min_size=1, unique=True),
            "seed": st.lists(st.integers(-5, 99), min_size=1, max_size=2, unique=True),
            "top_k_low": st.lists(st.integers(1, 9), min_size=1, max_size=2, unique=True),
            "LLM": st.lists(st.sampled_from(["builtin", "gpt4o", "a b"]), min_size=1, unique=True),
        },
    )
)
def test_main_reads_the_options_as_the_grid_means_them(options: dict[str, list[Any]]) -> None:
    spelt = {name: [str(value) for value in values] for name, values in options.items()}
    runs = expand({**BASE, **spelt}, PLAIN, Path("R"))
    wanted = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    for values in wanted:  # options that another one switches off have their defaults
        if values.get("tgdf") == "none" and "filter_alpha" in values:
            values["filter_alpha"] = Config.filter_alpha
    read = [by_main(run) for run in runs]
    found = [{name: getattr(config, name) for name in options} for config in read]
    assert {*map(repr, found)} == {*map(repr, wanted)}
    assert read == [run.config for run in runs]
    # no two runs in one folder, as far as main.py's record of a run tells them apart
    assert len({run.config.run_path() for run in runs}) == len({run.config for run in runs})
    # the defaults lie where main.py itself puts them; every other setting in a folder of its own
    for run in runs:
        changed = {name for name in options if getattr(run.config, name) != getattr(Config(), name)} - {"seed"}
        depth = len(run.config.run_path().relative_to("R").parts)
        assert depth == (5 if changed else 4)


def test_folder_of_a_setting() -> None:
    options = {**BASE, "early_stopping": ["True"], "htcl": ["none"], "LLM": ["a b"], "device": ["cpu"], "seed": ["7"]}
    (run,) = expand(options, PLAIN, Path("R"))
    assert run.config.run_path() == Path("R/LLM=a b,early_stopping,htcl=none/t/plip/16/t_plip_HiVE_MIL_16_s7")


def test_what_varies_stands_in_the_label() -> None:
    rows = Rows({"row": {"htcl": ["none"], "lr": ["0.1"]}}, "table")
    options = {**BASE, "filter_alpha": ["0", "1"], "lr": ["0.2", "0.3"], "seed": ["1", "2"]}
    runs = expand(options, [rows], Path("R"))
    assert [(run.label, run.config.seed) for run in runs] == [
        ("row, filter_alpha 0", 1), ("row, filter_alpha 0", 2), ("row, filter_alpha 1", 1), ("row, filter_alpha 1", 2)
    ]  # fmt: skip
    assert {run.config.lr for run in runs} == {0.1}  # a row's own options cannot be replaced


def test_rows_that_take_the_place_of_what_is_given_are_named() -> None:
    tables = [Rows({"a": {"htcl": ["none"]}, "b": {"lr": ["1"]}, "c": {"htcl": ["none"]}}, "table2"), Rows({"d": {}})]
    (note,) = replaced_by_rows(["htcl", "seed"], tables)
    assert "htcl" in note and "table2: a, c" in note


def test_options_without_effect_make_no_runs_of_their_own() -> None:
    """The first model reads the option, the other one does not; nor does the first where another option says so."""
    options = {**BASE, "model_type": ["HiVE_MIL", "ABMIL"], "filter_alpha": ["0", "1"]}
    runs = expand(options, PLAIN, Path("R"))
    assert [(run.config.model_type, run.config.filter_alpha) for run in runs] == [
        ("HiVE_MIL", 0), ("HiVE_MIL", 1), ("ABMIL", 0.5), ("ABMIL", 0.5)
    ]  # fmt: skip
    assert len({run.config.run_path() for run in runs}) == 3
    runs = expand({**options, "tgdf": ["none"]}, PLAIN, Path("R"))
    assert len({run.config.run_path() for run in runs}) == 2


def test_a_tables_own_values_can_be_replaced() -> None:
    table = Rows({"row": {}}, "table", {"few_shot_num": ["4", "8"]})
    assert {run.config.few_shot_num for run in expand(BASE, [table], Path("R"))} == {4, 8}
    assert {run.config.few_shot_num for run in expand({**BASE, "few_shot_num": ["2"]}, [table], Path("R"))} == {2}


def test_paths_take_up_other_options() -> None:
    options = {
        "task": ["a", "b"], "data_root_dir": ["D"], "few_shot_num": ["4", "8"],
        "split_dir": ["S/{task}_{few_shot_num}"],
        "vlm_path": ["V/{feature_extractor}"], "LLM": ["{task}"],
    }  # fmt: skip
    runs = expand(options, PLAIN, Path("R"))
    assert [run.config.split_dir for run in runs] == ["S/a_4", "S/a_8", "S/b_4", "S/b_8"]
    assert {run.config.vlm_path for run in runs} == {"V/plip"}  # main.py's default
    assert {run.config.LLM for run in runs} == {"{task}"}  # no path
    for pattern in ("S/{tusk}", "S/{", "S/{0}"):
        (fault,) = faults_of_grid({**options, "split_dir": [pattern]}, PLAIN, Path("R"))
        assert fault.code == "grid.pattern"


@pytest.mark.parametrize("option", ["data_root_dir", "vlm_path", "dataset_csv", "split_dir", "text_prompt"])
def test_every_path_takes_up_the_task(option: str) -> None:
    (run,) = expand({**BASE, option: ["P/{task}"]}, PLAIN, Path("R"))
    assert getattr(run.config, option) == "P/t"


def test_rows_of_two_tables_that_are_one_run() -> None:
    tables = [Rows({"whole": {}, "none": {"htcl": ["none"]}}, "x"), Rows({"all": {"htcl": ["class_wise"]}}, "y")]
    runs = expand(BASE, tables, Path("R"))
    assert [(run.label, run.preset) for run in runs] == [("whole", "x"), ("none", "x"), ("all", "y")]
    assert runs[0].config == runs[2].config != runs[1].config


def test_record() -> None:
    options = {**BASE, "htcl": ["none"], "few_shot_num": ["4"], "device": ["cpu"], "early_stopping": ["True"]}
    (run,) = expand(options, [Rows({"w/o HTCL": {}}, "table2")], Path("R"))
    assert run.record(Path("R")) == {
        "label": "w/o HTCL", "preset": "table2", "task": "t", "feature_extractor": "plip", "model_type": "HiVE_MIL",
        "shots": 4, "seed": 1, "path": "early_stopping,htcl=none/t/plip/4/t_plip_HiVE_MIL_4_s1",
        "options": {"htcl": "none", "early_stopping": True},
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ mistakes


def test_all_faults_of_values_at_once() -> None:
    options = {**BASE, "few_shot_num": ["four", "0", "4"], "htcl": ["some"], "seed": ["1", "2"]}
    faults = faults_of_grid(options, PLAIN, Path("R"))
    assert [fault.code for fault in faults] == ["option.value"] * 3
    assert all(any(word in fault.found for fault in faults) for word in ("'four'", "0 is less", "'some'"))


def test_task_and_features_are_needed() -> None:
    found = [(fault.code, fault.where) for fault in faults_of_grid({}, PLAIN, Path("R"))]
    assert found == [("option.missing", "--task"), ("option.missing", "--data_root_dir")]


def test_two_runs_never_share_a_folder() -> None:
    (fault,) = faults_of_grid({**BASE, "split_dir": ["A", "B"]}, PLAIN, Path("R"))
    assert fault.code == "grid.shared_folder"
    assert "t_plip_HiVE_MIL_16_s1" in fault.where and "split_dir" in fault.found


# ------------------------------------------------------------------------------------------------ files


def test_grid_file(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        task: [a, b]
        few-shot-num: [4, 16]
        lr: 1e-3
        early_stopping: true
        preset: table2
        runs:
          none: {htcl: none, filter_alpha: [0, 0.5]}
        """,
    )
    options, presets, rows = read_grid(file)
    assert options == {"task": ["a", "b"], "few_shot_num": ["4", "16"], "lr": ["1e-3"], "early_stopping": ["True"]}
    assert presets == ["table2"]
    assert rows == Rows({"none": {"htcl": ["none"], "filter_alpha": ["0", "0.5"]}})
    runs = expand({**options, "data_root_dir": ["D"]}, [rows], Path("R"))
    assert len(runs) == 8 and all(run.config.early_stopping and run.config.lr == 0.001 for run in runs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tusk: a", ["option.unknown: tusk"]),
        ("k_start: 1\nresume: true", ["grid.own_option: k_start", "grid.own_option: resume"]),
        ("task:\nseed: {a: 1}", ["grid.form: found None", "grid.form: found {'a': '1'}"]),
        ("seed: [1, [2]]", ["grid.form: found ['1', ['2']]"]),
        ("runs: [a]", ["grid.form: found ['a']"]),
        ("runs: {}", ["grid.form: found {}"]),
        ("runs:", ["grid.form: found None"]),
        ("top-k-low: 1\ntop_k_low: 2", ["grid.repeated_option: an option stands there twice"]),
        ("runs: {a: 3}\ntusk: 1", ["grid.form: found '3'", "option.unknown: tusk"]),
        ("- a", ["grid.form: found a list"]),
        ("a: [", ["yaml.unreadable: not valid YAML"]),
        ("", ["grid.form: found a NoneType"]),
    ],
)
def test_faults_of_a_grid_file(tmp_path: Path, text: str, expected: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_grid(file)
    assert len(caught.value.faults) == len(expected)
    for fault, words in zip(caught.value.faults, expected, strict=True):
        assert f"{fault.code}: {fault.found}".startswith(words) and str(file) in fault.where


@pytest.mark.parametrize("name", ["results_dir", "resume", "dry_run", "k_start", "k_end"])
def test_what_every_fold_gets_cannot_stand_in_a_grid(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} cannot stand in a grid") as caught:
        read_grid(written(tmp_path, f"{name}: 1"))
    assert [fault.code for fault in caught.value.faults] == ["grid.own_option"]


def test_a_missing_grid_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_grid(tmp_path / "grid.yaml")
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("grid.missing", str(tmp_path / "grid.yaml"))
