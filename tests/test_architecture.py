"""ARCHITECTURE.md names files, folders and definitions that are there."""

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT

TEXT = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
LARGEST = 111


def absent(text: str) -> set[str]:
    """What a text names in backticks or as a link, and the tree does not have: files, folders, patterns."""
    named = {name for name in re.findall(r"`([^`\s]+)`", text) if re.search(r"/|\.(py|md|yaml|html)$", name)}
    named |= set(re.findall(r"\]\(([^)#]+)\)", text))
    return {name for name in named if not list(PROJECT.glob(name.rstrip("/")))}


def test_every_file_and_folder_is_there() -> None:
    assert absent(TEXT) == set()
    assert len(re.findall(r"`[a-z_/]+\.py`", TEXT)) > 30


@pytest.mark.parametrize("text", ["see `models/nowhere.py`", "in `nowhere/`", "[there](NOWHERE.md)"])
def test_an_absent_one_would_be_found(text: str) -> None:
    assert len(absent(text)) == 1


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("utils/model_types.py", "MODEL_TYPES"),
        ("models/vlms/registry.py", "MODULES"),
        ("datasets/feature_layouts.py", "LAYOUTS"),
        ("models/losses.py", "build_bag_loss"),
        ("models/htcl.py", "HTCL"),
        ("utils/arguments.py", "add_option"),
        ("training/metrics.py", "classification_metrics"),
        ("training/metrics.py", "CLASSIFICATION"),
    ],
)
def test_what_a_change_touches_is_there(file: str, name: str) -> None:
    assert f"`{name}`" in TEXT and f"`{file}`" in TEXT
    assert re.search(rf"^(def {name}\(|{name}\b.*=)", (PROJECT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_package_has_its_row_and_the_page_stays_a_page() -> None:
    packages = {Path(file).parent.name for file in PROJECT.glob("*/__init__.py")}
    assert {f"`{package}/`" for package in packages} <= set(re.findall(r"`[a-z_]+/`", TEXT))
    assert len(TEXT.splitlines()) <= LARGEST
