"""Options that cannot be: exit code 2 and a message that names them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SimulatedTask
from tests.support.damage import Refused


def test_the_unbroken_copy_passes_all_checks(task: SimulatedTask, run_main: Callable, tmp_path: Path) -> None:
    code, out, err = run_main(task.options(tmp_path / "results", "--dry_run"))
    assert (code, err) == (0, "")
    assert "all checks passed" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--tgdf nonsense", ("--tgdf", "'nonsense'", "no_mask_propagation", "high_only")),
        ("--variant publication", ("--variant", "'publication'", "released")),
        ("--nonsense 3", ("unrecognized arguments", "--nonsense")),
        ("--max_epoch 3", ("unrecognized arguments", "--max_epoch")),  # no abbreviations
        ("--k_start 7", ("--k_start 7", "folds from 0 up to 2")),
        ("--k_start 1 --k_end 1", ("--k_start 1 --k_end 1", "folds from 0 up to 2")),
        ("--k_end 3", ("--k_end 3", "folds from 0 up to 2")),
        ("--label_frac 0", ("--label_frac 0", "above 0, at most 1")),
        ("--label_frac 1.5", ("--label_frac 1.5", "above 0, at most 1")),
        ("--few_shot_num 0", ("--few_shot_num", "0 is less than 1")),
        ("--max-epochs many", ("--max_epochs", "'many'", "int")),
        ("--low-mag five", ("--low_mag", "'five'")),
        ("--early_stopping perhaps", ("--early_stopping", "'perhaps'", "neither true nor false")),
        ("--task=", ("error: --task missing",)),
        ("--task= --data_root_dir=", ("error: --task and --data_root_dir missing",)),
    ],
)
def test_unusable_options(refused: Refused, options: str, expected: tuple[str, ...]) -> None:
    message = refused(*options.split(), faults=None)
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", "cuda:x"])
def test_a_device_that_is_not_there(refused: Refused, device: str) -> None:
    message = refused("--device", device)
    assert f"--device {device}: " in message
    assert "expected cpu" in message


def test_a_feature_width_other_than_the_text_towers(refused: Refused) -> None:
    assert "--feature_dim 32: the text features of this model are 16 wide" in refused("--feature_dim", "32")


def test_results_cannot_go_where_a_file_lies(task: SimulatedTask, run_main: Callable, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("mine")
    code, _, err = run_main(task.options(file))
    assert code == 2
    assert str(file) in err
    assert file.read_text() == "mine"
