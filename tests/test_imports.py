"""Who may import whom, read from the syntax trees; and that asking for help does not load PyTorch.

The packages and scripts keep to ``PACKAGES``. A test imports no other test. A benchmark imports nothing of the tests.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PACKAGES = {
    "explanation": {"reports", "training", "models", "datasets", "utils"},
    "reports": {"training", "utils"},
    "experiments": {"utils"},
    "training": {"models", "datasets", "utils"},
    "models": {"utils", "conch"},
    "datasets": {"utils"},
    "utils": set(),
    "conch": set(),
}
SCRIPTS = {file.stem for file in PROJECT.glob("*.py")}


def imported(tree: ast.Module, package: tuple[str, ...] = ()) -> set[str]:
    """Names of all modules that a module imports, wherever the import stands; relative ones are made absolute.

    What stands behind ``from ... import`` may be a module as well; of these names only those of tests are given.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names if alias.name.startswith("test_"))}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return names


def forbidden(package: str, names: set[str]) -> set[str]:
    """Those imports that a module of the package must not have. The scripts have no package: ''."""
    ours = set(PACKAGES) | SCRIPTS | {"tests", "benchmarks"}
    allowed = PACKAGES[package] | {package} if package else set(PACKAGES)
    return {name for name in names if name.split(".")[0] in ours - allowed}


def test_the_diagram_shows_these_arrows() -> None:
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    arrows = re.findall(r"^  (\w+) --> (\w+)$", text, re.MULTILINE)
    assert sorted(arrows) == sorted((package, other) for package, allowed in PACKAGES.items() for other in allowed)


def names_of_tests(names: set[str]) -> set[str]:
    """Those imports that are modules of tests."""
    return {name for name in names if name.split(".")[-1].startswith("test_")}


def modules() -> list[Path]:
    """All modules but the tests: the scripts and the packages."""
    files = [*PROJECT.glob("*.py"), *(file for package in PACKAGES for file in (PROJECT / package).rglob("*.py"))]
    return sorted(file.relative_to(PROJECT) for file in files)


@pytest.mark.parametrize("module", modules(), ids=str)
def test_a_module_imports_only_what_it_may(module: Path) -> None:
    tree = ast.parse((PROJECT / module).read_text(encoding="utf-8"))
    package = module.parts[0] if len(module.parts) > 1 else ""
    assert forbidden(package, imported(tree, module.parts[:-1])) == set()


def names_below(folder: str) -> dict[Path, set[str]]:
    """What each module below a folder imports."""
    files = sorted(file.relative_to(PROJECT) for file in (PROJECT / folder).rglob("*.py"))
    return {file: imported(ast.parse((PROJECT / file).read_text(encoding="utf-8")), file.parts[:-1]) for file in files}


def test_no_test_imports_a_test() -> None:
    found = names_below("tests")
    assert "tests.conftest" in found[Path("tests/test_imports.py")]
    assert {file: names_of_tests(names) for file, names in found.items() if names_of_tests(names)} == {}


def test_no_benchmark_imports_the_tests() -> None:
    found = names_below("benchmarks")
    assert "benchmarks.model" in found[Path("benchmarks/baselines.py")]
    assert {file for file, names in found.items() if any(name.split(".")[0] == "tests" for name in names)} == set()


@pytest.mark.parametrize(
    "source", ["from tests.models import test_golden", "import tests.test_main", "from .test_hierarchy import slide"]
)
def test_an_imported_test_would_be_found(source: str) -> None:
    assert len(names_of_tests(imported(ast.parse(source), ("tests", "datasets")))) == 1


def test_all_packages_and_scripts_are_looked_at() -> None:
    assert {"main", "predict", "create_simulated_task"} <= SCRIPTS
    found = [module.parts[0] for module in modules() if len(module.parts) > 1]
    assert all(found.count(package) >= 2 for package in PACKAGES)
    names = {
        module: imported(ast.parse((PROJECT / module).read_text(encoding="utf-8")), module.parts[:-1])
        for module in modules()
    }
    assert "training.examination" in names[Path("main.py")]  # within a function
    assert "datasets.task" in names[Path("datasets/bags.py")]
    assert "utils.interface" in names[Path("models/hive_mil.py")]


@pytest.mark.parametrize(
    ("package", "source", "fault"),
    [
        ("models", "from datasets.bags import read_bag", "datasets.bags"),
        ("datasets", "def f():\n    import models.build as build", "models.build"),
        ("datasets", "if TYPE_CHECKING:\n    from conch import tokenizer", "conch"),
        ("datasets", "from ..models.build import build_model", "models.build"),
        ("utils", "import os, datasets.task", "datasets.task"),
        ("conch", "from utils.errors import UserError", "utils.errors"),
        ("models", "import main", "main"),
        ("utils", "importlib.import_module('predict')", "predict"),
        ("", "from main import parse", "main"),
        ("", "from tests.conftest import PROJECT", "tests.conftest"),
    ],
)
def test_a_forbidden_import_would_be_found(package: str, source: str, fault: str) -> None:
    assert forbidden(package, imported(ast.parse(source), (package,))) == {fault}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("models", "from utils.config import Config\nimport conch.tokenizer\nfrom models.graph import X\nimport torch"),
        ("models", "from .graph import X"),
        ("utils", "from utils.errors import UserError\nimport importlib.metadata"),
        ("", "from models.build import build_model\nimport datasets.bags"),
    ],
)
def test_an_allowed_import_is_not(package: str, source: str) -> None:
    assert forbidden(package, imported(ast.parse(source), (package,))) == set()


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_comes_without_loading_pytorch(script: str) -> None:
    command = [sys.executable, "-X", "importtime", f"{script}.py", "--help"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {script}.py")
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "utils.errors" in loaded
    heavy = re.compile(r"(torch|transformers|open_clip|pandas|numpy|sklearn|h5py|openslide|requests|openai)(\.|$)")
    assert {name for name in loaded if heavy.match(name)} == set()
