"""Files with CONCH features from before the projection are repaired, even after interruptions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import datasets.repair
from datasets.consistency import check_slide
from datasets.folders import FeatureFolders
from datasets.hierarchy import read_stored
from datasets.patches import read_patches
from datasets.projection import Projection
from datasets.repair import repair_slide
from tests.support.conch_features import as_conch, conch_folders, conch_projection, matrix_of
from tests.support.faults import expect_faults
from tests.support.h5_files import changed
from tests.support.linked_slide import SLIDE, WIDTH, children_of, draw_slide, write_linked


@pytest.fixture
def projection() -> Projection:
    return conch_projection(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)).astype(np.float32))


# ---- repaired --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["with_high_file", "without"])
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> FeatureFolders:
    folders = conch_folders(tmp_path)
    write_linked(folders, *draw_slide())
    for file in (folders.low_file(SLIDE), folders.hierarchical_file(SLIDE)):
        with h5py.File(file, "r+") as opened:
            opened.attrs.update({"projected": False, "normalised": False, "projection_warning": "look", "mpp": 0.5})
    if request.param == "without":
        folders.high_file(SLIDE).unlink()
    return folders


def files_of(folders: FeatureFolders) -> list[Path]:
    files = folders.low_file(SLIDE), folders.high_file(SLIDE), folders.hierarchical_file(SLIDE)
    return [file for file in files if file.exists()]


def bytes_of(folders: FeatureFolders) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folders.root.rglob("*") if file.is_file()}


def features_of(file: Path) -> np.ndarray:
    with h5py.File(file) as opened:
        return opened["features"][()]


def test_all_files_of_a_slide_are_projected(folders: FeatureFolders, projection: Projection) -> None:
    before = {file: (features_of(file), file.read_bytes()) for file in files_of(folders)}
    coords = [children[:2] for row in children_of(folders) for children in row]
    repair_slide(folders, SLIDE, projection=projection)
    check = check_slide(folders, SLIDE, projection=projection)
    assert (check.faults, check.to_project) == ([], False)
    for file, (features, data) in before.items():
        np.testing.assert_allclose(features_of(file), as_conch(features, matrix_of(projection)), rtol=0, atol=1e-6)
        assert file.with_name(f"{file.name}.bak").read_bytes() == data
        with h5py.File(file) as opened:
            told = dict(opened.attrs)
        assert (told["projected"], told["normalised"], told["projection_sha256"]) == (True, True, "a" * 64)
        assert "projection_warning" not in told
        assert told["patch_size_level0"] in (2048, 512)
        assert "mpp" in told or file == folders.high_file(SLIDE)
    assert [children[:2] for row in children_of(folders) for children in row] == coords
    mask = read_stored(folders.hierarchical_file(SLIDE)).mask
    assert not features_of(folders.hierarchical_file(SLIDE))[~mask].any()


@pytest.mark.parametrize("which", ["low_file", "high_file", "hierarchical_file"])
def test_only_files_that_need_it_are_projected(tmp_path: Path, projection: Projection, which: str) -> None:
    """One file is left unprojected among others that do not tell who projected them."""
    folders = conch_folders(tmp_path)
    write_linked(folders, *draw_slide())
    expected = {file: as_conch(features_of(file), matrix_of(projection)) for file in files_of(folders)}
    left = getattr(folders, which)(SLIDE)
    for file, projected in expected.items():
        if file != left:
            with changed(file) as arrays:
                arrays["features"] = projected
    assert check_slide(folders, SLIDE, projection=projection).to_project
    old = bytes_of(folders)
    repair_slide(folders, SLIDE, projection=projection)
    check = check_slide(folders, SLIDE, projection=projection)
    assert (check.faults, check.to_project) == ([], False)
    for file, projected in expected.items():
        np.testing.assert_allclose(features_of(file), projected, rtol=0, atol=1e-6)
    rebuilt = {left, folders.hierarchical_file(SLIDE)}
    assert {file for file in files_of(folders) if file.read_bytes() != old[file]} == rebuilt


def test_nothing_is_projected_twice(folders: FeatureFolders, projection: Projection) -> None:
    repair_slide(folders, SLIDE, projection=projection)
    once = {file: features_of(file) for file in files_of(folders)}
    names = set(bytes_of(folders))
    repair_slide(folders, SLIDE, projection=projection)
    for file, features in once.items():
        np.testing.assert_array_equal(features_of(file), features)
    hierarchical = folders.hierarchical_file(SLIDE)
    assert set(bytes_of(folders)) - names == {hierarchical.with_name(f"{hierarchical.name}.bak2")}


@pytest.mark.parametrize("writes", range(3))
def test_an_interruption_is_made_good(
    folders: FeatureFolders, projection: Projection, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Stopped behind so many files: a plain repair in between does no harm, another projecting one ends as one would
    have."""
    expected = {file: as_conch(features_of(file), matrix_of(projection)) for file in files_of(folders)}
    written = []

    def stopped(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(file: Path, *rest: Any) -> None:
            if len(written) == writes:
                raise KeyboardInterrupt
            written.append(file)
            write(file, *rest)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("write_h5", "write_hierarchy"):
            patch.setattr(datasets.repair, name, stopped(getattr(datasets.repair, name)))
        if writes < len(expected):
            with pytest.raises(KeyboardInterrupt):
                repair_slide(folders, SLIDE, projection=projection)
        else:
            repair_slide(folders, SLIDE, projection=projection)
    assert len(written) == min(writes, len(expected))
    assert check_slide(folders, SLIDE, projection=projection).to_project is (writes < len(expected))
    repair_slide(folders, SLIDE)
    repair_slide(folders, SLIDE, projection=projection)
    assert check_slide(folders, SLIDE).faults == []
    for file, features in expected.items():
        np.testing.assert_allclose(features_of(file), features, rtol=0, atol=1e-6)


def test_a_refusal_leaves_all_as_it_is(folders: FeatureFolders, projection: Projection) -> None:
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        arrays["coords"] = arrays["coords"] + 10**7 * arrays["mask"][..., None]
    if folders.high_file(SLIDE).exists():
        with changed(folders.high_file(SLIDE)) as arrays:
            arrays["coords"] = arrays["coords"] + 10**7
    before = bytes_of(folders)
    with expect_faults("features.unrelated"):
        repair_slide(folders, SLIDE, projection=projection)
    wide = conch_projection(np.eye(WIDTH + 1, dtype=np.float32), "wide.bin", "")
    with expect_faults("features.width"):
        repair_slide(folders, SLIDE, projection=wide)
    assert bytes_of(folders) == before


def test_a_missing_hierarchical_file_is_made_of_projected_features(tmp_path: Path, projection: Projection) -> None:
    folders = conch_folders(tmp_path)
    write_linked(folders, *draw_slide())
    expected = as_conch(features_of(folders.hierarchical_file(SLIDE)), matrix_of(projection))
    folders.hierarchical_file(SLIDE).unlink()
    repair_slide(folders, SLIDE, projection=projection)
    np.testing.assert_allclose(features_of(folders.hierarchical_file(SLIDE)), expected, rtol=0, atol=1e-6)


def test_features_under_a_wrong_mask_are_projected_too(tmp_path: Path, projection: Projection) -> None:
    """Without a high file, children that the mask hides are children all the same."""
    folders = conch_folders(tmp_path)
    write_linked(folders, *draw_slide())
    folders.high_file(SLIDE).unlink()
    file = folders.hierarchical_file(SLIDE)
    expected = as_conch(features_of(file), matrix_of(projection))
    with changed(file) as arrays:
        arrays["mask"][7, 3] = False
    repair_slide(folders, SLIDE, projection=projection)
    np.testing.assert_allclose(features_of(file), expected, rtol=0, atol=1e-6)
    assert read_patches(folders.low_file(SLIDE), 5).attributes["magnification"] == 5
