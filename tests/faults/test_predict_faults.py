"""What predict.py refuses."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import LFS_POINTER, LOW, SLIDE, change_json, change_text, cut, other_clip
from tests.support.earlier import forget_digests
from tests.support.faults import Refused, check_fault
from utils.errors import Fault

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def predict_refused(simulated: SimulatedTask, results: Path, faults_of: FaultsOf, tmp_path: Path) -> Refused:
    """Run predict.py on the first checkpoint of ``results`` and expect it to refuse, and to write nothing; returns the
    faults."""

    def run(*options: str, faults: int = 1) -> list[Fault]:
        output = tmp_path / "predictions.csv"
        checkpoint = simulated.run_folder(results) / "s_0_checkpoint.pt"
        found = faults_of(["--checkpoint", str(checkpoint), "--output", str(output), *options], "predict")
        assert not output.exists()
        assert len(found) == faults, found
        return found

    return run


@pytest.fixture
def run_folder(simulated: SimulatedTask, results: Path) -> Path:
    return simulated.run_folder(results)


def test_the_unbroken_run_predicts(run_folder: Path, run_main: RunMain, tmp_path: Path) -> None:
    output = tmp_path / "predictions.csv"
    code, _, err = run_main(["--checkpoint", str(run_folder / "s_0_checkpoint.pt"), "--output", str(output)], "predict")
    assert (code, err) == (0, "")
    assert len(pd.read_csv(output)) == 20


@pytest.mark.parametrize(
    ("options", "trained_with"),
    [
        ("--variant released", "'paper'"),
        ("--num-context-tokens 8", "16"),
        ("--hier_direction up", "'both'"),
        ("--class_specific_token", "False"),
        ("--feature_extractor plip", "'tinyclip'"),
        ("--low_mag 10x", "5"),
    ],
)
def test_predicting_with_other_settings(
    predict_refused: Refused, run_folder: Path, options: str, trained_with: str
) -> None:
    (fault,) = predict_refused(*options.split())
    assert fault.code == "run.other_settings"
    assert fault.where.startswith(options.split()[0].replace("-", "_").replace("__", "--", 1))
    assert fault.found == f"the run was trained with {trained_with} ({run_folder / 'config.json'})"


def test_all_settings_that_differ_are_listed(predict_refused: Refused, run_folder: Path) -> None:
    found = predict_refused("--top_k_low", "7", "--tgdf", "none", faults=2)
    assert [(fault.code, fault.where) for fault in found] == [
        ("run.other_settings", "--top_k_low 7"),
        ("run.other_settings", "--tgdf none"),
    ]
    config = run_folder / "config.json"
    assert str(found[0]) == f"--top_k_low 7: the run was trained with 2 ({config}); leave --top_k_low out"


def test_predicting_with_another_clip(task: SimulatedTask, predict_refused: Refused) -> None:
    other_clip(task)
    fault, of_features = predict_refused("--vlm_path", str(task.root / "tinyclip"), faults=2)
    assert of_features.code == "features.other_model"
    check_fault(fault, "run.other_settings", f"--vlm_path {task.root / 'tinyclip'}", "vision-language model")


def test_predicting_with_other_descriptions(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.root / "simulated.json"
    change_text(file, "pale", "dark")
    (fault,) = predict_refused("--text_prompt", str(file))
    check_fault(fault, "run.other_settings", f"--text_prompt {file}", "descriptions")


def test_predicting_slides_of_an_unknown_class(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.root / "simulated.csv"
    change_text(file, "SIMULATED_B", "SIMULATED_C")
    (fault,) = predict_refused("--dataset_csv", str(file))
    check_fault(fault, "table.unknown_class", file, "'SIMULATED_C'", "one of ['SIMULATED_A', 'SIMULATED_B']")


def test_predicting_a_slide_without_features(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.features / LOW / f"{SLIDE}.h5"
    file.unlink()
    (fault,) = predict_refused("--data_root_dir", str(task.root / "features"))
    check_fault(fault, "file.missing", file, "python extract_features.py")


def test_other_descriptions_hide_no_missing_features(task: SimulatedTask, predict_refused: Refused) -> None:
    prompts, file = task.root / "simulated.json", task.features / LOW / f"{SLIDE}.h5"
    change_text(prompts, "pale", "dark")
    file.unlink()
    options = ("--text_prompt", str(prompts), "--data_root_dir", str(task.root / "features"))
    texts, features = predict_refused(*options, faults=2)
    check_fault(texts, "run.other_settings", f"--text_prompt {prompts}")
    check_fault(features, "file.missing", file)


def test_no_checkpoint(predict_refused: Refused, run_folder: Path) -> None:
    (run_folder / "s_0_checkpoint.pt").unlink()
    (fault,) = predict_refused()
    check_fault(fault, "checkpoint.missing", run_folder / "s_0_checkpoint.pt", "no such checkpoint")


def test_no_checkpoint_given(run_main: RunMain) -> None:
    code, _, err = run_main(["--task", "simulated"], "predict")
    assert code == 2
    assert "required: --checkpoint" in err


UNREADABLE_CHECKPOINTS = {
    "text": lambda file: file.write_text("not a checkpoint"),
    "pointer": lambda file: file.write_bytes(LFS_POINTER),
    "no_bytes": lambda file: file.write_bytes(b""),
    "cut_off": cut,
}


@pytest.mark.parametrize("case", UNREADABLE_CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_read(predict_refused: Refused, run_folder: Path, case: str) -> None:
    file = run_folder / "s_0_checkpoint.pt"
    UNREADABLE_CHECKPOINTS[case](file)
    (fault,) = predict_refused()
    assert str(fault).startswith(f"{file}: ")
    assert fault.code != "checkpoint.mismatch"  # no other option would help
    assert "weights_only" not in str(fault)  # PyTorch's advice to trust the file is none to pass on


def changed(state: dict, change: Callable[[torch.Tensor], object]) -> dict:
    """The context tokens of a state changed."""
    return {name: change(value) if name.endswith("context_tokens") else value for name, value in state.items()}


CHECKPOINT_FAULTS = {
    "list": (lambda state: list(state.values()), "tensors.form", ("found a list",)),
    "to_go_on_from": (
        lambda state: {"model": state, "optimizer": {}, "progress": {}}, "tensors.form", ("a state to go on from",),
    ),
    "an_int": (lambda state: changed(state, lambda value: 3), "tensors.form", ("context_tokens: int",)),
    "sparse": (lambda state: changed(state, lambda value: value.to_sparse()), "tensors.form", ("sparse",)),
    "meta": (lambda state: changed(state, lambda value: value.to("meta")), "tensors.form", ("meta",)),
    "nan": (lambda state: changed(state, lambda value: value * torch.nan), "tensors.form", ("NaN",)),
    "infinite": (
        lambda state: changed(state, lambda value: value + torch.inf), "checkpoint.mismatch", ("512 numbers",),
    ),
    "whole_numbers": (
        lambda state: changed(state, lambda value: value.long()), "checkpoint.mismatch", ("is of torch.int64",),
    ),
    "another_program": (lambda state: {"fc.weight": torch.ones(2)}, "checkpoint.mismatch", ("are missing", "unknown")),
    "prefix_of_one": (
        lambda state: changed({f"module.{name}": x for name, x in state.items()} | {"x": torch.ones(1)}, lambda x: x),
        "checkpoint.mismatch", ("(module.",),
    ),
    "tensor_missing": (
        lambda state: dict(list(state.items())[1:]), "checkpoint.mismatch", ("1 tensors are missing (",),
    ),
    "tensor_unknown": (
        lambda state: {**state, "surplus": torch.ones(1)}, "checkpoint.mismatch", ("1 tensors are unknown (surplus)",),
    ),
    "another_shape": (
        lambda state: changed(state, lambda value: value[:-1]), "checkpoint.mismatch",
        ("1 tensors do not fit", "(1, 16, 16), expected (2, 16, 16)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINT_FAULTS)
def test_a_checkpoint_that_does_not_fit(predict_refused: Refused, run_folder: Path, case: str) -> None:
    file = run_folder / "s_0_checkpoint.pt"
    forget_digests(run_folder)
    new, code, words = CHECKPOINT_FAULTS[case]
    torch.save(new(torch.load(file, weights_only=True)), file)
    (fault,) = predict_refused()
    check_fault(fault, code, file, *words)


RECORD_FAULTS = {
    "cut_off": (cut, "json.unreadable"),
    "of_something_else": (lambda file: file.write_text('{"model_type": "clip"}'), "run.foreign"),
    "list": (lambda file: file.write_text("[]"), "run.foreign"),
    "unknown_option": (
        lambda file: change_json(
            file, lambda record: {**record, "options": {**record["options"], "from_tomorrow": 1}}
        ), "run.unknown_options",
    ),
    "no_inputs": (
        lambda file: change_json(file, lambda record: {"options": record["options"]}), "run.foreign",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RECORD_FAULTS)
def test_a_faulty_record_beside_the_checkpoint(predict_refused: Refused, run_folder: Path, case: str) -> None:
    forget_digests(run_folder)
    break_file, code = RECORD_FAULTS[case]
    break_file(run_folder / "config.json")
    (fault,) = predict_refused()
    check_fault(fault, code, run_folder / "config.json")


def test_a_record_that_lacks_an_option_given(predict_refused: Refused, run_folder: Path) -> None:
    def older(record: dict) -> dict:
        del record["options"]["tgdf"]
        return record

    forget_digests(run_folder)
    change_json(run_folder / "config.json", older)
    (fault,) = predict_refused("--tgdf", "none")
    check_fault(fault, "run.other_settings", "--tgdf none")


def test_a_bare_checkpoint_needs_its_task(predict_refused: Refused, run_folder: Path) -> None:
    (run_folder / "config.json").unlink()
    names = ["--task", "--data_root_dir"]
    assert [(fault.code, fault.where) for fault in predict_refused(faults=2)] == [
        ("option.missing", name) for name in names
    ]
    (fault,) = predict_refused("--task", "simulated")
    check_fault(fault, "option.missing", "--data_root_dir", "no config.json beside the checkpoint")


def test_a_bare_checkpoint_of_the_other_variant(
    simulated: SimulatedTask, predict_refused: Refused, run_folder: Path, tmp_path: Path
) -> None:
    (run_folder / "config.json").unlink()
    (fault,) = predict_refused(*simulated.options(tmp_path, "--variant", "released"))
    words = "tensors are missing", "--model_type HiVE_MIL --variant released"
    check_fault(fault, "checkpoint.mismatch", run_folder / "s_0_checkpoint.pt", *words)


@pytest.mark.parametrize("text", ["3", "[1, null]", "{"])
def test_a_bare_checkpoint_with_faulty_descriptions(
    task: SimulatedTask, predict_refused: Refused, run_folder: Path, tmp_path: Path, text: str
) -> None:
    (run_folder / "config.json").unlink()
    file = task.root / "simulated.json"
    file.write_text(text)
    (fault,) = predict_refused(*task.options(tmp_path))
    check_fault(fault, "prompt.unreadable" if text == "{" else "prompt.form", file)


def test_predictions_cannot_replace_a_folder(run_folder: Path, faults_of: FaultsOf, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (fault,) = faults_of(["--checkpoint", str(run_folder / "s_0_checkpoint.pt"), "--output", str(folder)], "predict")
    check_fault(fault, "output.folder", f"--output {folder}")
    assert list(tmp_path.glob(".mine*")) == []
