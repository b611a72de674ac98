"""What the manifest of split files says."""

import hashlib

from datasets.splits import Split
from datasets.task import Slide
from datasets.write_splits import describe_fold


def test_a_fold_is_described_by_what_it_holds() -> None:
    slides = [Slide(f"slide_{n}", f"patient_{n // 3}", n % 2) for n in range(12)]
    sites = {slide.slide_id: f"S{n % 4}" for n, slide in enumerate(slides)}
    pool, split = Split(3, slides[:6], slides[6:9], slides[9:]), Split(3, slides[:2], slides[6:9], slides[9:])
    record = describe_fold(pool, split, ["A", "B"], sites)
    assert record == {
        "fold": 3,
        "sha256": hashlib.sha256(split.to_csv().encode()).hexdigest(),
        "slides": {
            "train_pool": {"A": 3, "B": 3},
            "train": {"A": 1, "B": 1},
            "val": {"A": 2, "B": 1},
            "test": {"A": 1, "B": 2},
        },
        "shared_patients": {"train/val": 0, "train/test": 0, "val/test": 0},
        "shared_sites": {"train/val": 1, "train/test": 1, "val/test": 2},  # S0 S1; S2 S3 S0; S1 S2 S3
    }
