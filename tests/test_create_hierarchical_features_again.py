"""create_hierarchical_features.py: what it refuses, skips, keeps and replaces."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets.bags import read_bag
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.conftest import FaultsOf, RunMain
from tests.support.feature_files import write_file
from tests.support.h5_files import arrays_of, attributes_of
from tests.support.linking_runs import WIDTH, numbers_told, options, place_trident, put, random_features, regular

SCRIPT, CHECK = "create_hierarchical_features", "check_hierarchical_consistency"


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "plip")


# ---- what it refuses -------------------------------------------------------------------------------------------------


def test_all_failures_are_listed_and_the_other_slides_written(folders: FeatureFolders, run_main: RunMain) -> None:
    low, high = regular(40, 0)
    for slide_id in ("good", "nest", "empty_low", "empty_high", "nan", "zero", "cut", "only_low", "only_high", "width"):
        put(folders, slide_id, low, high)
    put(folders, "elsewhere", low, high + 10**6)
    put(folders, "nest", low, high // 512 * 896)
    empty = np.zeros((0, WIDTH), np.float32), np.zeros((0, 2), int)
    write_file(folders.low_file("empty_low"), *empty, {})
    write_file(folders.high_file("empty_high"), *empty, {})
    for slide_id, value in (("nan", np.nan), ("zero", 0)):
        with h5py.File(folders.high_file(slide_id), "r+") as opened:
            opened["features"][3] = value
    cut = folders.low_file("cut")
    cut.write_bytes(cut.read_bytes()[:900])
    folders.high_file("only_low").unlink()
    folders.low_file("only_high").unlink()
    write_file(folders.low_file("width"), np.ones((len(low), WIDTH + 1), np.float32), low, {})
    code, out, err = run_main(options(folders), SCRIPT)
    assert code == 2
    assert "Traceback" not in err
    assert "10 of 11 slides failed; the files of others stay" in out
    assert err.startswith("error: 10 faults\n")
    assert (numbers_told(out)["slides done"], numbers_told(out)["slides failed"]) == (1, 10)
    for message in (
        r"5x/nest\.h5: patches of 2048 level-0 pixels \(by stride\) do not nest with those of 896 \(by stride\)",
        r"5x/empty_low\.h5: empty, no 5x patch",
        r"20x/empty_high\.h5: empty, no 20x patch",
        r"20x/nan\.h5: of \d+ feature rows 1 have NaN",
        r"20x/zero\.h5: of \d+ feature rows 0 have NaN or infinite values and 1 are all zero",
        r"5x/cut\.h5: not a readable HDF5 file",
        r"5x/only_low\.h5: no 20x file of this slide",
        r"20x/only_high\.h5: no 5x file of this slide",
        r"5x/width\.h5: features are 7 wide, those of .* 6",
        r"20x/elsewhere\.h5: none of \d+ children lies in any of 30 parents",
    ):
        assert re.search(rf"  - \S*{message}", err), message
    made = folders.hierarchical_file("good").parent
    assert [file.name for file in made.iterdir()] == ["good.h5"]


def test_features_that_are_not_there(folders: FeatureFolders, run_main: RunMain) -> None:
    code, _, err = run_main(options(folders), SCRIPT)
    assert code == 2
    assert "error: 2 faults" in err and "--low-dir" in err and "--high-dir" in err
    low, high = regular(40, 0)
    put(folders, "a", low, high)
    folder = str(folders.low_file("a").parent)
    code, _, err = run_main(options(folders, "--low-dir", folder, "--high-dir", folder), SCRIPT)
    assert (code, "expected two folders, one for each magnification" in err) == (2, True)


def test_nothing_is_written_where_writing_fails(
    folders: FeatureFolders, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.hierarchy

    put(folders, "a", *regular(40, 0))

    def full(path: Path, arrays: Any, told: Any) -> None:
        from utils.whole_files import whole_file

        with whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.hierarchy, "write_h5", full)
    code, _, err = run_main(options(folders), SCRIPT)
    assert (code, "not written" in err, "No space left on device" in err) == (2, True, True)
    assert list(folders.hierarchical_file("a").parent.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [["--low-mag", "20"], ["--max-patches", "0"], ["--layout", "qupath"], ["--low-mag", "x"], ["--seed", "-1"]]
)
def test_wrong_options(folders: FeatureFolders, run_main: RunMain, wrong: list[str]) -> None:
    code, _, err = run_main(options(folders, *wrong), SCRIPT)
    assert code == 2
    assert wrong[0] in err or "--low_mag" in err


# ---- what it leaves --------------------------------------------------------------------------------------------------


def test_files_that_are_there_are_skipped(folders: FeatureFolders, run_main: RunMain) -> None:
    for slide_id in ("a", "b", "c"):
        put(folders, slide_id, *regular(40, 0))
    assert run_main(options(folders), SCRIPT)[0] == 0
    files = {slide_id: folders.hierarchical_file(slide_id) for slide_id in ("a", "b", "c")}
    first = {slide_id: file.read_bytes() for slide_id, file in files.items()}
    times = {slide_id: file.stat().st_mtime_ns for slide_id, file in files.items()}
    files["b"].unlink()
    files["c"].write_bytes(first["c"][:2000])  # cut off by something else
    code, out, _ = run_main(options(folders), SCRIPT)
    assert (code, numbers_told(out)["slides done"], numbers_told(out)["slides skipped"]) == (0, 2, 1)
    assert {slide_id: file.read_bytes() for slide_id, file in files.items()} == first
    assert files["a"].stat().st_mtime_ns == times["a"]
    code, out, _ = run_main(options(folders, "--overwrite"), SCRIPT)
    assert (code, numbers_told(out)["slides done"]) == (0, 3)
    assert files["a"].stat().st_mtime_ns != times["a"]


def test_files_made_otherwise_are_not_replaced_unasked(folders: FeatureFolders, run_main: RunMain) -> None:
    put(folders, "a", *regular(40, 0))
    assert run_main(options(folders), SCRIPT)[0] == 0
    before = folders.hierarchical_file("a").read_bytes()
    code, _, err = run_main(options(folders, "--max-patches", "8"), SCRIPT)
    assert (code, "made otherwise" in err, "--overwrite replaces it" in err) == (2, True, True)
    assert folders.hierarchical_file("a").read_bytes() == before
    assert run_main(options(folders, "--max-patches", "8", "--overwrite"), SCRIPT)[0] == 0
    assert arrays_of(folders.hierarchical_file("a"))["mask"].shape == (30, 8)


def test_features_that_are_there_are_not_replaced_unasked(folders: FeatureFolders, run_main: RunMain) -> None:
    low, high = regular(40, 0)
    put(folders, "a", low, high)
    before = folders.low_file("a").read_bytes(), folders.high_file("a").read_bytes()
    for scale, coords in ((5, low), (20, high)):
        place_trident(folders, "a", scale, 40, random_features(len(coords), 9), coords)
    code, _, err = run_main(options(folders), SCRIPT)
    assert (code, "is there, and differs from" in err) == (2, True)
    assert (folders.low_file("a").read_bytes(), folders.high_file("a").read_bytes()) == before
    assert run_main(options(folders, "--overwrite"), SCRIPT)[0] == 0
    np.testing.assert_array_equal(arrays_of(folders.low_file("a"))["features"], random_features(len(low), 9))
    folders.hierarchical_file("a").unlink()
    assert run_main(options(folders), SCRIPT)[0] == 0  # the same features: nothing to replace
    folders.low_file("a").unlink()
    assert run_main(options(folders), SCRIPT)[0] == 0
    assert folders.low_file("a").is_file()


def test_a_batch_dimension_in_place_is_dropped_and_the_old_file_kept(
    folders: FeatureFolders, run_main: RunMain
) -> None:
    low, high = regular(40, 0)
    for file, coords in ((folders.low_file("a"), low), (folders.high_file("a"), high)):
        write_file(file, random_features(len(coords), 0)[None], coords[None], {})
    before = folders.low_file("a").read_bytes()
    assert run_main(options(folders), SCRIPT)[0] == 0
    assert read_bag(folders, Slide("a", "p", 0), WIDTH).low_features.shape == (30, WIDTH)
    assert folders.low_file("a").with_name("a.h5.bak").read_bytes() == before
    code, out, _ = run_main(options(folders), SCRIPT)
    assert (code, numbers_told(out)["slides skipped"]) == (0, 1)


def test_the_suffix_of_a_name_is_dropped(folders: FeatureFolders, run_main: RunMain) -> None:
    put(folders, "a_patches", *regular(40, 0))
    assert run_main(options(folders), SCRIPT)[0] == 0
    assert read_bag(folders, Slide("a", "p", 0), WIDTH).low_features.shape == (30, WIDTH)
    code, out, _ = run_main(options(folders), SCRIPT)
    assert (code, numbers_told(out)["slides skipped"]) == (0, 1)


def test_an_output_folder_of_ones_own(folders: FeatureFolders, run_main: RunMain, tmp_path: Path) -> None:
    put(folders, "a", *regular(40, 0))
    code, out, _ = run_main(options(folders, "--output-dir", str(tmp_path / "own")), SCRIPT)
    assert (code, f"hierarchical files in {tmp_path / 'own'}" in out) == (0, True)
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["a.h5"]
    assert not folders.hierarchical_file("a").exists()


def test_the_seed_decides_and_workers_do_not(folders: FeatureFolders, run_main: RunMain) -> None:
    for number in range(3):
        put(folders, f"slide{number}", *regular(40, number, missing=0))
    made = {}
    for seed, workers in ((1, 1), (1, 2), (2, 2)):
        more = "--max-patches", "7", "--overwrite", "--seed", str(seed), "--workers", str(workers)
        assert run_main(options(folders, *more), SCRIPT)[0] == 0
        files = sorted(folders.hierarchical_file("x").parent.iterdir())
        made[seed, workers] = [arrays_of(file)["coords"] for file in files]
    for one, two, other in zip(made[1, 1], made[1, 2], made[2, 2], strict=True):
        np.testing.assert_array_equal(one, two)
        assert (one != other).any()


def test_other_magnifications_and_spellings(tmp_path: Path, run_main: RunMain) -> None:
    folders = FeatureFolders(tmp_path, "task", "plip", 10, 40)
    low, high = regular(40, 0)
    put(folders, "a", low // 2, high // 2)
    dashes = [word.replace("-", "_") if word.startswith("--") else word for word in options(folders)]
    underscores = ["--" + word[2:] if word.startswith("__") else word for word in dashes]
    more = "--low_mag", "10x", "--high_mag", "40", "--max_patches", "16"
    code, out, err = run_main([*underscores, *more], SCRIPT)
    assert (code, err) == (0, "")
    assert folders.hierarchical_file("a").is_file()
    assert "1024 by stride, 256 by stride" in out
    code, out, _ = run_main([*options(folders), "--low-mag", "10", "--high-mag", "40x"], CHECK)
    assert code == 0


def test_files_of_another_rule_are_refused_and_replaced(
    folders: FeatureFolders, faults_of: FaultsOf, run_main: RunMain
) -> None:
    """Squares that overlap by a column of children, which by the released code's rule are in both."""
    low = np.array([(x, y * 2048) for y in range(4) for x in (0, 1536)])
    high = np.array([(x * 512, y * 512) for y in range(16) for x in range(7)])
    put(folders, "a", low, high, patch_size_level0=512)
    write_file(folders.low_file("a"), random_features(len(low), 3), low, {"patch_size_level0": 2048})
    linked = {}
    for rule, number in (("centre", 112), ("released", 128)):
        if linked:
            (fault,) = faults_of(options(folders, "--link-rule", rule), SCRIPT)
            assert (fault.code, fault.where) == ("features.made_otherwise", str(folders.hierarchical_file("a")))
        code, out, _ = run_main(options(folders, "--link-rule", rule, "--overwrite"), SCRIPT)
        assert (code, numbers_told(out)["children linked"]) == (0, number)
        linked[rule] = attributes_of(folders.hierarchical_file("a"))["link_rule"]
        assert run_main(options(folders), CHECK)[0] == 0
    assert linked == {"centre": "centre", "released": "released"}
