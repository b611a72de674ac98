"""--project-with of both scripts: CONCH features from before the projection become what CONCH's own code gives."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.conftest import RunMain
from tests.support.conch_features import as_conch
from tests.support.conch_weights import golden_visual
from tests.support.feature_files import write_file
from tests.support.h5_files import arrays_of, attributes_of
from tests.support.linking_runs import WIDTH, numbers_told, options, place_trident, regular
from tests.support.run_contents import files_below
from utils.files import file_sha256

CREATE, CHECK = "create_hierarchical_features", "check_hierarchical_consistency"


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "conch")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "conch.bin"
    matrix = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(4))
    torch.save({"visual.proj_contrast": matrix, "logit_scale": torch.tensor(4.0)}, file)
    return file


def matrix_of(weights: Path) -> np.ndarray:
    return torch.load(weights)["visual.proj_contrast"].numpy()


def features_of(folders: FeatureFolders, slide_id: str) -> dict[Path, np.ndarray]:
    files = folders.low_file(slide_id), folders.high_file(slide_id), folders.hierarchical_file(slide_id)
    return {file: arrays_of(file)["features"] for file in files if file.exists()}


def assert_projected(folders: FeatureFolders, slide_id: str, before: dict[Path, np.ndarray], weights: Path) -> None:
    after = features_of(folders, slide_id)
    assert len(after) == 3
    for file, features in before.items():
        np.testing.assert_allclose(after[file], as_conch(features, matrix_of(weights)), rtol=0, atol=1e-6)
    for file in after:
        told = attributes_of(file)
        assert (told["projected"], told["normalised"]) == (True, True)
        assert told["projection_sha256"] == file_sha256(weights)
        assert "projection_warning" not in told
    mask = arrays_of(folders.hierarchical_file(slide_id))["mask"]
    np.testing.assert_allclose(np.linalg.norm(after[folders.hierarchical_file(slide_id)][mask], axis=1), 1, atol=1e-5)


def draw(number: int) -> np.ndarray:
    """Rows about as long as CONCH's before the projection."""
    return 22 * np.random.default_rng(number).normal(size=(number, WIDTH)).astype(np.float32)


def put(folders: FeatureFolders, slide_id: str) -> None:
    """A slide in the project's layout."""
    for file, coords in zip((folders.low_file(slide_id), folders.high_file(slide_id)), regular(40, 0), strict=True):
        write_file(file, draw(len(coords)), coords, {})


def place_both(folders: FeatureFolders, slide_id: str) -> None:
    """A slide as TRIDENT leaves it."""
    for scale, coords in zip((5, 20), regular(40, 0), strict=True):
        place_trident(folders, slide_id, scale, 40, draw(len(coords)), coords)


@pytest.mark.parametrize("script", [CREATE, CHECK])
def test_golden_features_through_the_scripts(
    golden: Path, folders: FeatureFolders, tmp_path: Path, run_main: RunMain, script: str
) -> None:
    """What CONCH's own code gives before and after the projection, a slide's patches being two images in turn."""
    weights = tmp_path / "pytorch_model.bin"
    torch.save({"visual.proj_contrast": golden_visual(golden)["visual.proj_contrast"]}, weights)
    recorded = np.load(golden / "conch_full_size.npz")
    for file, coords in zip((folders.low_file("a"), folders.high_file("a")), regular(40, 0), strict=True):
        write_file(file, recorded["image_unprojected"][np.arange(len(coords)) % 2], coords, {})
    if script == CHECK:
        assert run_main(options(folders), CREATE)[0] == 0
        assert run_main(options(folders), CHECK)[0] == 1
    fix = ["--fix"] if script == CHECK else []
    code, _, err = run_main(options(folders, *fix, "--project-with", str(weights)), script)
    assert (code, err) == (0, "")
    for file in (folders.low_file("a"), folders.high_file("a")):
        features = arrays_of(file)["features"]
        expected = recorded["image_embedding"][np.arange(len(features)) % 2]
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6)
    bag = read_bag(folders, Slide("a", "p", 0), 512)
    np.testing.assert_allclose(bag.high_features[bag.child_mask].norm(dim=1), 1, atol=1e-5)
    assert run_main(options(folders), CHECK)[0] == 0


