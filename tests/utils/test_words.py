"""How messages quote, list and count."""

import pytest

from utils.words import LONGEST, listed, quoted


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        (["a"], "'a'"),
        (["a", "b c", ""], "'a', 'b c', ''"),
        ([f"s{n}" for n in range(32)], "'s0', 's1', 's2', 's3', 's4' and 27 more"),
        ([3, 4.5, None], "3, 4.5, None"),
        (["\ud800", "a\nb"], "'\\ud800', 'a\\nb'"),
    ],
)
def test_lists(values: list[object], expected: str) -> None:
    assert listed(values) == expected
    listed(values).encode()


def test_names_of_the_project_stand_as_they_are() -> None:
    assert listed(iter(["lr", "seed", "k"]), 2, quote=False) == "lr, seed and 1 more"


def test_a_long_value_loses_its_middle() -> None:
    text = quoted("a" * 500 + "z")
    assert len(text) <= LONGEST and text.startswith("'aaa") and text.endswith("z'")
