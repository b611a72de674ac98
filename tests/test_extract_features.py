"""extract_features.py: from slides to features that pass the check and train; what it skips, refuses and reports."""

import os
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.pyramids import tissue, write_pyramid
from datasets.folders import FeatureFolders
from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side
from tests.conftest import RunMain, SimulatedTask
from tests.support.forked import start_script
from tests.support.real_slides import real_slide
from tests.support.run_contents import files_below

SCRIPT, CHECK = "extract_features", "check_hierarchical_consistency"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tinyclip"
    save_tiny_clip(folder, width=16)
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides that tell 20x; in the subfolder one that does not tell its magnification."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(3):
        image = tissue(1300, 1100 + 100 * number, [(100, 100, 1200, 900)], seed=number)
        write_pyramid(folder / "told" / f"slide_{number}.svs", image, 20, 0.5)
    write_pyramid(folder / "silent" / "untold.tif", tissue(1300, 1100, [(100, 100, 1200, 900)]))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "tinyclip")


def options(folders: FeatureFolders, slides: Path, clip: Path, *more: str) -> list[str]:
    return [
        *where(folders),
        "--wsi-dir",
        str(slides),
        "--vlm-path",
        str(clip),
        "--workers",
        "0",
        "--device",
        "cpu",
        *more,
    ]


def where(folders: FeatureFolders) -> list[str]:
    return [
        *("--data_root_dir", str(folders.data_root), "--task", folders.task),
        *("--feature_extractor", folders.feature_extractor),
    ]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*"))


# ---- the whole way ---------------------------------------------------------------------------------------------------


