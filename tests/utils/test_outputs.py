"""Outputs that are inputs, or no files, are refused before anything is read."""

import os
from pathlib import Path

import pytest

from tests.support.faults import check_fault, expect_faults
from utils.outputs import check_output_folder, check_outputs

OPTION = "--output x"


@pytest.mark.parametrize("name", ["x.csv", "sub/../x.csv", "link.csv", "hard.csv"])
def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path: Path, name: str) -> None:
    table = tmp_path / "x.csv"
    table.write_text("slide_id\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.csv").symlink_to(table)
    os.link(table, tmp_path / "hard.csv")
    with expect_faults("output.is_input") as faults:
        check_outputs(OPTION, [tmp_path / "new.csv", tmp_path / name], [None, tmp_path / "gone", table])
    check_fault(faults[0], "output.is_input", OPTION, str(tmp_path / name))


def test_what_lies_in_a_folder_of_inputs_is_an_input(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    (folder / "low").mkdir(parents=True)
    (folder / "low" / "a.h5").touch()
    with expect_faults("output.is_input"):
        check_outputs(OPTION, [folder / "low" / "a.h5"], [folder])
    check_outputs(OPTION, [folder / "low" / "new.csv"], [folder])
    check_outputs(OPTION, [tmp_path / "features.csv"], [folder])


def test_all_faults_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.csv").touch()
    with expect_faults("output.folder", "output.special", "output.is_input") as faults:
        check_outputs(OPTION, [tmp_path, tmp_path / "x.csv", tmp_path / "pipe"], [tmp_path / "x.csv"])
    assert {fault.where for fault in faults} == {OPTION}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with expect_faults("output.file"):
        check_output_folder("--output-dir", tmp_path / "x")
    check_output_folder("--output-dir", tmp_path)
    check_output_folder("--output-dir", tmp_path / "new")
