"""What predict.py refuses."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import SimulatedTask
from tests.support.damage import (
    LFS_POINTER,
    LOW,
    SLIDE,
    Refused,
    change_json,
    change_text,
    count_faults,
    cut,
    other_clip,
)


@pytest.fixture
def predict_refused(simulated: SimulatedTask, results: Path, run_main: Callable, tmp_path: Path) -> Refused:
    """Run predict.py on the first checkpoint of ``results`` and expect a refusal; returns the message."""

    def run(*options: str, faults: int = 1) -> str:
        output = tmp_path / "predictions.csv"
        checkpoint = simulated.run_folder(results) / "s_0_checkpoint.pt"
        code, out, err = run_main(["--checkpoint", str(checkpoint), "--output", str(output), *options], "predict")
        assert code == 2, f"{out}\n{err}"
        assert "Traceback" not in out + err
        assert not output.exists()
        assert count_faults(err) == faults
        return err

    return run


@pytest.fixture
def run_folder(simulated: SimulatedTask, results: Path) -> Path:
    return simulated.run_folder(results)


def test_the_unbroken_run_predicts(run_folder: Path, run_main: Callable, tmp_path: Path) -> None:
    output = tmp_path / "predictions.csv"
    code, _, err = run_main(["--checkpoint", str(run_folder / "s_0_checkpoint.pt"), "--output", str(output)], "predict")
    assert (code, err) == (0, "")
    assert len(pd.read_csv(output)) == 28


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
    message = predict_refused(*options.split())
    assert options.split()[0].replace("-", "_").replace("__", "--", 1) in message
    assert f"the checkpoint was trained with {trained_with} ({run_folder / 'config.json'})" in message


def test_all_settings_that_differ_are_listed(predict_refused: Refused) -> None:
    message = predict_refused("--top_k_low", "7", "--tgdf", "none", faults=2)
    assert "--top_k_low 7: the checkpoint was trained with 2 (" in message
    assert "--tgdf none: the checkpoint was trained with 'full' (" in message


def test_predicting_with_another_clip(task: SimulatedTask, predict_refused: Refused) -> None:
    other_clip(task)
    message = predict_refused("--vlm_path", str(task.root / "tinyclip"))
    assert (
        f"--vlm_path {task.root / 'tinyclip'}: not the vision-language model that the checkpoint was trained" in message
    )


def test_predicting_with_other_descriptions(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.root / "simulated.json"
    change_text(file, "pale", "dark")
    assert f"--text_prompt {file}: not what the checkpoint was trained with" in predict_refused(
        "--text_prompt", str(file)
    )


def test_predicting_slides_of_an_unknown_class(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.root / "simulated.csv"
    change_text(file, "SIMULATED_B", "SIMULATED_C")
    message = predict_refused("--dataset_csv", str(file))
    assert f"{file}: unknown class 'SIMULATED_C'; expected one of ['SIMULATED_A', 'SIMULATED_B']" in message


def test_predicting_a_slide_without_features(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.features / LOW / f"{SLIDE}.h5"
    file.unlink()
    message = predict_refused("--data_root_dir", str(task.root / "features"))
    assert f"{file}: file not found" in message
    assert "python extract_features.py" in message


def test_other_descriptions_hide_no_missing_features(task: SimulatedTask, predict_refused: Refused) -> None:
    prompts, file = task.root / "simulated.json", task.features / LOW / f"{SLIDE}.h5"
    change_text(prompts, "pale", "dark")
    file.unlink()
    options = ("--text_prompt", str(prompts), "--data_root_dir", str(task.root / "features"))
    message = predict_refused(*options, faults=2)
    assert f"--text_prompt {prompts}: " in message
    assert f"{file}: file not found" in message


def test_no_checkpoint(predict_refused: Refused, run_folder: Path) -> None:
    (run_folder / "s_0_checkpoint.pt").unlink()
    assert f"{run_folder / 's_0_checkpoint.pt'}: no such checkpoint" in predict_refused()


def test_no_checkpoint_given(run_main: Callable) -> None:
    code, _, err = run_main(["--task", "simulated"], "predict")
    assert code == 2
    assert "required: --checkpoint" in err


def misshapen(state: dict) -> dict:
    name = next(name for name in state if name.endswith("context_tokens"))
    return {**state, name: state[name][:-1]}


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
    message = predict_refused()
    assert message.startswith(f"error: {file}: ")
    assert "does not fit --variant" not in message  # no other option would help
    assert "weights_only" not in message  # PyTorch's advice to trust the file is none to pass on


CHECKPOINT_FAULTS = {
    "list": (lambda state: list(state.values()), ("found a list",)),
    "one_tensor": (lambda state: next(iter(state.values())), ("found a Tensor",)),
    "model_inside": (lambda state: {"model": state, "epoch": 3}, ("2 tensors are unknown (epoch, model)",)),
    "prefixed": (lambda state: {f"module.{name}": x for name, x in state.items()}, ("are missing", "(module.")),
    "tensor_missing": (lambda state: dict(list(state.items())[1:]), ("1 tensors are missing (",)),
    "tensor_unknown": (lambda state: {**state, "surplus": torch.ones(1)}, ("1 tensors are unknown (surplus)",)),
    "another_shape": (misshapen, ("1 tensors have another shape", "(15, 16), expected (16, 16)")),
}


@pytest.mark.parametrize("case", CHECKPOINT_FAULTS)
def test_a_checkpoint_that_does_not_fit(predict_refused: Refused, run_folder: Path, case: str) -> None:
    file = run_folder / "s_0_checkpoint.pt"
    new, expected = CHECKPOINT_FAULTS[case]
    torch.save(new(torch.load(file, weights_only=True)), file)
    message = predict_refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


RECORD_FAULTS = {
    "cut_off": cut,
    "of_something_else": lambda file: file.write_text('{"model_type": "clip"}'),
    "list": lambda file: file.write_text("[]"),
    "unknown_option": lambda file: change_json(
        file, lambda record: {**record, "options": {**record["options"], "from_tomorrow": 1}}
    ),
    "no_inputs": lambda file: change_json(file, lambda record: {"options": record["options"]}),
}


@pytest.mark.parametrize("case", RECORD_FAULTS)
def test_a_faulty_record_beside_the_checkpoint(predict_refused: Refused, run_folder: Path, case: str) -> None:
    RECORD_FAULTS[case](run_folder / "config.json")
    assert str(run_folder / "config.json") in predict_refused()


def test_a_record_that_lacks_an_option_given(predict_refused: Refused, run_folder: Path) -> None:
    def older(record: dict) -> dict:
        del record["options"]["tgdf"]
        return record

    change_json(run_folder / "config.json", older)
    assert "--tgdf none" in predict_refused("--tgdf", "none")


def test_a_bare_checkpoint_needs_its_task(predict_refused: Refused, run_folder: Path) -> None:
    (run_folder / "config.json").unlink()
    assert "--task and --data_root_dir missing" in predict_refused()
    assert "--data_root_dir missing" in predict_refused("--task", "simulated")


def test_a_bare_checkpoint_of_the_other_variant(
    simulated: SimulatedTask, predict_refused: Refused, run_folder: Path, tmp_path: Path
) -> None:
    (run_folder / "config.json").unlink()
    message = predict_refused(*simulated.options(tmp_path, "--variant", "released"))
    assert f"{run_folder / 's_0_checkpoint.pt'}: does not fit --variant released of --model_type HiVE_MIL" in message
    assert "tensors are missing" in message


@pytest.mark.parametrize("text", ["3", "[1, null]", "{"])
def test_a_bare_checkpoint_with_faulty_descriptions(
    task: SimulatedTask, predict_refused: Refused, run_folder: Path, tmp_path: Path, text: str
) -> None:
    (run_folder / "config.json").unlink()
    (task.root / "simulated.json").write_text(text)
    assert f"{task.root / 'simulated.json'}: " in predict_refused(*task.options(tmp_path))


def test_predictions_cannot_replace_a_folder(run_folder: Path, run_main: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    code, _, err = run_main(["--checkpoint", str(run_folder / "s_0_checkpoint.pt"), "--output", str(folder)], "predict")
    assert code == 2
    assert str(folder) in err
    assert list(tmp_path.glob(".mine*")) == []
