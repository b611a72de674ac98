"""The training loop resumed, and its TensorBoard logs, with a model of known accuracy."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.support.scripted_training import Scripted, files_fixture, train  # noqa: F401
from training.loop import FoldFiles

# ------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("opt", ["adam", "sgd"])
@pytest.mark.parametrize("step", [3, 10, 13, 24])  # in the first epoch, within one, at the first slide of one, the last
def test_resume_ends_as_if_never_stopped(tmp_path: Path, step: int, opt: str) -> None:
    def fold_files(name: str) -> FoldFiles:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return FoldFiles(folder / "c.pt", folder / "history.csv", folder / "state.pt", folder / "tensorboard")

    accuracies = [1, 3, 2, 3]
    whole = Scripted(accuracies)
    expected = train(whole, fold_files("whole"), opt=opt)
    with pytest.raises(KeyboardInterrupt):
        train(Scripted(accuracies, fail_at=(step, KeyboardInterrupt())), fold_files("stopped"), opt=opt)
    again = Scripted(accuracies)
    again.epoch += (step - 1) // 6  # its script goes on where the epochs do
    torch.manual_seed(12345)
    progress = train(again, fold_files("stopped"), opt=opt, resume=True)
    assert (progress.best_epoch, progress.epochs) == (expected.best_epoch, expected.epochs) == (1, 4)
    assert again.steps == 24 - 6 * ((step - 1) // 6)  # finished epochs are not trained again
    for ours, theirs in zip(again.weights, whole.weights[(step - 1) // 6 :], strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(again.weight, whole.weight)
    assert fold_files("stopped").history.read_bytes() == fold_files("whole").history.read_bytes()


def test_resume_of_all_epochs_trains_nothing(files: FoldFiles) -> None:
    whole = Scripted([1, 3, 2, 3])
    train(whole, files)
    history = files.history.read_bytes()
    again = Scripted([])
    progress = train(again, files, resume=True)
    assert again.steps == 0
    assert (progress.best_epoch, progress.epochs) == (1, 4)
    assert torch.equal(again.weight, whole.weights[3])
    assert files.history.read_bytes() == history


def test_resume_counts_the_epochs_waited_before(files: FoldFiles) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Scripted([2] * 30, fail_at=(6 * 6 + 1, KeyboardInterrupt())), files, max_epochs=30, early_stopping=True)
    again = Scripted([2] * 30)
    progress = train(again, files, max_epochs=30, early_stopping=True, resume=True)
    assert (progress.best_epoch, progress.epochs, again.steps) == (0, 11, 5 * 6)


def test_without_resume_it_starts_over(files: FoldFiles) -> None:
    train(Scripted([3, 3, 3, 3]), files)
    again = Scripted([1, 2, 1, 1])
    progress = train(again, files)
    assert (progress.best_epoch, progress.epochs, again.steps) == (1, 4, 24)


def test_the_state_loads_with_weights_only(files: FoldFiles) -> None:
    train(Scripted(), files)
    assert torch.load(files.state, weights_only=True)["progress"]["epochs"] == 4
    assert sorted(path.name for path in files.state.parent.iterdir()) == [
        "history_0.csv", "resume_0.pt", "s_0_checkpoint.pt",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- tensorboard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check_scalars(files: FoldFiles) -> None:
    history = pd.read_csv(files.history)
    found = scalars(files.tensorboard)
    assert set(found) == set(history)
    for name in ("train_loss", "train_htcl_loss", "val_acc", "val_loss"):
        assert [step for step, _ in found[name]] == history["epoch"].tolist()
        assert [value for _, value in found[name]] == pytest.approx(history[name].tolist(), rel=1e-6)


def test_log_data_writes_the_history_to_tensorboard(files: FoldFiles) -> None:
    train(Scripted([1, 2, 4, 3]), files, log_data=True)
    check_scalars(files)


def test_no_tensorboard_by_default(files: FoldFiles) -> None:
    train(Scripted(), files)
    assert not files.tensorboard.exists()


def test_tensorboard_of_a_resumed_run_has_every_epoch_once(files: FoldFiles) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Scripted([1, 2, 4, 3], fail_at=(15, KeyboardInterrupt())), files, log_data=True)
    again = Scripted([1, 2, 4, 3])
    again.epoch += 2
    train(again, files, log_data=True, resume=True)
    check_scalars(files)


def test_tensorboard_of_a_run_started_over_shows_the_new_run(files: FoldFiles) -> None:
    train(Scripted([1, 2, 4, 3]), files, log_data=True, lr=0.1)
    train(Scripted([3, 1, 2, 2]), files, log_data=True, max_epochs=3)
    check_scalars(files)
