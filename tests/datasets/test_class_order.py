"""``--class_order``: what numbers the classes."""

import json
from pathlib import Path

import pytest

from datasets.model_texts import in_class_order
from tests.support.faults import expect_faults
from utils.config import Config

NAMES = ["LUAD", "LUSC", "Other"]


def config_of(folder: Path, text: str, **options: object) -> Config:
    (folder / "texts.json").write_text(text)
    return Config(task="T", text_prompt=str(folder / "texts.json"), **{"class_order": "prompts", **options})


def test_the_file_numbers_the_classes_and_those_it_lacks_come_last(tmp_path: Path) -> None:
    config = config_of(tmp_path, json.dumps({"LUSC": {}, "more": {}, "LUAD": {}}))
    assert in_class_order(config, NAMES) == ["LUSC", "LUAD", "Other"]


@pytest.mark.parametrize(
    "options", [{"class_order": "labels"}, {"model_type": "ABMIL"}, {"model_type": "MSCPT"}], ids=str
)
def test_else_they_stay(tmp_path: Path, options: dict[str, object]) -> None:
    assert in_class_order(config_of(tmp_path, json.dumps({"LUSC": {}, "LUAD": {}}), **options), NAMES) == NAMES


def test_a_file_of_another_form(tmp_path: Path) -> None:
    assert in_class_order(config_of(tmp_path, "[]"), NAMES) == NAMES  # reading the descriptions refuses it
    with expect_faults("prompt.unreadable"):
        in_class_order(config_of(tmp_path, "{"), NAMES)
