"""Names that become files and folders."""

import argparse

import pytest

from tests.support.faults import check_fault, expect_faults
from utils.config import Config
from utils.names import MOST_BYTES, check_names, folder_name, name_problem

UNUSABLE = [
    "", ".", "..", "../../evil", "/etc/passwd", "a/b", "a\\b", "..\\evil", "C:\\evil", ".hidden", "a\nb", "a\tb",
    "a\0b", "\x1b[31mred", "\x7f", "a\u2028b", "\u202etxt.exe", "\udc80", " a", "a ", "a" * (MOST_BYTES + 1),
    "é" * (MOST_BYTES // 2 + 1),
]  # fmt: skip
USABLE = [
    "tcga_nsclc",
    "TCGA-44-2668-01Z-00-DX1.0a",
    "open_clip:ViT-B-32",
    "a b",
    "é" * (MOST_BYTES // 2),
    "切片",
    "-x",
    "=1",
]


@pytest.mark.parametrize("name", [*UNUSABLE, None, 3, ["a"]])
def test_what_no_file_may_be_called(name: object) -> None:
    assert name_problem(name)
    if isinstance(name, str):
        with pytest.raises(argparse.ArgumentTypeError):
            folder_name(name)


@pytest.mark.parametrize("name", USABLE)
def test_other_names_are_taken(name: str) -> None:
    assert name_problem(name) is None
    assert folder_name(name) == name


def test_all_unusable_names_are_one_fault() -> None:
    check_names(USABLE, "table.csv", "slide ids")
    with expect_faults("name.unusable") as faults:
        check_names([*USABLE, *UNUSABLE], "table.csv", "slide ids")
    check_fault(faults[0], "name.unusable", "table.csv", f"{len(UNUSABLE)} slide ids", f"{len(UNUSABLE) - 3} more")


@pytest.mark.parametrize("option", ["task", "feature_extractor", "LLM"])
@pytest.mark.parametrize("name", ["../../evil", "/evil", "a\0b", None, 5])
def test_options_of_a_record_are_checked_as_those_of_a_command_line(option: str, name: object) -> None:
    if (option, name) == ("LLM", None):  # its default
        assert Config(LLM=None).language_model() == "builtin"
        return
    with expect_faults("name.unusable") as faults:
        Config(**{option: name})
    assert faults[0].where == f"--{option}"
