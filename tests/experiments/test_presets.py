"""presets.yaml: the rows, data sets, extractors and shots of the paper's tables and figures."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import main
from experiments.grid import expand, read_presets
from tests.conftest import SHARED
from tests.support.faults import check_fault, expect_faults
from utils.config import OPTIONS, Config
from utils.presets import PRESETS, Preset, read_preset_file

BASE = {"data_root_dir": ["DATA"]}
ALL_TASKS, ALL_EXTRACTORS = ("tcga_nsclc", "tcga_brca", "tcga_rcc"), ("plip", "quiltnet", "conch")
TWO_TASKS = ALL_TASKS[:2]
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "table1": (ALL_TASKS, ALL_EXTRACTORS),
    "table2": (TWO_TASKS, ("plip",)),
    "table3": (ALL_TASKS, ("quiltnet",)),
    "table8": (("camelyon16",), ("conch",)),
    "table10": (TWO_TASKS, ("conch",)),
    "table11": (TWO_TASKS, ("conch",)),
    "table12": (TWO_TASKS, ("quiltnet",)),
    "table13": (TWO_TASKS, ("plip",)),
    "table14": (TWO_TASKS, ("conch",)),
    "table15": (TWO_TASKS, ("quiltnet",)),
    "table16": (TWO_TASKS, ("plip",)),
    "figure3": (ALL_TASKS, ALL_EXTRACTORS),
    "figure4": (TWO_TASKS, ("plip", "quiltnet")),
    "figure6": (TWO_TASKS, ("plip",)),
    "figure8": (("tcga_brca",), ("plip",)),
}
ADDED: dict[str, dict[str, dict[str, str]]] = {
    "table13": {
        "MLP / MLP": {"intra_aggregator": "mlp", "hier_aggregator": "mlp"},
        "Attention / Attention": {"intra_aggregator": "attention", "hier_aggregator": "attention"},
        "Graph / MLP": {"hier_aggregator": "mlp"},
        "Graph / Attention": {"hier_aggregator": "attention"},
        "Graph / HGNN (HiVE-MIL)": {},
    },
    "table14": {"(a) low": {"instances": "low"}, "(b) high": {"instances": "high"}, "(c) both (HiVE-MIL)": {}},
}
FIGURES = {"figure3": "curves", "figure4": "scatter", "figure6": "bars", "figure8": "grid"}
COLUMNS = {
    "table2": ["acc", "f1"],
    "table3": ["acc", "f1"],
    "table15": ["filtered_low", "filtered_high", "f1"],
    "figure4": ["hit_ratio", "f1"],
    "figure8": ["auc"],
}
NAMES = list(read_preset_file())


def texts(row: dict[str, Any]) -> dict[str, list[str]]:
    """The values of options as texts."""
    return {name: [str(one) for one in (value if isinstance(value, list) else [value])] for name, value in row.items()}


def test_the_paper_has_these_tables_and_figures() -> None:
    assert list(PLACES) == NAMES
    assert [table.preset for table in read_presets(["table2", "figure4", "table2"])] == ["table2", "figure4"]
    with expect_faults("preset.unknown") as faults:
        read_presets(["table99"])
    assert "table99" in faults[0].where and "table13" in faults[0].expected


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_the_specification(name: str) -> None:
    file = SHARED / "spec" / "presets_corrected.yaml"
    if not file.is_file():
        pytest.skip("the specification (../shared/spec) is not here")
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    (table,) = read_presets([name])
    rows = told[name]["runs"] if name in told else ADDED[name]
    assert list(table.runs.items()) == [(label, texts(row)) for label, row in rows.items()]
    options = texts(told.get(name, {}).get("options", {}))
    assert {option: (table.options or {})[option] for option in options} == options
    assert name not in told or read_preset_file()[name].about == told[name]["about"]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_alone_is_the_papers_grid(name: str) -> None:
    (table,) = read_presets([name])
    runs = expand(BASE, [table], Path("R"))
    tasks, extractors = PLACES[name]
    shots = (4, 8, 16) if name == "figure3" else (16,)
    places = [(task, extractor, count) for task in tasks for extractor in extractors for count in shots]
    by_row: dict[str, list[tuple[str, str, int]]] = {}
    for run in runs:
        place = (run.config.task, run.config.feature_extractor, run.config.few_shot_num)
        by_row.setdefault(run.label, []).append(place)
    assert all(found == places for found in by_row.values())
    grid = [f"top-k, top_k_low {low}, top_k_high {high}" for low in (2, 5, 10) for high in (50, 100, 200)]
    assert list(by_row) == (grid if name == "figure8" else list(table.runs))
    assert len({run.config for run in runs}) == len(runs)  # no row twice
    assert all(Config(**main.parse(run.argv())[1]) == run.config for run in runs)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_given_replaces_the_papers_places(name: str) -> None:
    given = {**BASE, "task": ["mine"], "feature_extractor": ["uni"], "few_shot_num": ["2"]}
    runs = expand(given, read_presets([name]), Path("R"))
    assert {(run.config.task, run.config.feature_extractor, run.config.few_shot_num) for run in runs} == {
        ("mine", "uni", 2)
    }
    # the model as it is, is among the rows
    differing = [set(run.record(Path("R"))["options"]) for run in runs if run.config.model_type == "HiVE_MIL"]
    assert set() in differing or differing[-1] == {"LLM"}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("table1", "model_type"), ("table2", "htcl"), ("table10", "text_format"), ("table14", "instances"),
        ("figure4", "hier_direction"),
    ],
)  # fmt: skip
def test_a_preset_covers_all_choices_of_its_option(name: str, option: str) -> None:
    runs = expand({**BASE, "task": ["t"], "feature_extractor": ["plip"]}, read_presets([name]), Path("R"))
    assert {getattr(run.config, option) for run in runs} == set(OPTIONS[option].choices or ())
    others = OPTIONS.keys() - {option, "results_dir", "two_scale"}
    without_effect = {"htcl", "contrastive_lambda", "hier_aggregator", "hier_direction", "scales", "top_k_low"}
    others -= without_effect if name == "table14" else set()
    assert all(len({getattr(run.config, other) for run in runs}) == 1 for other in others)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_its_report_shows(name: str) -> None:
    report = read_preset_file()[name].report
    assert report.columns == COLUMNS.get(name, ["acc", "auc", "f1"])
    assert report.figure == FIGURES.get(name)
    tables = {"figure3": ["1"], **{f"figure{n}": [] for n in (4, 6, 8)}}
    assert report.published == tables.get(name, [name.removeprefix("table")])
    assert report.also == (["9"] if name == "table1" else [])


def test_no_row_is_a_guess() -> None:
    assert "options' help" not in PRESETS.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ the file's form


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- table1", "object"),
        ("mine: {runs: {a: {}}}", "about"),
        ("mine: {about: x}", "runs"),
        ("mine: {about: x, runs: {a: {}}, report: {figure: pie}}", "report.figure"),
        ("mine: {about: x, runs: {a: {}}, report: {columns: auc}}", "report.columns"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "presets.yaml"
    file.write_text(text)
    with expect_faults("preset.form") as faults:
        read_preset_file(file)
    check_fault(faults[0], "preset.form", file, words)


def test_a_preset_needs_no_report(tmp_path: Path) -> None:
    file = tmp_path / "presets.yaml"
    file.write_text("mine: {about: x, runs: {a: {lr: 1}}}")
    assert read_preset_file(file)["mine"].report.columns == ["acc", "auc", "f1"]


def test_the_place_of_a_row() -> None:
    preset = Preset("x", {"b": {}, "a": {}, "a, 1": {}})
    labels = ["other", "a, 1, lr 2", "a, 1", "a, lr 1", "a", "b", "bb"]
    assert [preset.place_of(label) for label in labels] == [3, 2, 2, 1, 1, 0, 3]
