"""The codes of faults, read from the syntax trees: their form, and one code for one kind."""

import ast
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import combinations

import pytest

from tests.conftest import PROJECT

FORM = re.compile(r"[a-z][a-z0-9]*\.[a-z][a-z0-9]*(_[a-z0-9]+)*")
# a problem has one word in all codes: what is there but cannot be read is "unreadable", what is not there "missing"
OTHER_WORDS = {
    **dict.fromkeys(("damaged", "broken", "corrupt", "invalid", "malformed"), "unreadable"),
    **dict.fromkeys(("absent", "none", "nothing", "lacking", "not_found"), "missing"),
    **dict.fromkeys(("duplicate", "double", "twice"), "repeated"),
}
ALIKE = 0.85
OPPOSITES = [("features.projected", "features.unprojected"), ("run.finished", "run.unfinished")]


def sources() -> Iterator[ast.Module]:
    """The syntax trees of all scripts and packages but the tests and benchmarks."""
    for file in [*PROJECT.glob("*.py"), *(init.parent for init in PROJECT.glob("*/__init__.py"))]:
        if file.name not in ("tests", "benchmarks"):
            for one in [file] if file.is_file() else sorted(file.rglob("*.py")):
                yield ast.parse(one.read_text(encoding="utf-8"))


def literals(node: ast.expr) -> set[str]:
    """The texts that an expression may be: of a conditional one both."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) | literals(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def codes_of(tree: ast.Module) -> set[str]:
    """The codes in a module: what ``Fault`` is called with, and functions whose first argument is called ``code``,
    and what a variable ``code`` is set to."""
    takers = {"Fault"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            takers |= {node.name} if names[:1] == ["code"] else set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in takers and node.args:
            found |= literals(node.args[0])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
            found |= literals(node.value)
    return found


def codes() -> list[str]:
    return sorted(set().union(*map(codes_of, sources())))


def near_doubles(found: list[str]) -> list[tuple[str, str]]:
    """Pairs of codes of one subject whose problems are spelt alike."""
    return [
        (one, other)
        for one, other in combinations(found, 2)
        if one.partition(".")[0] == other.partition(".")[0]
        and SequenceMatcher(None, one.partition(".")[2], other.partition(".")[2]).ratio() > ALIKE
    ]


def test_every_code_is_a_subject_and_a_problem() -> None:
    found = codes()
    assert len(found) > 100
    assert {"features.width", "run.unreadable_table", "vlm.no_text_side", "instances.values", "vlm.unreadable"} <= set(
        found
    )
    assert [code for code in found if not FORM.fullmatch(code)] == []


def test_every_fault_is_given_a_code_that_can_be_read_here() -> None:
    """A literal, or the argument or variable ``code``."""
    unread = [
        ast.unparse(node)
        for tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Fault"
        if not literals(node.args[0]) and ast.unparse(node.args[0]) != "code"
    ]
    assert unread == []


def test_a_kind_of_fault_has_one_code() -> None:
    found = codes()
    words = {code: set(code.partition(".")[2].split("_")) | {code.partition(".")[2]} for code in found}
    assert {code: wrong for code, said in words.items() if (wrong := said & OTHER_WORDS.keys())} == {}
    assert near_doubles(found) == OPPOSITES
    subjects = {code.partition(".")[0] for code in found}
    assert {name for name in subjects if f"{name}s" in subjects} == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('Fault("a.b", "")', {"a.b"}),
        ('raise UserError(Fault("a.b" if x else "a.c", ""))', {"a.b", "a.c"}),
        ('def add(code: str): faults.append(Fault(code, ""))\nadd("a.d")', {"a.d"}),
        ('class D:\n  def error(self, code): ...\nraise damage.error("a.e")', {"a.e"}),
        ('code = "a.f" if x else "a.g"', {"a.f", "a.g"}),
        ('print("main.py")', set()),
    ],
)
def test_codes_are_found(source: str, expected: set[str]) -> None:
    assert codes_of(ast.parse(source)) == expected


def test_doubles_would_be_found() -> None:
    assert near_doubles(["a.not_read", "a.not_ready", "b.not_read", "a.width"]) == [("a.not_read", "a.not_ready")]