def test_real_slides_to_features_that_pass_the_check(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    for name in ("cmu-1-small-region.svs", "tcga-cr-7395.svs"):
        (tmp_path / "slides").mkdir(exist_ok=True)
        shutil.copy(real_slide(name), tmp_path / "slides")
    code, _, said = run_main(options(folders, tmp_path / "slides", clip), SCRIPT)
    assert code == 2 and "tcga-cr-7395.svs: no tag tells its magnification" in said and "--level0-mag" in said
    assert not folders.root.exists() or not list(folders.root.rglob("*.h5"))
    code, said, _ = run_main(options(folders, tmp_path / "slides", clip, "--level0-mag", "20"), SCRIPT)
    assert code == 0
    assert "20x by objective power 20" in said and "20x by --level0-mag" in said
    code, said, _ = run_main([*where(folders), "--workers", "1"], CHECK)
    assert code == 0 and "2 consistent" in said
    for slide_id in ("cmu-1-small-region", "tcga-cr-7395"):
        drawn = Image.open(folders.root / "thumbnails" / f"{slide_id}.jpg")
        assert max(drawn.size) >= 1000 and np.asarray(drawn).std() > 10


def test_features_are_the_encoders(slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain) -> None:
    """Patches cut by hand from the slide's own pixels, encoded by the model."""
    assert run_main(options(folders, slides / "told", clip), SCRIPT)[0] == 0
    image = torch.from_numpy(tissue(1300, 1100, [(100, 100, 1200, 900)], seed=0)).permute(2, 0, 1)
    encoder = load_image_side("tinyclip", str(clip))
    with h5py.File(folders.high_file("slide_0")) as file:
        coords, features = file["coords"][()], file["features"][()]
        assert dict(file.attrs) | {"encoder": "tinyclip", "projected": True, "normalised": False} == dict(file.attrs)
    whole = [(x, y, row) for row, (x, y) in enumerate(coords) if x + 256 <= 1100 and y + 256 <= 1300]
    assert len(whole) >= 8
    patches = torch.stack([image[:, y : y + 256, x : x + 256] for x, y, _ in whole])
    with torch.inference_mode():
        expected = encoder.encode_images(patches)
    np.testing.assert_allclose(features[[row for *_, row in whole]], expected, atol=1e-4, rtol=1e-3)


def test_the_features_train(
    tmp_path: Path, simulated: SimulatedTask, clip: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight slides of two colours, from slides to results.csv with the commands of the README."""
    monkeypatch.chdir(tmp_path)
    for number in range(16):
        image = tissue(1100, 1100, [(50, 50, 1000, 1000)], seed=number)
        write_pyramid(tmp_path / "slides" / ("AB"[number % 2]) / f"s{number}.svs", image, 20, 0.5)
    rows = [f"s{number},s{number},{'class_1' if number % 2 else 'class_0'}" for number in range(16)]
    simulated_classes = (simulated.root / "simulated.csv").read_text().splitlines()[1:]
    classes = sorted({row.split(",")[2] for row in simulated_classes})
    table = "case_id,slide_id,label\n" + "\n".join(
        row.replace("class_0", classes[0]).replace("class_1", classes[1]) for row in rows
    )
    (tmp_path / "mine.csv").write_text(table + "\n")
    data = FeatureFolders(tmp_path / "data", "mine", "tinyclip")
    more = ("--dataset-csv", "mine.csv")
    assert run_main(options(data, tmp_path / "slides", clip, *more), SCRIPT)[0] == 0
    make = ["--task", "mine", "--dataset_csv", "mine.csv", "--output-dir", "splits", "--few_shot_num", "2", "--k", "1"]
    assert run_main(make, "create_splits")[0] == 0
    code, _, error = run_main(
        [
            *("--task", "mine", "--feature_extractor", "tinyclip", "--vlm_path", str(clip), "--data_root_dir", "data"),
            *("--dataset_csv", "mine.csv", "--text_prompt", str(simulated.root / "simulated.json")),
            *("--split_dir", "splits/mine_2", "--few_shot_num", "2", "--k", "1", "--max_epochs", "1"),
            *("--results_dir", "results", "--device", "cpu"),
        ]
    )
    assert code == 0, error
    assert len(list((tmp_path / "results").rglob("results.csv"))) == 1


# ---- running again ---------------------------------------------------------------------------------------------------


def test_finished_slides_are_skipped_and_lost_ones_made(
    slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    command = options(folders, slides / "told", clip)
    assert run_main(command, SCRIPT)[0] == 0
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folders.root.rglob("*.h5")}
    assert len(before) == 9
    folders.hierarchical_file("slide_1").unlink()
    code, said, _ = run_main(command, SCRIPT)
    assert code == 0 and "1 slides to extract, 2 are there already" in said
    for file, (written, content) in before.items():
        assert file.read_bytes() == content
        assert (file.stat().st_mtime_ns == written) == (file.stem != "slide_1")
    code, _, said = run_main([*command, "--min-tissue", "0.5"], SCRIPT)
    assert code == 2 and said.count("made otherwise (min_tissue 0.1, now 0.5); --overwrite replaces it") == 3
    other = [*command, "--min-tissue", "0.5", "--overwrite"]
    code, said, _ = run_main(other, SCRIPT)
    assert code == 0 and "3 slides to extract" in said
    code, said, _ = run_main(other, SCRIPT)
    assert code == 0 and "0 slides to extract, 3 are there already" in said


def test_a_stopped_run_goes_on(
    tmp_path: Path, slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    """Killed once the first slide is written; what is there stays, and the next run makes the rest."""
    given = options(folders, slides / "told", clip, "--batch-size", "1")
    process = start_script(SCRIPT, given, tmp_path / "said")
    while process.is_alive() and not folders.hierarchical_file("slide_0").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    finished = folders.hierarchical_file("slide_0").read_bytes()
    code, said, _ = run_main(given, SCRIPT)
    assert code == 0 and "are there already" in said and "3 slides to extract" not in said
    assert folders.hierarchical_file("slide_0").read_bytes() == finished
    assert all(folders.hierarchical_file(f"slide_{number}").exists() for number in range(3))


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_all_faults_are_found_before_anything_is_encoded(
    tmp_path: Path, slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    shutil.copytree(slides, tmp_path / "slides")
    (tmp_path / "slides" / "broken.svs").write_bytes(b"II*\0")
    write_pyramid(tmp_path / "slides" / "empty.svs", np.full((1100, 1100, 3), 240, np.uint8), 20, 0.5)
    write_pyramid(tmp_path / "slides" / "coarse.svs", tissue(1100, 1100, [(0, 0, 1000, 1000)]), 10, 1.0)
    code, _, said = run_main(options(folders, tmp_path / "slides", clip), SCRIPT)
    assert code == 2 and "error: 4 faults" in said and "--skip-errors" in said
    for fault in (
        "broken.svs: not readable as a slide", "empty.svs: 0.0% of it is tissue",
        "coarse.svs: its level 0 has 10x; expected at least --high_mag 20x", "untold.tif: no tag tells",
    ):  # fmt: skip
        assert fault in said
    assert not list(folders.root.rglob("*.h5"))
    code, said, _ = run_main(options(folders, tmp_path / "slides", clip, "--skip-errors"), SCRIPT)
    assert code == 0 and "failed: 4 of 7 slides" in said and "broken.svs: not readable" in said
    assert names(folders.hierarchical_file("").parent) == ["slide_0.h5", "slide_1.h5", "slide_2.h5"]


@pytest.mark.parametrize("skips", [True, False])
def test_a_slide_that_breaks_while_it_is_read(
    tmp_path: Path, slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain, skips: bool
) -> None:
    """Its overview, a level of its own, is whole; its first level is not."""
    shutil.copytree(slides / "told", tmp_path / "slides")
    bad = tmp_path / "slides" / "slide_1.svs"
    image = tissue(2048, 2048, [(0, 0, 2048, 2048)])
    write_pyramid(bad, image, 20, 0.5, levels=(1, 2), compression="deflate")
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2] + bytes(500_000) + content[len(content) // 2 + 500_000 :])
    code, said, error = run_main(options(folders, tmp_path / "slides", clip, *["--skip-errors"] * skips), SCRIPT)
    assert (code, "slide_1.svs: cannot be read at (" in (said if skips else error)) == (0 if skips else 2, True)
    assert ("failed: 1 of 3 slides" in said) == skips
    made = ["slide_0.h5", "slide_2.h5"] if skips else ["slide_0.h5"]
    assert names(folders.hierarchical_file("").parent) == made


def test_a_reader_that_is_ended_from_outside_is_told_of(
    slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets.slide_features import RegionReader

    monkeypatch.setattr(RegionReader, "_read", lambda *_: os._exit(3))
    code, _, said = run_main([*options(folders, slides / "told", clip), "--workers", "1"], SCRIPT)
    assert code == 2 and "run again with fewer --workers" in said and "Traceback" not in said


def test_the_table_names_slides_and_their_magnification(
    tmp_path: Path, slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("slide_id,level0_mag\nuntold,20\nslide_1,\n")
    command = options(folders, slides, clip, "--dataset-csv", str(table))
    code, said, _ = run_main(command, SCRIPT)
    assert code == 0 and "20x by column level0_mag" in said
    assert names(folders.hierarchical_file("").parent) == ["slide_1.h5", "untold.h5"]
    table.write_text("slide_id\nslide_1\nabsent\n")
    code, _, said = run_main(command, SCRIPT)
    assert code == 2 and "1 of 2 slides of the table are not there ('absent')" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--wsi-dir", "absent"), "absent: no such folder"),
        (("--vlm-path", "./absent"), "--vlm_path ./absent: no such folder"),
        (("--min-tissue", "1.5"), "1.5 is more than 1"),
        (("--half-decode", "--reader", "openslide"), "--half-decode --reader openslide"),
        (("--level0-mag", "400"), "400 is more than 160"),
        (("--feature_extractor", "vinid/plip"), "expected a name without slashes"),
        (("--low-mag", "6"), "whole multiple"),
        (("--dataset-csv", "absent.csv"), "absent.csv"),
        (("--skip-errors", "--high-mag", "40"), "none of 3 slides could be extracted"),
    ],
)
def test_wrong_options(
    slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain, more: tuple[str, ...], message: str
) -> None:
    code, _, said = run_main([*options(folders, slides / "told", clip), *more], SCRIPT)
    assert code == 2 and message in said


def test_workers_make_the_same_files(slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain) -> None:
    assert run_main(options(folders, slides / "told", clip, "--no-thumbnails"), SCRIPT)[0] == 0
    alone = files_below(folders.root, "*.h5")
    shutil.rmtree(folders.root)
    command = options(folders, slides / "told", clip, "--no-thumbnails")
    assert run_main([*command, "--workers", "2"], SCRIPT)[0] == 0
    assert files_below(folders.root, "*.h5") == alone
    assert not (folders.root / "thumbnails").exists()


def test_readers_make_the_same_files_and_a_slide_left_to_openslide_is_named(
    slides: Path, folders: FeatureFolders, clip: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = options(folders, slides / "told", clip, "--no-thumbnails")
    made = {}
    for reader in ("openslide", "tiles"):
        code, said, _ = run_main([*command, "--reader", reader], SCRIPT)
        assert code == 0 and "are read by" not in said
        made[reader] = files_below(folders.root, "*.h5")
        shutil.rmtree(folders.root)
    assert made["tiles"] == made["openslide"]
    monkeypatch.setattr(
        "datasets.slide_readers._grey_levels_apart", lambda file, grid: 9 if "slide_1" in str(file) else 0
    )
    code, said, _ = run_main(command, SCRIPT)
    assert code == 0 and "1 slides are read by OpenSlide (its tiles differ" in said and "'slide_1'" in said
    assert files_below(folders.root, "*.h5") == made["openslide"]
