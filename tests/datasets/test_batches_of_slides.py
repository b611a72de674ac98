"""Batches of regions: of one slide each, equally large, all regions once."""

from hypothesis import given
from hypothesis import strategies as st

from datasets.slide_features import even_parts


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 50))
def test_even_parts(first: int, number: int, most: int) -> None:
    parts = even_parts(first, first + number, most)
    assert [item for part in parts for item in part] == list(range(first, first + number))
    sizes = [len(part) for part in parts]
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)
    assert len(parts) == (number + most - 1) // most
