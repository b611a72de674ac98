"""--project-with of both scripts, for the families beside CONCH: told by width, or by what the files say."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datasets.linking
from datasets.folders import FeatureFolders
from models.vlms.registry import load_head
from tests.conftest import FaultsOf, RunMain
from tests.support.faults import check_fault
from tests.support.feature_files import write_file
from tests.support.h5_files import arrays_of, attributes_of
from tests.support.linking_runs import numbers_told, options, place_trident, regular
from tests.support.musk_stand_in import save_musk
from tests.support.published_other_vlms import save_keep, save_siglip
from tests.support.published_vlms import save_open_clip
from tests.support.run_contents import files_below
from utils.files import file_sha256

CREATE, CHECK = "create_hierarchical_features", "check_hierarchical_consistency"
WIDTHS = {"keep": (32, 16), "quiltnet-b16": (32, 16), "musk": (8, 8), "musk_of_two_scales": (16, 8)}


@pytest.fixture(params=WIDTHS)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def model(tmp_path: Path, case: str) -> Path:
    """The folder of a model."""
    if case.startswith("musk"):
        with pytest.MonkeyPatch.context() as patch:  # its package is not needed
            return save_musk(tmp_path / "model", patch)
    return save_keep(tmp_path / "model") if case == "keep" else save_open_clip(tmp_path / "model")


@pytest.fixture
def folders(tmp_path: Path, case: str) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", case.split("_")[0])


of = pytest.mark.parametrize


def draw(number: int, width: int) -> np.ndarray:
    return 5 * np.random.default_rng(number).normal(size=(number, width)).astype(np.float32)


def put(folders: FeatureFolders, width: int, length: float | None = None, **told: Any) -> None:
    """A slide in the project's layout. length: of all rows. told: what its files say."""
    for file, coords in zip((folders.low_file("a"), folders.high_file("a")), regular(40, 0), strict=True):
        rows = draw(len(coords), width)
        write_file(file, length * rows / np.linalg.norm(rows, axis=1)[:, None] if length else rows, coords, told)


def files_of(folders: FeatureFolders) -> list[Path]:
    return [folders.low_file("a"), folders.high_file("a"), folders.hierarchical_file("a")]


def features_of(folders: FeatureFolders) -> dict[Path, np.ndarray]:
    return {file: arrays_of(file)["features"] for file in files_of(folders) if file.exists()}


def check_projected(folders: FeatureFolders, before: dict[Path, np.ndarray], model: Path) -> None:
    head = load_head(folders.feature_extractor, str(model))
    after = features_of(folders)
    for file, features in before.items():
        expected = head(features.reshape(-1, features.shape[-1]))
        if head.normalised:
            np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(after[file].reshape(expected.shape), expected, rtol=0, atol=1e-6)
    for file in files_of(folders):
        told = attributes_of(file)
        assert (told["projected"], told["normalised"]) == (True, head.normalised)
        assert told["projection_sha256"] == file_sha256(head.weights[0])
        assert arrays_of(file)["features"].shape[-1] == head.output_dim


@of("script", [CREATE, CHECK])
def test_features_are_projected_once(
    case: str, folders: FeatureFolders, model: Path, run_main: RunMain, script: str
) -> None:
    put(folders, WIDTHS[case][0])
    before = features_of(folders)
    if script == CHECK:
        assert run_main(options(folders), CREATE)[0] == 0
    more = ["--project-with", str(model), *(["--fix"] if script == CHECK else [])]
    code, out, err = run_main(options(folders, *more), script)
    assert (code, err) == (0, ""), out
    check_projected(folders, before, model)
    assert run_main(options(folders), CHECK)[0] == 0
    once = files_below(folders.root)
    for again in (CREATE, CHECK):
        fix = ["--fix"] if again == CHECK else []
        code, out, err = run_main(options(folders, "--project-with", str(model), *fix), again)
        assert (code, err) == (0, ""), out
        assert files_below(folders.root) == once
    code, out, _ = run_main(options(folders), CREATE)  # finished, and better than what was asked for
    assert (code, numbers_told(out)["slides skipped"]) == (0, 1)


def test_a_task_without_high_files(case: str, folders: FeatureFolders, model: Path, run_main: RunMain) -> None:
    put(folders, WIDTHS[case][0])
    assert run_main(options(folders), CREATE)[0] == 0
    before = {folders.low_file("a"): features_of(folders)[folders.low_file("a")]}
    shutil.rmtree(folders.high_file("a").parent)
    code, out, err = run_main(options(folders, "--fix", "--project-with", str(model)), CHECK)
    assert (code, err) == (0, ""), out
    once = files_below(folders.root)
    head = load_head(folders.feature_extractor, str(model))
    for file in (folders.low_file("a"), folders.hierarchical_file("a")):
        assert arrays_of(file)["features"].shape[-1] == head.output_dim
        assert attributes_of(file)["projection_sha256"] == file_sha256(head.weights[0])
    np.testing.assert_allclose(features_of(folders)[folders.low_file("a")], head(*before.values()), atol=1e-6)
    assert run_main(options(folders, "--fix", "--project-with", str(model)), CHECK)[0] == 0
    assert files_below(folders.root) == once


