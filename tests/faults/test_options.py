"""Options that cannot be: exit code 2 and a message that names them."""

from pathlib import Path

import pytest

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.damage import files_but_checks
from tests.support.faults import Refused, check_fault


def test_the_unbroken_copy_passes_all_checks(task: SimulatedTask, run_main: RunMain, tmp_path: Path) -> None:
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
        ("--few_shot_num 0", ("--few_shot_num", "0 is less than 1")),
        ("--max-epochs many", ("--max_epochs", "'many'", "int")),
        ("--low-mag five", ("--low_mag", "'five'")),
        ("--early_stopping perhaps", ("--early_stopping", "'perhaps'", "neither true nor false")),
        ("--json", ("--json", "together with --dry_run")),
        ("--task=", ("--task", "is empty")),
        ("--vlm_path=", ("--vlm_path", "is empty")),
        ("--low_mag 20 --high_mag 20", ("--low_mag 20", "the first to be lower")),
    ],
)
def test_unreadable_options(
    task: SimulatedTask, run_main: RunMain, tmp_path: Path, options: str, expected: tuple[str, ...]
) -> None:
    code, out, err = run_main(task.options(tmp_path / "results", *options.split()))
    assert (code, out) == (2, "") and err.startswith("usage: ")
    assert all(part in err for part in expected), err
    assert files_but_checks(tmp_path / "results") == {}


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ("--k_start 7", "option.value", "0 up to 2"),
        ("--k_start 1 --k_end 1", "option.value", "0 up to 2"),
        ("--k_end 3", "option.value", "0 up to 2"),
        ("--label_frac 0", "option.value", "above 0, at most 1"),
        ("--label_frac 1.5", "option.value", "above 0, at most 1"),
    ],
)
def test_unusable_options(refused: Refused, options: str, code: str, expected: str) -> None:
    (fault,) = refused(*options.split())
    assert fault.code == code
    assert options.rstrip("=").removesuffix(".0") in fault.where and expected in fault.expected


def test_all_unusable_options_are_told_at_once(task: SimulatedTask, faults_of: FaultsOf, tmp_path: Path) -> None:
    given = dict(zip(*[iter(task.options(tmp_path / "results"))] * 2, strict=True))
    given |= {"--k_end": "3", "--label_frac": "2"}
    del given["--task"], given["--data_root_dir"]
    found = faults_of([word for pair in given.items() for word in pair])
    assert [fault.code for fault in found] == ["option.missing"] * 2 + ["option.value"] * 2
    assert str(found[0]) == "--task: no value; give --task"


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ("cuda:99", "device.missing"),
        ("tpu", "device.unknown"),
        ("meta", "device.unknown"),
        ("cuda:x", "device.unknown"),
    ],
)
def test_a_device_that_is_not_there(refused: Refused, device: str, code: str) -> None:
    (fault,) = refused("--device", device)
    check_fault(fault, code, f"--device {device}", "expected cpu")


def test_a_feature_width_other_than_the_text_towers(refused: Refused) -> None:
    (fault,) = refused("--feature_dim", "32")
    check_fault(fault, "option.value", "--feature_dim 32", "16, the width of the text features of this model")


def test_results_cannot_go_where_a_file_lies(task: SimulatedTask, faults_of: FaultsOf, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("mine")
    (fault,) = faults_of(task.options(file))
    check_fault(fault, "output.file", f"--results_dir {file}")
    assert file.read_text() == "mine"
