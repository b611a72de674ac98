"""CONCH features from before the projection: told, projected as CONCH does, and repaired, even after interruptions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import datasets.consistency
from datasets.consistency import check_slide, repair_slide
from datasets.feature_layouts import Patches, read_patches
from datasets.folders import FeatureFolders
from datasets.hierarchy import read_stored
from datasets.projection import Projection, load_projection, projection_attributes, projection_fault
from tests.conch.weights import golden_visual
from tests.datasets.test_consistency import SLIDE, WIDTH, changed, content, draw_slide, write_slide
from utils.errors import UserError

COMMAND = (
    "python check_hierarchical_consistency.py --dataset-root-path {root} --dataset-name task --feature-extractor-name "
    "{encoder} --fix --project-with conch/pytorch_model.bin"
)


def conch_folders(root: Path, encoder: str = "conch") -> FeatureFolders:
    return FeatureFolders(root, "task", encoder)


@pytest.fixture
def projection() -> Projection:
    matrix = np.random.default_rng(3).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    return Projection(matrix, Path("pytorch_model.bin"), "a" * 64)


def as_conch(features: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """CONCH's own two lines, in PyTorch. (..., D) -> (..., D); zero rows stay."""
    return torch.nn.functional.normalize(torch.tensor(features) @ torch.tensor(matrix), dim=-1).numpy()


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-9)


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


def test_conch_features_before_the_projection_are_a_fault_beyond_plain_repair(tmp_path: Path) -> None:
    folders = conch_folders(tmp_path)
    write_slide(folders, *draw_slide())
    check = check_slide(folders, SLIDE)
    assert [fault.kind for fault in check.faults] == ["projection"]
    assert (check.is_repairable, check.normalised) == (False, False)
    for file in (folders.low_file(SLIDE), folders.high_file(SLIDE), folders.hierarchical_file(SLIDE)):
        with changed(file) as arrays:
            arrays["features"] = unit(arrays["features"])
    check = check_slide(folders, SLIDE)
    assert (check.faults, check.normalised) == ([], True)
    with changed(folders.hierarchical_file(SLIDE)) as arrays:
        arrays["features"] = 3 * arrays["features"]
    check = check_slide(folders, SLIDE)
    assert ({fault.kind for fault in check.faults}, check.normalised) == ({"projection", "features"}, False)
    repair_slide(folders, SLIDE)
    assert check_slide(folders, SLIDE).faults == []


# ---- projected -------------------------------------------------------------------------------------------------------


def test_projecting_conchs_features_gives_its_embeddings(golden: Path) -> None:
    """Both recorded from CONCH's own code."""
    recorded = np.load(golden / "conch_full_size.npz")
    matrix = golden_visual(golden)["visual.proj_contrast"].numpy()
    projected = Projection(matrix, Path("file"), "").of_rows(recorded["image_unprojected"])
    np.testing.assert_allclose(projected, recorded["image_embedding"], rtol=0, atol=1e-6)
    assert projected.dtype == np.float32


def test_patches_are_projected_once(projection: Projection) -> None:
    before = patches_of_length(9.7, projected=False, projection_warning="look", magnification=5)
    after = projection.of_patches(before)
    np.testing.assert_allclose(after.features, as_conch(before.features, projection.matrix), rtol=0, atol=1e-6)
    np.testing.assert_allclose(after.norms, 1, atol=1e-6)
    said = {"projected": True, "normalised": True, "projection_sha256": "a" * 64, "magnification": 5}
    assert (after.attributes, after.as_is, after.file) == (said, False, before.file)
    np.testing.assert_allclose(before.norms, 9.7, atol=1e-4)
    assert projection.of_patches(after) is after


