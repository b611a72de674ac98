"""Slides that cannot be planned, and whose word counts for a magnification."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pyramids
from benchmarks.pyramids import tissue
from datasets.slides import Magnification
from tests.support.faults import expect_faults
from tests.support.planned_slides import plan


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda file: file.unlink(), "slide.missing"),
        (lambda file: file.write_bytes(b"II*\0nothing"), "slide.unreadable"),
        (lambda file: pyramids.write_pyramid(file, np.full((1500, 1500, 3), 240, np.uint8)), "slide.no_tissue"),
    ],
)
def test_slides_that_cannot_be_planned(tmp_path: Path, change: Callable[[Path], None], code: str) -> None:
    file = pyramids.write_pyramid(tmp_path / "slide.tif", tissue(1500, 1500, [(0, 0, 1400, 1400)]))
    change(file)
    with expect_faults(code) as faults:
        plan(tmp_path, file)
    assert faults[0].where == str(file)


def test_a_tag_goes_before_what_the_user_says(tmp_path: Path) -> None:
    file = pyramids.write_pyramid(tmp_path / "slide.tif", tissue(1500, 1500, [(0, 0, 1400, 1400)]), mpp=0.5)
    said = "0.5 microns per pixel, although --level0-mag says 40x"
    assert plan(tmp_path, file, level0=40).magnification == Magnification(20, said, is_doubtful=True)
    assert plan(tmp_path, file, level0=20).magnification == Magnification(20, "0.5 microns per pixel")
