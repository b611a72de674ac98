"""What TCGA barcodes say."""

import itertools

import pytest

from datasets.barcodes import is_normal, slide_type_of


def test_normal_tissue_is_read_from_the_barcode() -> None:
    for code, rest in itertools.product(range(100), ("", "A", "Z-00-DX1.0B-11")):
        assert is_normal(f"TCGA-KL-8326-{code:02d}{rest}") is (10 <= code <= 14)
        assert not is_normal(f"GTEX-KL-8326-{code:02d}{rest}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TCGA-05-4244-01Z-00-DX1.d4ff32cd-38cf-40ea-8213-45c2b100ac01", "DX"),
        ("TCGA-05-4244-01Z-00-DX1", "DX"),
        ("TCGA-05-4244-01A-01-TS1.UUID", "TS"),
        ("TCGA-05-4244-11A-02-TSB", "TS"),
        ("TCGA-05-4244-01A-01-BS1", "BS"),
        ("TCGA-05-4244-01A-01-MSA", "MS"),
        ("TCGA-05-4244", None),
        ("TCGA-05-4244-01Z-00-XX1", None),
        ("TCGA-05-4244.DX1", None),
        ("S-01Z-00-DX1", None),
    ],
)
def test_the_type_of_slide_is_read_from_the_barcode(name: str, kind: str | None) -> None:
    assert slide_type_of(name) == kind
