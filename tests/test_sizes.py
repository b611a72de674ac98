"""Files and functions stay small enough to be read at once; ruff holds their complexity."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import PROJECT

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60


def python_files() -> Iterator[Path]:
    """Every Python file of the project, below folders that are packages as well."""
    yield from PROJECT.glob("*.py")
    for package in PROJECT.glob("*/__init__.py"):
        yield from package.parent.rglob("*.py")


def long_functions(source: str) -> dict[str, int]:
    """The lines of functions that are too long, with their decorators, by name."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = (node.end_lineno or first) - first + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                found[node.name] = lines
    return found


def test_no_file_is_long() -> None:
    lengths = {
        str(file.relative_to(PROJECT)): len(file.read_text(encoding="utf-8").splitlines()) for file in python_files()
    }
    assert {"main.py", "models/build.py", "tests/test_sizes.py", "benchmarks/model.py"} <= lengths.keys()
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_function_is_long() -> None:
    found = {
        f"{file.relative_to(PROJECT)}: {name}": lines
        for file in python_files()
        for name, lines in long_functions(file.read_text(encoding="utf-8")).items()
    }
    assert found == {}


def test_a_long_function_would_be_found() -> None:
    body = "".join(f"    x = {number}\n" for number in range(MOST_LINES_OF_A_FUNCTION))
    assert long_functions(f"class A:\n  def f():\n{body}".replace("    x", "      x")) == {"f": 61}
    assert long_functions(f"def f():\n{body.removesuffix('    x = 59' + chr(10))}") == {}