# ---- create_hierarchical_features.py ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_features_of_trident_are_linked_projected(
    folders: FeatureFolders, weights: Path, run_main: RunMain, workers: str
) -> None:
    for slide_id in ("a", "b"):
        place_both(folders, slide_id)
    sources = files_below(folders.root)
    plain = options(folders, "--output-dir", str(folders.data_root / "plain"))
    assert run_main(plain, CREATE)[0] == 0
    before = {name: features_of(folders, name) for name in "ab"}
    for name in before:
        hierarchical = arrays_of(folders.data_root / "plain" / f"{name}.h5")["features"]
        before[name][folders.hierarchical_file(name)] = hierarchical
    for folder in {file.parent for file in before["a"]} - {folders.hierarchical_file("a").parent}:
        shutil.rmtree(folder)
    code, out, err = run_main(options(folders, "--project-with", str(weights), "--workers", workers), CREATE)
    assert (code, err, "warning" in out) == (0, "", False)
    for name in "ab":
        assert_projected(folders, name, before[name], weights)
    after = files_below(folders.root)
    assert {name: after[name] for name in sources} == sources
    assert run_main(options(folders), CHECK)[0] == 0
    code, out, _ = run_main(options(folders, "--project_with", str(weights)), CREATE)
    assert (code, numbers_told(out)["slides skipped"]) == (0, 2)
    code, out, _ = run_main(options(folders), CREATE)  # finished, and better than what was asked for
    assert (code, numbers_told(out)["slides skipped"]) == (0, 2)


def test_a_finished_slide_made_without_is_not_skipped(
    folders: FeatureFolders, weights: Path, tmp_path: Path, run_main: RunMain
) -> None:
    put(folders, "a")
    before = features_of(folders, "a")
    old = {file: file.read_bytes() for file in before}
    code, out, _ = run_main(options(folders), CREATE)
    assert (code, "--fix --project-with conch/pytorch_model.bin" in out) == (0, True)
    before = features_of(folders, "a")
    code, _, err = run_main(options(folders, "--project-with", str(weights)), CREATE)
    assert code == 2
    assert f"{folders.hierarchical_file('a')}: is there, made without --project-with {weights}; --overwrite" in err
    assert {file: file.read_bytes() for file in old} == old
    code, _, err = run_main(options(folders, "--project-with", str(weights), "--overwrite"), CREATE)
    assert (code, err) == (0, "")
    assert_projected(folders, "a", before, weights)
    for file, data in old.items():
        assert file.with_name("a.h5.bak").read_bytes() == data
    once = {file: file.read_bytes() for file in old}
    assert run_main(options(folders, "--project-with", str(weights), "--overwrite"), CREATE)[0] == 0
    assert {file: file.read_bytes() for file in old} == once  # not projected twice
    other = tmp_path / "other.bin"
    torch.save({"visual.proj_contrast": torch.eye(WIDTH)}, other)
    for more, message in (((), "made without --project-with"), (("--overwrite",), "rows are of length 1 already")):
        code, _, err = run_main(options(folders, "--project-with", str(other), *more), CREATE)
        assert (code, message in err) == (2, True)
    assert {file: file.read_bytes() for file in old} == once