def test_an_interruption_between_the_scales_is_made_good(
    case: str, folders: FeatureFolders, model: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The low file is then as wide as the joint space, and the high one still as the tower's features."""
    put(folders, WIDTHS[case][0])
    before, write = features_of(folders), datasets.linking.write_h5

    def stop(file: Path, *rest: object) -> None:
        if file == folders.high_file("a"):
            raise KeyboardInterrupt
        write(file, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(datasets.linking, "write_h5", stop)
        assert run_main(options(folders, "--project-with", str(model)), CREATE)[0] == 130
    assert attributes_of(folders.low_file("a"))["projected"] and not folders.hierarchical_file("a").exists()
    code, out, err = run_main(options(folders, "--project-with", str(model)), CREATE)
    assert (code, err) == (0, ""), out
    check_projected(folders, before, model)


def test_features_of_trident_stay_as_they_are(
    case: str, folders: FeatureFolders, model: Path, run_main: RunMain
) -> None:
    for scale, coords in zip((5, 20), regular(40, 0), strict=True):
        place_trident(folders, "a", scale, 40, draw(len(coords), WIDTHS[case][0]), coords)
    sources = files_below(folders.root)
    for skipped in (0, 1):
        code, out, err = run_main(options(folders, "--project-with", str(model)), CREATE)
        assert (code, err, numbers_told(out).get("slides skipped", 0)) == (0, "", skipped)
    assert {name: data for name, data in files_below(folders.root).items() if name in sources} == sources
    check_projected(folders, {}, model)


# ---- what is not projected -------------------------------------------------------------------------------------------


def test_features_that_are_projected_are_left_alone(
    case: str, folders: FeatureFolders, model: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    """By their width or, where that does not tell, by what the files say."""
    put(folders, WIDTHS[case][1], length=1, **({"projected": True} if case.startswith("musk") else {}))
    faults = faults_of(options(folders, "--project-with", str(model)), CREATE)
    assert [(fault.code, fault.where) for fault in faults] == [("features.projected", str(folders.low_file("a")))]
    assert run_main(options(folders), CREATE)[0] == 0
    before = files_below(folders.root)
    code, out, err = run_main(options(folders, "--fix", "--project-with", str(model)), CHECK)
    assert (code, err) == (0, ""), out
    assert files_below(folders.root) == before


def test_features_of_another_width(
    case: str, folders: FeatureFolders, model: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    put(folders, 7)
    faults = faults_of(options(folders, "--project-with", str(model)), CREATE)
    check_fault(faults[0], "features.width", folders.low_file("a"), "7 wide", str(WIDTHS[case][0]), str(model))
    assert run_main(options(folders), CREATE)[0] in (0, 2)
    before = files_below(folders.root)
    assert run_main(options(folders, "--fix", "--project-with", str(model)), CHECK)[0] == 1
    assert files_below(folders.root) == before


@of("script", [CREATE, CHECK])
def test_models_without_a_projection(tmp_path: Path, faults_of: FaultsOf, script: str) -> None:
    folders = FeatureFolders(tmp_path / "data", "task", "other")
    put(folders, 8)
    before = files_below(folders.root)
    siglip, resnet = save_siglip(tmp_path / "siglip"), save_open_clip(tmp_path / "resnet", "resnet")
    for path, code in (
        (siglip, "projection.unreadable"), (resnet, "projection.unreadable"), (tmp_path / "none", "vlm.missing"),
        (folders.low_file("a"), "vlm.not_weights"),
    ):  # fmt: skip
        fix = ["--fix"] if script == CHECK else []
        assert [fault.code for fault in faults_of(options(folders, "--project-with", str(path), *fix), script)] == [
            code
        ]
    assert files_below(folders.root) == before


def test_rows_normalised_before_layers_that_need_their_lengths(tmp_path: Path, faults_of: FaultsOf) -> None:
    folders = FeatureFolders(tmp_path / "data", "task", "keep")
    put(folders, 32, length=1)
    faults = faults_of(options(folders, "--project-with", str(save_keep(tmp_path / "model"))), CREATE)
    assert [fault.code for fault in faults] == ["features.normalised"]


# ---- MUSK ------------------------------------------------------------------------------------------------------------


def test_musk_features_that_are_longer_are_told_with_the_command(tmp_path: Path, run_main: RunMain) -> None:
    folders = FeatureFolders(tmp_path / "my data", "task", "musk_v1")
    put(folders, 8)
    command = f"{folders.check_command()} --fix --project-with xiangjx/musk"
    code, out, _ = run_main(options(folders), CREATE)
    assert (code, command in out) == (0, True)
    assert not attributes_of(folders.hierarchical_file("a"))["projected"]
    code, out, _ = run_main(options(folders), CHECK)
    assert (code, command in out) == (1, True)


@of("told", [{"projected": False}, {}])
def test_musk_features_of_unit_length_are_projected_when_asked(
    tmp_path: Path, run_main: RunMain, told: dict[str, bool]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        model = save_musk(tmp_path / "model", patch)
    folders = FeatureFolders(tmp_path / "data", "task", "musk")
    put(folders, 8, length=1, **told)
    before = features_of(folders)
    code, out, err = run_main(options(folders), CREATE)
    assert (code, err, "xiangjx/musk" in out) == (0, "", False)
    assert not attributes_of(folders.hierarchical_file("a")).get("projected")  # nothing tells it
    assert run_main(options(folders), CHECK)[0] == 0
    code, out, err = run_main(options(folders, "--fix", "--project-with", str(model)), CHECK)
    assert (code, err) == (0, ""), out
    check_projected(folders, before, model)
