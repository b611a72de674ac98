"""CONCH features from before the projection: told, projected as CONCH does, and repaired, even after interruptions."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.consistency import check_slide
from datasets.patches import Patches
from datasets.projection import Projection, projection_attributes, projection_fault
from datasets.repair import repair_slide
from models.vlms.registry import load_head
from tests.support.conch_features import COMMAND, as_conch, conch_folders, conch_projection, matrix_of, unit
from tests.support.conch_weights import golden_visual, save_small
from tests.support.faults import check_fault, expect_faults
from tests.support.h5_files import changed
from tests.support.linked_slide import SLIDE, WIDTH, draw_slide, write_linked


@pytest.fixture
def projection() -> Projection:
    return conch_projection(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)).astype(np.float32))


def patches_of_length(length: float, kind: type = np.float32, **told: Any) -> Patches:
    features = length * unit(np.random.default_rng(0).normal(size=(50, WIDTH)))
    return Patches(Path("slide.h5"), features.astype(kind).astype(np.float32), np.zeros((50, 2), np.int64), told)


# ---- told ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "low", "high", "message"),
    [
        ("conch", 1.0, 1.0, None),
        ("conch", 9.7, 9.7, "9.7 at high magnification; CONCH features that are projected"),
        ("CONCH_v1", 1.0, 9.7, "CONCH"),
        ("conch", 1.02, 1.02, "CONCH"),
        ("conch", 0.98, 1.0, "CONCH"),
        ("plip", 9.7, 9.7, None),
        ("conchology", 9.7, 9.7, None),
        ("plip", 1.0, 1.0, None),
        ("plip", 1.0, 9.7, "one scale is normalised and the other is not"),
    ],
)
def test_projection_is_told_by_the_lengths_of_rows(encoder: str, low: float, high: float, message: str | None) -> None:
    folders = conch_folders(Path("my data"), encoder)
    for kind in (np.float32, np.float16):
        fault = projection_fault(folders, patches_of_length(low, kind).norms, patches_of_length(high, kind).norms)
        assert fault is None if message is None else fault is not None and message in fault
        if message and "conch" in encoder.lower():
            assert str(fault).endswith(COMMAND.format(root="'my data'", encoder=encoder))


def test_what_files_say_of_projection(tmp_path: Path) -> None:
    conch, plip = conch_folders(tmp_path), conch_folders(tmp_path, "plip")
    long, short = patches_of_length(9.7, projected=True), patches_of_length(1.0, projected=True)
    assert projection_attributes(conch, short, short) == {"projected": True, "normalised": True}
    told = projection_attributes(conch, long, short)
    assert (told["projected"], told["normalised"]) == (False, False)
    assert told["projection_warning"] == projection_fault(conch, long.norms, short.norms)
    assert projection_attributes(plip, long, long) == {"projected": True, "normalised": False}
    assert projection_attributes(plip, patches_of_length(1.0), short) == {"normalised": True}
    by = patches_of_length(1.0, projection_sha256="1"), patches_of_length(1.0, projection_sha256="2")
    assert projection_attributes(conch, by[0], by[0])["projection_sha256"] == "1"
    assert "projection_sha256" not in projection_attributes(conch, *by)


def test_conch_features_before_the_projection_are_a_fault_beyond_plain_repair(
    tmp_path: Path, projection: Projection
) -> None:
    folders = conch_folders(tmp_path)
    write_linked(folders, *draw_slide())
    check = check_slide(folders, SLIDE, projection=projection)
    assert [fault.kind for fault in check.faults] == ["projection"]
    assert (check.is_repairable, check.to_project) == (False, True)
    for file in (folders.low_file(SLIDE), folders.high_file(SLIDE), folders.hierarchical_file(SLIDE)):
        with changed(file) as arrays:
            arrays["features"] = unit(arrays["features"])
    check = check_slide(folders, SLIDE, projection=projection)
    assert (check.faults, check.to_project) == ([], False)
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        arrays["features"] = 3 * arrays["features"]
    check = check_slide(folders, SLIDE, projection=projection)
    assert ({fault.kind for fault in check.faults}, check.to_project) == ({"projection", "features"}, True)
    repair_slide(folders, SLIDE)
    assert check_slide(folders, SLIDE).faults == []


# ---- projected -------------------------------------------------------------------------------------------------------


def test_projecting_conchs_features_gives_its_embeddings(golden: Path) -> None:
    """Both recorded from CONCH's own code."""
    recorded = np.load(golden / "conch_full_size.npz")
    matrix = golden_visual(golden)["visual.proj_contrast"].numpy()
    projected = conch_projection(matrix).head(recorded["image_unprojected"])
    np.testing.assert_allclose(projected, recorded["image_embedding"], rtol=0, atol=1e-6)
    assert projected.dtype == np.float32