def test_an_interruption_between_the_scales_is_made_good(
    folders: FeatureFolders, weights: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.linking

    put(folders, "a")
    before = features_of(folders, "a")
    write = datasets.linking.write_h5

    def stop(file: Path, *rest: object) -> None:
        if file == folders.high_file("a"):
            raise KeyboardInterrupt
        write(file, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(datasets.linking, "write_h5", stop)
        assert run_main(options(folders, "--project-with", str(weights)), CREATE)[0] == 130
    assert attributes_of(folders.low_file("a"))["projected"] and not folders.hierarchical_file("a").exists()
    code, _, err = run_main(options(folders, "--project-with", str(weights)), CREATE)
    assert (code, err) == (0, "")
    assert_projected(folders, "a", before, weights)


def test_a_copy_made_without_is_not_kept(folders: FeatureFolders, weights: Path, run_main: RunMain) -> None:
    place_both(folders, "a")
    assert run_main(options(folders), CREATE)[0] == 0
    before = features_of(folders, "a")
    folders.hierarchical_file("a").unlink()
    code, _, err = run_main(options(folders, "--project-with", str(weights)), CREATE)
    assert (code, "is there, and differs from" in err, "--overwrite replaces it" in err) == (2, True, True)
    assert run_main(options(folders, "--project-with", str(weights), "--overwrite"), CREATE)[0] == 0
    assert_projected(folders, "a", before, weights)


def test_features_that_need_no_projection_are_refused(
    folders: FeatureFolders, weights: Path, run_main: RunMain
) -> None:
    for name in ("unit", "good"):
        put(folders, name)
    for file in (folders.low_file("unit"), folders.high_file("unit")):
        with h5py.File(file, "r+") as opened:
            opened["features"][...] /= np.linalg.norm(opened["features"][()], axis=1, keepdims=True)
    before = features_of(folders, "unit")
    code, out, err = run_main(options(folders, "--project-with", str(weights)), CREATE)
    assert (code, numbers_told(out)["slides done"], numbers_told(out)["slides failed"]) == (2, 1, 1)
    assert "unit.h5: not projected: its rows are of length 1 already, as projected features are" in err
    for file, features in features_of(folders, "unit").items():
        np.testing.assert_array_equal(features, before[file])


@pytest.mark.parametrize("script", [CREATE, CHECK])
def test_a_file_without_a_fitting_projection(
    folders: FeatureFolders, tmp_path: Path, run_main: RunMain, script: str
) -> None:
    put(folders, "a")
    more = ["--fix"] if script == CHECK else []
    weights = tmp_path / "weights.bin"
    for state, message in (
        (None, f"--project-with {weights}: no such folder or file"),
        (
            {"text.cls_emb": torch.ones(3)},
            f"{weights}: the matrix visual.proj_contrast is not there; expected a square matrix",
        ),
        ({"visual.ln_contrast.weight": torch.ones(3)}, f"{weights}: the matrix visual.proj_contrast is not there"),
    ):
        if state:
            torch.save(state, weights)
        before = files_below(folders.root, "*.h5")
        code, _, err = run_main(options(folders, *more, "--project-with", str(weights)), script)
        assert (code, f"error: {message}" in err) == (2, True), err
        assert files_below(folders.root, "*.h5") == before
    torch.save({"visual.proj_contrast": torch.eye(WIDTH + 1)}, weights)
    code, out, err = run_main(options(folders, *more, "--project-with", str(weights)), script)
    assert code == (1 if script == CHECK else 2)
    assert f"features are {WIDTH} wide; expected {WIDTH + 1}, as visual.proj_contrast in {weights}" in out + err


# ---- check_hierarchical_consistency.py -------------------------------------------------------------------------------


@pytest.mark.parametrize("has_high", [True, False])
def test_the_named_command_mends_a_task(
    folders: FeatureFolders, weights: Path, run_main: RunMain, has_high: bool
) -> None:
    for slide_id in ("a", "b"):
        put(folders, slide_id)
    assert run_main(options(folders), CREATE)[0] == 0
    before = {name: features_of(folders, name) for name in "ab"}
    if not has_high:
        shutil.rmtree(folders.high_file("a").parent)
        before = {
            name: {f: v for f, v in files.items() if f != folders.high_file(name)} for name, files in before.items()
        }
    code, out, _ = run_main(options(folders), CHECK)
    assert (code, "projection: 2 slides" in out) == (1, True)
    assert f"{folders.check_command()} --fix --project-with conch/pytorch_model.bin" in out
    code, out, _ = run_main(options(folders, "--fix"), CHECK)
    assert (code, "2 slides: 0 consistent (0 repaired), 2 with faults" in out) == (1, True)
    command = options(folders, "--fix", "--project-with", str(weights))
    code, out, err = run_main(command, CHECK)
    assert (code, err) == (0, "")
    assert "2 slides: 2 consistent (2 repaired), 0 with faults" in out
    for name, files in before.items():
        for file, features in files.items():
            expected = as_conch(features, matrix_of(weights))
            np.testing.assert_allclose(arrays_of(file)["features"], expected, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(arrays_of(file.with_name(f"{name}.h5.bak"))["features"], features)
        if has_high:
            assert_projected(folders, name, files, weights)
    once = files_below(folders.root)
    code, out, _ = run_main(command, CHECK)
    assert (code, "2 slides: 2 consistent (0 repaired), 0 with faults" in out) == (0, True)
    assert files_below(folders.root) == once


def test_a_high_file_alone_left_unprojected_is_mended(
    folders: FeatureFolders, weights: Path, run_main: RunMain
) -> None:
    put(folders, "a")
    high = folders.high_file("a").read_bytes()
    assert run_main(options(folders, "--project-with", str(weights)), CREATE)[0] == 0
    good = features_of(folders, "a")
    folders.high_file("a").write_bytes(high)
    code, out, _ = run_main(options(folders, "--fix", "--project-with", str(weights)), CHECK)
    assert (code, "1 consistent (1 repaired)" in out) == (0, True)
    for file, features in features_of(folders, "a").items():
        np.testing.assert_array_equal(features, good[file])


def test_projecting_changes_files_and_wants_to_be_told_so(
    folders: FeatureFolders, weights: Path, run_main: RunMain
) -> None:
    put(folders, "a")
    code, _, err = run_main(options(folders, "--project-with", str(weights)), CHECK)
    assert (code, "--project-with changes files: expected together with --fix" in err) == (2, True)
