"""create_hierarchical_features.py: every layout against double loops; what it says."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.patch_sizes import PatchSizes
from datasets.task import Slide
from tests.conftest import RunMain, SimulatedTask
from tests.support.feature_files import write_clam, write_file
from tests.support.h5_files import arrays_of, attributes_of
from tests.support.linking_runs import WIDTH, numbers_told, options, place_trident, put, random_features, regular
from tests.support.linking_twin import children_by_loops

SCRIPT, CHECK = "create_hierarchical_features", "check_hierarchical_consistency"


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "plip")


def tissue_pieces(level0: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners as CLAM cuts them: three pieces of tissue with grids of their own, the finer ones not always aligned."""
    generator = np.random.default_rng(seed)
    parent, child = 256 * level0 // 5, 256 * level0 // 20
    low, high = [], []
    for number, shift in enumerate((0, 0, child // 3)):
        left, top = (generator.integers(0, parent, 2) + np.array([number * 5 * parent, 0])).tolist()
        low += [(left + x * parent, top + y * parent) for y in range(4) for x in range(3)]
        high += [(left + shift + x * child, top + y * child) for y in range(16) for x in range(13)]
    return np.array(low), np.array(high)


def expected_children(low: np.ndarray, high: np.ndarray, level0: int) -> list[list[int]]:
    return children_by_loops(low, high, PatchSizes(256 * level0 // 5, 256 * level0 // 20, "", ""))


# ---- every layout against the double loop ----------------------------------------------------------------------------


def place_reference(folders: FeatureFolders, slide_id: str, scale: int, level0: int, *arrays: np.ndarray) -> list[str]:
    file = folders.low_file(slide_id) if scale == 5 else folders.high_file(slide_id)
    write_file(file, *arrays, {})
    return []


def place_clam(folders: FeatureFolders, slide_id: str, scale: int, level0: int, *arrays: np.ndarray) -> list[str]:
    """256 pixels at 5x are 512 of the second level at 40x."""
    folder, name = folders.data_root / f"clam_{scale}x", "--low-dir" if scale == 5 else "--high-dir"
    size = 256 * level0 // scale
    level = 1 if size > 1000 else 0
    write_clam(folder, slide_id, *arrays, size // 4**level, level)
    return [name, str(folder)]


PLACES: dict[str, Callable[..., list[str]]] = {
    "reference": place_reference,
    "trident": place_trident,
    "clam": place_clam,
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("level0", [40, 20])
@pytest.mark.parametrize("layout", PLACES)
def test_a_layout_gives_the_double_loops_children(
    folders: FeatureFolders, run_main: RunMain, layout: str, level0: int, named: bool
) -> None:
    made: dict[str, tuple[np.ndarray, ...]] = {}
    more: dict[str, str] = {}
    kinds: list[tuple[type, type]] = [(np.float32, np.int64), (np.float64, np.float32), (np.float16, np.int32)]
    for number, (features_kind, coords_kind) in enumerate(kinds):
        slide_id = f"TCGA-{number}.A_B"
        low, high = (tissue_pieces if layout == "clam" else regular)(level0, number)
        arrays = low, high, random_features(len(low), 1), random_features(len(high), 2)
        for scale, coords, features in ((5, low, arrays[2]), (20, high, arrays[3])):
            given = PLACES[layout](
                folders, slide_id, scale, level0, features.astype(features_kind), coords.astype(coords_kind)
            )
            more |= dict(zip(given[::2], given[1::2], strict=True))
        made[slide_id] = (*arrays[:2], *(array.astype(features_kind).astype(np.float32) for array in arrays[2:]))
    extra = [word for pair in more.items() for word in pair]
    code, out, err = run_main(options(folders, *extra, *(["--layout", layout] if named else [])), SCRIPT)
    assert (code, err) == (0, "")
    origin = "stride" if layout == "reference" else "attributes"
    sizes = f"{256 * level0 // 5} by {origin}, {256 * level0 // 20} by {origin} (3 slides)"
    assert f"patch sizes in level-0 pixels: {sizes}" in out
    assert out.count(f"({layout} layout)") == 2

    for slide_id, (low, high, low_features, high_features) in made.items():
        expected = expected_children(low, high, level0)
        assert any(expected) and sum(map(len, expected)) < len(high)  # some children have no parent
        file = arrays_of(folders.hierarchical_file(slide_id))
        assert {name: (values.dtype, values.shape) for name, values in file.items()} == {
            "features": (np.float32, (len(low), 16, WIDTH)),
            "coords": (np.int64, (len(low), 16, 2)),
            "mask": (bool, (len(low), 16)),
        }
        for row, members in enumerate(expected):
            kept = file["mask"][row]
            np.testing.assert_array_equal(file["coords"][row, kept], high[members].reshape(-1, 2))
            np.testing.assert_array_equal(file["features"][row, kept], high_features[members].reshape(-1, WIDTH))
            assert not file["features"][row, ~kept].any() and not file["coords"][row, ~kept].any()
        # rows of the 5x file that main.py reads are those of the hierarchical file
        np.testing.assert_array_equal(arrays_of(folders.low_file(slide_id))["coords"], low)
        bag = read_bag(folders, Slide(slide_id, "p", 0), WIDTH)
        np.testing.assert_array_equal(bag.low_features, low_features)
        np.testing.assert_array_equal(bag.child_mask, file["mask"])
        told = attributes_of(folders.hierarchical_file(slide_id))
        assert told["patch_sizes_from"] == f"{origin}, {origin}"
        assert (told["parent_size_level0"], told["patch_size_level0"]) == (256 * level0 // 5, 256 * level0 // 20)
        assert (told["encoder"], told["seed"], told["low_magnification"], told["high_magnification"]) == (
            "plip", 1, 5, 20,
        )  # fmt: skip
    code, out, _ = run_main(options(folders), CHECK)
    assert code == 0, out
    assert "3 slides: 3 consistent" in out


def test_copies_of_another_tools_features_tell_where_they_are_from(folders: FeatureFolders, run_main: RunMain) -> None:
    low, high = regular(40, 0)
    for scale, coords in ((5, low), (20, high)):
        place_trident(folders, "a", scale, 40, random_features(len(coords), scale), coords.astype(float))
    assert run_main(options(folders), SCRIPT)[0] == 0
    for file, scale, coords in ((folders.low_file("a"), 5, low), (folders.high_file("a"), 20, high)):
        copy, told = arrays_of(file), attributes_of(file)
        np.testing.assert_array_equal(copy["coords"], coords)
        np.testing.assert_array_equal(copy["features"], random_features(len(coords), scale))
        assert (told["magnification"], told["patch_size_level0"], told["level0_magnification"]) == (
            scale, 256 * 40 // scale, 40,
        )  # fmt: skip
        assert f"{scale}x_256px_0px_overlap" in told["low_source" if scale == 5 else "high_source"]


def test_the_simulated_task_is_rebuilt_as_it_was_and_trains(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain
) -> None:
    task = SimulatedTask(tmp_path / "copy")
    shutil.copytree(simulated.root, task.root)
    made = task.features / "hierarchical_tinyclip_5x_20x"
    originals = {file.name: arrays_of(file) for file in made.iterdir()}
    shutil.rmtree(made)
    folders = FeatureFolders(task.root / "features", "simulated", "tinyclip")
    code, out, _ = run_main(options(folders), SCRIPT)
    assert code == 0
    assert re.search(r"slides done +20\n", out)
    assert {file.name for file in made.iterdir()} == originals.keys()
    for name, original in originals.items():
        rebuilt = arrays_of(made / name)
        assert rebuilt.keys() == original.keys()
        for key, values in original.items():
            np.testing.assert_array_equal(rebuilt[key], values)
            assert rebuilt[key].dtype == values.dtype
        assert attributes_of(made / name)["simulated"]
    code, out, err = run_main(task.options(tmp_path / "results", "--dry_run"))
    assert (code, err) == (0, "")
    assert "dry run: all checks passed" in out


def test_released_files_and_ours_train_alike(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    """Released files have no mask; children stand in front, and zero rows fill up."""
    results = {}
    for form in ("ours", "released"):
        task = SimulatedTask(tmp_path / form)
        shutil.copytree(simulated.root, task.root)
        folders = FeatureFolders(task.root / "features", "simulated", "tinyclip")
        code, _, _ = run_main(options(folders, "--overwrite"), SCRIPT)
        assert code == 0
        if form == "released":
            for file in (task.features / "hierarchical_tinyclip_5x_20x").iterdir():
                arrays = arrays_of(file)
                front = np.argsort(~arrays["mask"], axis=1, kind="stable")[..., None]
                with h5py.File(file, "w") as opened:
                    for name in ("features", "coords"):
                        opened[name] = np.take_along_axis(arrays[name], front, axis=1)
            code, out, _ = run_main(options(folders), CHECK)
            assert code == 0
            assert "no mask, as in released files" in out
        run = tmp_path / f"results_{form}"
        code, _, err = run_main(task.options(run, "--k", "1", "--max_epochs", "2"))
        assert (code, err) == (0, "")
        results[form] = pd.read_csv(task.run_folder(run) / "predictions_0.csv")
    probabilities = [name for name in results["ours"] if name.startswith("prob_")]
    assert len(probabilities) == 2
    np.testing.assert_allclose(results["ours"][probabilities], results["released"][probabilities], atol=1e-5, rtol=0)
    pd.testing.assert_frame_equal(
        results["ours"].drop(columns=probabilities), results["released"].drop(columns=probabilities)
    )


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_the_summary_counts(folders: FeatureFolders, run_main: RunMain) -> None:
    low = np.array([(x * 2048, y * 2048) for y in range(4) for x in range(4)])
    fine = np.array([(x * 512, y * 512) for y in range(16) for x in range(20)])  # the last four columns: no parent
    fine = fine[(fine // 2048 != [0, 0]).any(1)]  # the first parent has no child
    put(folders, "a", low, np.concatenate([fine, fine[:3]]))
    code, out, _ = run_main(options(folders, "--max-patches", "10"), SCRIPT)
    assert code == 0
    assert numbers_told(out) == {
        "slides done": 1, "slides skipped": 0, "slides failed": 0, "parents": 16, "childless parents": 1,
        "children": 307, "children linked": 150, "children dropped, parent full": 90,
        "children without parent": 64, "children repeated": 3,
    }  # fmt: skip
    assert "15 parents have more than --max-patches 10 children; 90 were left out, by a draw with --seed 1" in out
    told = attributes_of(folders.hierarchical_file("a"))
    assert (told["children_dropped"], told["children_without_parent"], told["children_repeated"]) == (90, 64, 3)
    assert told["slots"] == "packed"


def test_sizes_from_the_table_of_slides(folders: FeatureFolders, run_main: RunMain, tmp_path: Path) -> None:
    put(folders, "a", np.array([[0, 0], [6144, 0]]), np.array([[512, 512], [6144, 0]]))
    code, _, err = run_main(options(folders), SCRIPT)
    assert code == 2
    assert "write its level0_mag into the table of slides" in err
    table = tmp_path / "slides.csv"
    table.write_text("case_id,slide_id,label,level0_mag\np,a,X,40\n")
    for spelt in ("--dataset_csv", "--dataset-csv"):
        code, out, _ = run_main(options(folders, spelt, str(table), "--overwrite"), SCRIPT)
        assert code == 0
        assert "2048 by level0_mag, 512 by level0_mag (1 slides)" in out
    assert attributes_of(folders.hierarchical_file("a"))["level0_magnification"] == 40
    table.write_text("slide_id,level0_mag\na,much\n")
    code, _, err = run_main(options(folders, "--dataset_csv", str(table)), SCRIPT)
    assert (code, "level0_mag of a is 'much'" in err) == (2, True)
    code, _, err = run_main(options(folders, "--dataset_csv", str(tmp_path / "absent.csv")), SCRIPT)
    assert (code, "absent.csv" in err) == (2, True)


def test_attributes_that_the_coordinates_contradict_are_warned_of(folders: FeatureFolders, run_main: RunMain) -> None:
    low, high = regular(20, 0, missing=0)
    write_file(folders.low_file("a"), random_features(len(low), 0), low, {"patch_size_level0": 1024})
    write_file(folders.high_file("a"), random_features(len(high), 0), high, {"patch_size_level0": 512})
    code, out, _ = run_main(options(folders), SCRIPT)
    assert code == 0
    assert "warning: stride: 1 slides\n  a: patches at 20x are 512 level-0 pixels wide, but 256 apart" in out
    assert "warning: ratio: 1 slides\n  a: a parent is 2 children wide; the magnifications say 4" in out


@pytest.mark.parametrize(("encoder", "projected"), [("conch", True), ("conch", False), ("my_CONCH_v1", False)])
def test_conch_features_before_the_projection_are_warned_of(
    tmp_path: Path, run_main: RunMain, encoder: str, projected: bool
) -> None:
    folders = FeatureFolders(tmp_path, "task", encoder)
    low, high = regular(40, 0)
    for file, coords in ((folders.low_file("a"), low), (folders.high_file("a"), high)):
        features = random_features(len(coords), 0)
        if projected:
            features /= np.linalg.norm(features, axis=1, keepdims=True)
        write_file(file, features.astype(np.float16), coords, {})
    code, out, _ = run_main(options(folders), SCRIPT)
    assert code == 0
    assert ("warning: projection: 1 slides" in out) is not projected
    assert ("training on them fails silently" in out) is not projected
    told = attributes_of(folders.hierarchical_file("a"))
    assert (bool(told["projected"]), bool(told["normalised"])) == (projected, projected)
    assert ("projection_warning" in told) is not projected
    assert run_main(options(folders), CHECK)[0] == (0 if projected else 1)