def test_patches_are_projected_once(projection: Projection) -> None:
    before = patches_of_length(9.7, projected=False, projection_warning="look", magnification=5)
    after = projection.of_patches(before)
    np.testing.assert_allclose(after.features, as_conch(before.features, matrix_of(projection)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(after.norms, 1, atol=1e-6)
    said = {"projected": True, "normalised": True, "projection_sha256": "a" * 64, "magnification": 5}
    assert (after.attributes, after.as_is, after.file) == (said, False, before.file)
    np.testing.assert_allclose(before.norms, 9.7, atol=1e-4)
    assert projection.of_patches(after) is after


REFUSED: dict[str, tuple[Callable[[], Patches], str, str]] = {
    "normalised": (lambda: patches_of_length(1), "features.projected", "rows are of length 1 already"),
    "half": (lambda: patches_of_length(1, np.float16), "features.projected", "rows are of length 1 already"),
    "said_so": (
        lambda: patches_of_length(9, projected=np.True_),
        "features.projected",
        "says that its features are projected",
    ),
    "by_another": (
        lambda: patches_of_length(1, projection_sha256="b" * 64),
        "features.projected",
        "rows are of length 1 already",
    ),
    "wide": (
        lambda: Patches(Path("slide.h5"), np.ones((2, WIDTH + 1), np.float32), np.zeros((2, 2), np.int64), {}),
        "features.width",
        "features are 9 wide",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_projected(projection: Projection, case: str) -> None:
    make, code, found = REFUSED[case]
    with expect_faults(code) as faults:
        projection.of_patches(make())
    assert faults[0].where == "slide.h5"
    assert faults[0].found.startswith("not projected: ") and found in faults[0].found


def test_rows_of_two_kinds_are_not_projected(projection: Projection) -> None:
    patches = patches_of_length(9.7)
    patches.features[:20] /= 9.7
    with expect_faults("features.projected"):
        projection.of_patches(patches)


def test_the_file_of_the_projection_is_fingerprinted(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    matrix = torch.arange(9.0).reshape(3, 3).half()
    torch.save({"visual.proj_contrast": matrix}, file)  # the rest of the image tower is not needed
    loaded = Projection.of(load_head("conch", str(file)))
    assert (loaded.head.told, loaded.sha256) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    assert matrix_of(loaded).dtype == np.float32
    np.testing.assert_array_equal(matrix_of(loaded), matrix)


NO_MATRIX = {
    "none": torch.ones(0),
    "absent": None,
    "a_number": torch.tensor(4.0),
    "a_row": torch.ones(4),
    "no_square": torch.ones(4, 3),
    "three_axes": torch.ones(2, 2, 2),
    "whole_numbers": torch.ones(4, 4, dtype=torch.int64),
    "infinite": torch.full((4, 4), torch.inf),
}


@pytest.mark.parametrize("case", NO_MATRIX)
def test_a_projection_that_is_no_square_matrix(tmp_path: Path, case: str) -> None:
    weights = save_small(tmp_path, **{"visual.proj_contrast": NO_MATRIX[case]})
    with expect_faults("projection.unreadable") as faults:
        load_head("conch", str(weights))
    check_fault(faults[0], "projection.unreadable", weights, "visual.proj_contrast", "MahmoodLab/CONCH")
