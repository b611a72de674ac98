"""JSON of the project's own with values of other types, also where its digests fit: told, with file and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.checks import CheckedSlide
from datasets.split_report import Manifest
from tests.support.faults import expect_faults
from tests.support.made_page import write_made_up_run
from training.fold_result import UNDEFINED
from training.metrics import GRAPH_COLUMNS
from training.prediction import KeptPredictions
from training.run_folder import RunFolder
from training.run_record import config_of
from utils.listed_runs import listed_runs, read_experiment
from utils.sealed import DIGESTS, seal, write_sealed
from utils.typed import mistakes

OTHERS: list[Any] = [None, [], {}, "", "5", 5, 1.5, True, [None], [[]], {"a": None}]
JUNK = [value for value in OTHERS if not isinstance(value, bool)]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two folds, both finished. Read only."""
    return write_made_up_run(tmp_path_factory.mktemp("runs") / "run", ["A", "B"], 2, [0, 1])


def is_of_type(value: Any, like: Any) -> bool:
    """Whether a value might stand where ``like`` does: of the same kind, or an integer for a float."""
    return type(value) is type(like) or (isinstance(like, float) and type(value) is int)


def places(value: Any, steps: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in an object and in the objects within it."""
    if not isinstance(value, dict):
        return [steps]
    return [steps, *(place for name, member in value.items() for place in places(member, (*steps, name)))]


def changed(content: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The content with another value at a place."""
    if not place:
        return new
    return {**content, place[0]: changed(content[place[0]], place[1:], new)}


def wrong_types(content: Any, free: Callable[[tuple[Any, ...]], bool] = lambda place: False) -> list[tuple[Any, ...]]:
    """(place, value) of every value of another type. free: places that may hold anything, or nothing."""
    found = []
    for place in places(content):
        here = content
        for step in place:
            here = here[step]
        if not free(place):
            found += [(place, new) for new in OTHERS if not is_of_type(new, here)]
    return found


def refusals(made_up: RunFolder, tmp_path: Path, name: str, read: Callable[[RunFolder], object]) -> list[str]:
    """The changes of a file that are read all the same, sealed anew."""
    content = {key: value for key, value in json.loads((made_up.path / name).read_text()).items() if key != DIGESTS}
    defaults = {"num_threads", "feature_dim", "run", "files", "vlm_path", "dataset_csv", "split_dir", "text_prompt"}
    defaults |= {"features_from"}
    optional = defaults | {"device", "cache_gb", "assume_model", "features_model"}
    passed = []
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for file in made_up.path.iterdir():
        if file.is_file():
            (folder.path / file.name).write_bytes(file.read_bytes())
    for place, new in wrong_types(content, lambda place: bool(place) and place[-1] in optional):
        value = changed(content, place, new)
        if isinstance(value, dict):
            write_sealed(folder.path / name, value)
        else:
            (folder.path / name).write_text(json.dumps(value))
        try:
            read(folder)
            passed.append(f"{'.'.join(place)} = {new!r}")
        except Exception as error:
            assert type(error).__name__ == "UserError", f"{place} = {new!r}: {error!r}"
            assert all(str(folder.path) in fault.where for fault in error.faults)  # type: ignore[attr-defined]
    return passed


def test_the_record_of_a_run(made_up: RunFolder, tmp_path: Path) -> None:
    assert refusals(made_up, tmp_path, "config.json", lambda run: run.record()) == ["options.LLM = None"]  # the default


def test_the_result_of_a_fold(made_up: RunFolder, tmp_path: Path) -> None:
    """A measure of the fold may be null: it has no value where the slides are of one class."""
    accepted = refusals(made_up, tmp_path, "fold_0.json", lambda run: run.finished(0))
    of_graph = set(GRAPH_COLUMNS)  # the fold has none of these
    numbers = {f"{name} = {value}" for name in of_graph for value in (1.5, 5)}
    assert set(accepted) == {f"{name} = None" for name in UNDEFINED - of_graph} | numbers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0), ("k", 10**9), ("k", -1), ("max_epochs", 0), ("lr", float("nan")), ("lr", -1.0), ("seed", 2**70),
        ("low_mag", 0), ("bag_weight", 1.5), ("num_workers", 10**9),
    ],
)  # fmt: skip
def test_recorded_options_that_main_does_not_take(made_up: RunFolder, tmp_path: Path, name: str, value: object) -> None:
    content = json.loads(made_up.config.read_text())
    folder = RunFolder(tmp_path)
    folder.config.write_text(json.dumps(seal(changed(content, ("options", name), value))))
    with expect_faults("run.unreadable") as faults:
        folder.record()
    assert f"options.{name}: " in faults[0].found and faults[0].where == str(folder.config)


