"""Feature files as this project, TRIDENT and CLAM write them: found, read into one form, and their patch sizes told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.feature_layouts import LAYOUT_NAMES, find_source
from datasets.folders import FeatureFolders
from tests.support.faults import expect_faults
from tests.support.feature_files import some_features, square, write_clam, write_file, write_trident


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "conch")


# ---- finding ---------------------------------------------------------------------------------------------------------


def place_reference(folders: FeatureFolders) -> Path:
    file = folders.low_file("a")
    write_file(file, some_features(3), square(3, 1, 2048), {})
    return file.parent


def place_trident(folders: FeatureFolders) -> Path:
    write_trident(folders.root, "a", some_features(3), square(3, 1, 512), 20, 40, "conch_v1")
    return write_trident(folders.root, "a", some_features(3), square(3, 1, 2048), 5, 40, "conch_v1")


def place_clam(folders: FeatureFolders) -> Path:
    return write_clam(folders.low_file("a").parent, "a", some_features(3), square(3, 1, 2048), 512, 1)


PLACES: dict[str, Callable[[FeatureFolders], Path]] = {
    "reference": place_reference,
    "trident": place_trident,
    "clam": place_clam,
}


TELL_PATCH_SIZE = {"trident", "clam"}


def test_every_layout_is_placed_here_and_offered_by_name() -> None:
    assert ("auto", *PLACES) == LAYOUT_NAMES


@pytest.mark.parametrize("layout", PLACES)
@pytest.mark.parametrize("named", [True, False])
def test_features_are_found_in_the_folder_of_the_dataset(folders: FeatureFolders, layout: str, named: bool) -> None:
    folder = PLACES[layout](folders)
    source = find_source(folders, 5, layout if named else "auto")
    assert (source.layout.name, source.folder) == (layout, folder)
    assert source.files() == {"a": folder / "a.h5"}
    attributes = source.layout.read(folder / "a.h5", 5).attributes
    assert ("patch_size" in attributes) == (layout in TELL_PATCH_SIZE)
    for other in set(PLACES) - {layout}:
        with expect_faults("features.missing"):
            find_source(folders, 5, other)


@pytest.mark.parametrize("layout", PLACES)
def test_features_are_found_at_and_above_a_folder_that_is_named(folders: FeatureFolders, layout: str) -> None:
    folder = PLACES[layout](folders)
    nowhere = FeatureFolders(folders.data_root, "other", "conch")
    for given in (folder, folder.parent, *([folder.parent.parent] if layout == "trident" else [])):
        source = find_source(nowhere, 5, "auto", given, "--low-dir")
        assert (source.layout.name, source.folder) == (layout, folder)
    with expect_faults("features.missing"):
        find_source(nowhere, 5, "auto", None, "--low-dir")


def test_any_folder_of_files_can_be_named(folders: FeatureFolders, tmp_path: Path) -> None:
    write_file(tmp_path / "mine" / "a.h5", some_features(3), square(3, 1, 2048), {})
    assert find_source(folders, 5, "auto", tmp_path / "mine").folder == tmp_path / "mine"


def test_trident_features_of_any_encoder_can_be_named_but_not_of_another_magnification(
    folders: FeatureFolders, tmp_path: Path
) -> None:
    folder = write_trident(tmp_path / "job", "a", some_features(3), square(3, 1, 512), 20, 40, "conch_v15")
    assert find_source(folders, 20, "auto", folder).layout.name == "trident"
    with expect_faults("features.missing"):
        find_source(folders, 20, "auto", tmp_path / "job")
    with expect_faults("features.missing"):
        find_source(folders, 5, "auto", folder)


def test_several_trident_folders_are_a_question_to_the_user(folders: FeatureFolders) -> None:
    folder = place_trident(folders)
    second = folder.parent.with_name("5x_512px_0px_overlap") / folder.name
    write_file(second / "a.h5", some_features(3), square(3, 1, 4096), {})
    with expect_faults("features.several_folders") as faults:
        find_source(folders, 5, option="--low-dir")
    assert str(folder) in faults[0].found and str(second) in faults[0].found
    assert "--low-dir" in faults[0].mend
    assert find_source(folders, 5, given=second).folder == second


def test_trident_is_preferred_to_the_copies_made_of_it(folders: FeatureFolders) -> None:
    place_reference(folders)
    assert find_source(folders, 5).layout.name == "reference"
    place_trident(folders)
    assert find_source(folders, 5).layout.name == "trident"


def test_clam_coordinates_may_lie_one_folder_up(folders: FeatureFolders, tmp_path: Path) -> None:
    folder = write_clam(tmp_path / "results", "a", some_features(3), square(3, 1, 2048), 512, 1, beside="features")
    source = find_source(folders, 5, "clam", tmp_path / "results" / "features")
    assert source.folder == folder
    read = source.layout.read(source.files()["a"], 5)
    assert read.attributes["save_path"] == str(tmp_path / "results" / "patches")


def test_names_of_slides(folders: FeatureFolders) -> None:
    folder = place_reference(folders)
    for name in ("TCGA-A1.B2_patches.h5", "b.h5", "b_patches.h5", "._b.h5", ".c.h5.tmp", "d.h5.bak"):
        (folder / name).touch()
    found = {slide_id: file.name for slide_id, file in find_source(folders, 5).files().items()}
    assert found == {"a": "a.h5", "TCGA-A1.B2": "TCGA-A1.B2_patches.h5", "b": "b.h5"}


def test_coordinates_of_trident_are_no_features(folders: FeatureFolders, tmp_path: Path) -> None:
    """Whether they lie in a folder of their own or beside the features; a file of this name with features is one."""
    features = write_trident(tmp_path / "job", "a", some_features(3), square(3, 1, 2048), 5, 40, "plip")
    coordinates = features.parent / "patches" / "a_patches.h5"
    with expect_faults("features.missing"):
        find_source(folders, 5, given=coordinates.parent)
    beside = tmp_path / "plip_5x"
    beside.mkdir()
    shutil.copy(coordinates, beside)
    with expect_faults("features.missing"):
        find_source(folders, 5, given=beside)
    shutil.copy(features / "a.h5", beside / "b_patches.h5")
    assert find_source(folders, 5, given=beside).files() == {"b": beside / "b_patches.h5"}