REFUSED: dict[str, tuple[Callable[[], Patches], str]] = {
    "normalised": (lambda: patches_of_length(1), "rows are of length 1 already, .* leave out --project-with"),
    "half": (lambda: patches_of_length(1, np.float16), "rows are of length 1 already"),
    "said_so": (lambda: patches_of_length(9, projected=np.True_), "says that its features are projected"),
    "by_another": (lambda: patches_of_length(1, projection_sha256="b" * 64), "rows are of length 1 already"),
    "wide": (
        lambda: Patches(Path("slide.h5"), np.ones((2, WIDTH + 1), np.float32), np.zeros((2, 2), np.int64), {}),
        "features are 9 wide, expected 8, as visual.proj_contrast in pytorch_model.bin",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_projected(projection: Projection, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=rf"slide\.h5: not projected: .*{message}"):
        projection.of_patches(make())


def test_rows_of_two_kinds_are_not_projected(projection: Projection) -> None:
    patches = patches_of_length(9.7)
    patches.features[:20] /= 9.7
    with pytest.raises(UserError, match="20 of 50 rows are of length 1 and the others are not"):
        projection.of_patches(patches)


def test_the_file_of_the_projection_is_fingerprinted(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    loaded = load_projection(file, lambda path: np.eye(len(path.read_bytes())))
    assert (loaded.file, loaded.matrix.shape) == (file, (3, 3))
    assert loaded.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def refuse(path: Path) -> np.ndarray:
        raise ValueError(f"{path}: no matrix")

    with pytest.raises(UserError, match=r"weights\.bin: no matrix"):
        load_projection(file, refuse)


# ---- repaired --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["with_high_file", "without"])
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> FeatureFolders:
    folders = conch_folders(tmp_path)
    write_slide(folders, *draw_slide())
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
    coords = [children[:2] for row in content(folders) for children in row]
    repair_slide(folders, SLIDE, projection=projection)
    check = check_slide(folders, SLIDE)
    assert (check.faults, check.normalised) == ([], True)
    for file, (features, data) in before.items():
        np.testing.assert_allclose(features_of(file), as_conch(features, projection.matrix), rtol=0, atol=1e-6)
        assert file.with_name(f"{file.name}.bak").read_bytes() == data
        with h5py.File(file) as opened:
            told = dict(opened.attrs)
        assert (told["projected"], told["normalised"], told["projection_sha256"]) == (True, True, "a" * 64)
        assert "projection_warning" not in told
        assert told["patch_size_level0"] in (2048, 512)
        assert "mpp" in told or file == folders.high_file(SLIDE)
    assert [children[:2] for row in content(folders) for children in row] == coords
    mask = read_stored(folders.hierarchical_file(SLIDE)).mask
    assert not features_of(folders.hierarchical_file(SLIDE))[~mask].any()


@pytest.mark.parametrize("which", ["low_file", "high_file", "hierarchical_file"])
def test_only_files_that_need_it_are_projected(tmp_path: Path, projection: Projection, which: str) -> None:
    """One file is left unprojected among others that do not tell who projected them."""
    folders = conch_folders(tmp_path)
    write_slide(folders, *draw_slide())
    expected = {file: as_conch(features_of(file), projection.matrix) for file in files_of(folders)}
    left = getattr(folders, which)(SLIDE)
    for file, projected in expected.items():
        if file != left:
            with changed(file) as arrays:
                arrays["features"] = projected
    assert not check_slide(folders, SLIDE).normalised
    old = bytes_of(folders)
    repair_slide(folders, SLIDE, projection=projection)
    check = check_slide(folders, SLIDE)
    assert (check.faults, check.normalised) == ([], True)
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
    expected = {file: as_conch(features_of(file), projection.matrix) for file in files_of(folders)}
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
            patch.setattr(datasets.consistency, name, stopped(getattr(datasets.consistency, name)))
        if writes < len(expected):
            with pytest.raises(KeyboardInterrupt):
                repair_slide(folders, SLIDE, projection=projection)
        else:
            repair_slide(folders, SLIDE, projection=projection)
    assert len(written) == min(writes, len(expected))
    assert check_slide(folders, SLIDE).normalised is (writes >= len(expected))
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
    with pytest.raises(UserError, match="no child would lie in any parent"):
        repair_slide(folders, SLIDE, projection=projection)
    wide = Projection(np.eye(WIDTH + 1, dtype=np.float32), Path("wide.bin"), "")
    with pytest.raises(UserError, match=r"expected 9, as visual\.proj_contrast in wide\.bin"):
        repair_slide(folders, SLIDE, projection=wide)
    assert bytes_of(folders) == before


def test_a_missing_hierarchical_file_is_made_of_projected_features(tmp_path: Path, projection: Projection) -> None:
    folders = conch_folders(tmp_path)
    write_slide(folders, *draw_slide())
    expected = as_conch(features_of(folders.hierarchical_file(SLIDE)), projection.matrix)
    folders.hierarchical_file(SLIDE).unlink()
    repair_slide(folders, SLIDE, projection=projection)
    np.testing.assert_allclose(features_of(folders.hierarchical_file(SLIDE)), expected, rtol=0, atol=1e-6)


def test_features_under_a_wrong_mask_are_projected_too(tmp_path: Path, projection: Projection) -> None:
    """Without a high file, children that the mask hides are children all the same."""
    folders = conch_folders(tmp_path)
    write_slide(folders, *draw_slide())
    folders.high_file(SLIDE).unlink()
    file = folders.hierarchical_file(SLIDE)
    expected = as_conch(features_of(file), projection.matrix)
    with changed(file) as arrays:
        arrays["mask"][7, 3] = False
    repair_slide(folders, SLIDE, projection=projection)
    np.testing.assert_allclose(features_of(file), expected, rtol=0, atol=1e-6)
    assert read_patches(folders.low_file(SLIDE), 5).attributes["magnification"] == 5
