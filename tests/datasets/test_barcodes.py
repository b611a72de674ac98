"""What TCGA barcodes say."""

import itertools

from datasets.barcodes import is_normal


def test_normal_tissue_is_read_from_the_barcode() -> None:
    for code, rest in itertools.product(range(100), ("", "A", "Z-00-DX1.0B-11")):
        assert is_normal(f"TCGA-KL-8326-{code:02d}{rest}") is (10 <= code <= 14)
        assert not is_normal(f"GTEX-KL-8326-{code:02d}{rest}")