@pytest.mark.parametrize(("name", "value"), [("model_type", "Other"), ("precision", "fp8"), ("opt", ""), ("k", 0)])
def test_recorded_choices_that_this_version_does_not_know(name: str, value: object) -> None:
    """A report may show such a run; to use the run's model is another thing."""
    with expect_faults("option.value") as faults:
        config_of({name: value}, Path("config.json"))
    assert faults[0].where == f"config.json: {name}" and repr(value) in faults[0].found


@pytest.mark.parametrize("names", [[], ["A", "A"], [3, 4], "AB", {"A": 1}])
def test_recorded_classes_that_cannot_be(made_up: RunFolder, tmp_path: Path, names: object) -> None:
    content = json.loads(made_up.config.read_text())
    folder = RunFolder(tmp_path)
    write_sealed(folder.config, {**content, "class_names": names})
    with expect_faults("run.unreadable") as faults:
        folder.record()
    assert "class_names" in faults[0].found


ENTRY = {"label": "a row", "preset": None, "path": "runs/one"}
FAULTY_LISTS = [
    *JUNK, *({"runs": value} for value in JUNK if value != []), *({"runs": [value]} for value in JUNK),
    *({"runs": [{**ENTRY, name: value}]} for name in ("label", "path") for value in JUNK if not isinstance(value, str)),
    *({"runs": [{**ENTRY, "preset": value}]} for value in JUNK if not isinstance(value, str | None)),
    *({"runs": [ENTRY, {key: value for key, value in ENTRY.items() if key != name}]} for name in ("label", "path")),
]  # fmt: skip


@pytest.mark.parametrize("content", FAULTY_LISTS, ids=lambda content: json.dumps(content))
@pytest.mark.parametrize("read", [read_experiment, listed_runs])
def test_a_list_of_runs(tmp_path: Path, read: Callable[[Path], object], content: object) -> None:
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(content))
    with expect_faults("experiment.unreadable") as faults:
        read(file)
    assert faults[0].where == str(file) and faults[0].mend


def test_an_empty_experiment_file_stops_a_grid_before_it_begins(tmp_path: Path) -> None:
    from experiments.launch import write_record

    (tmp_path / "experiment.json").write_text("{}")
    with expect_faults("experiment.unreadable"):
        write_record(tmp_path, [])
    assert (tmp_path / "experiment.json").read_text() == "{}"


def test_a_list_of_runs_keeps_what_else_it_tells(tmp_path: Path) -> None:
    entries = [{**ENTRY, "shots": 4, "options": {"lr": 0.1}}, {"label": "b", "path": "runs/two"}]
    (tmp_path / "experiment.json").write_text(json.dumps({"runs": entries}))
    assert read_experiment(tmp_path / "experiment.json") == entries
    assert [run.label for run in listed_runs(tmp_path / "experiment.json")] == ["a row", "b"]
    assert read_experiment(tmp_path / "none.json") == []


RIGHT = {
    CheckedSlide: {"stamp": [16, 1, None], "sha256": "0", "unit_rows": True, "zero_rows": 0, "models": []},
    Manifest: {"folds": [{"fold": 0, "sha256": "0", "slides": {}}], "task": "t"},
    KeptPredictions: {"made_by": "0", "slides": {"s": {"features": "0", "probabilities": [[0.5, 1]]}}},
}


@pytest.mark.parametrize("kind", RIGHT)
def test_other_files(kind: type) -> None:
    content = RIGHT[kind]
    assert mistakes(kind, content) == []
    for place, new in wrong_types(content, lambda place: place[-1:] in (("task",), ("slides",)) and kind is Manifest):
        if not (isinstance(new, list) and place[-1:] == ("stamp",)):
            told = mistakes(kind, changed(content, place, new))
            assert told and ".".join(place) in told[0], (place, new)
    for value in JUNK:
        if kind is Manifest and value != []:
            assert mistakes(kind, {"folds": value}) and mistakes(kind, {"folds": [value]})
