"""extract_features.py: whose word counts for a magnification, where tissue is, and slides that are missing."""

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from benchmarks.pyramids import tissue, write_pyramid
from datasets.extraction_plan import FirstLook, PlanJob, plan_slide
from datasets.folders import FeatureFolders
from datasets.slides import Magnification
from models.tiny_clip import save_tiny_clip
from tests.conftest import RunMain
from tests.support.dicom_slides import write_series
from tests.support.faults import check_fault, expect_faults
from tests.support.planned_slides import PLAIN
from utils.h5 import read_h5, write_h5

SCRIPT = "extract_features"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tinyclip"
    save_tiny_clip(folder, width=16)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> FeatureFolders:
    return FeatureFolders(tmp_path / "data", "task", "tinyclip")


def call(folders: FeatureFolders, slides: Path, clip: Path, *more: str) -> list[str]:
    return [
        *("--data_root_dir", str(folders.data_root), "--task", folders.task, "--feature_extractor", "tinyclip"),
        *("--wsi-dir", str(slides), "--vlm-path", str(clip), "--workers", "0", "--device", "cpu", *more),
    ]


def section(file: Path, power: float | None = None, mpp: float | None = None, side: int = 1100) -> Path:
    return write_pyramid(file, tissue(side, side, [(50, 50, side - 100, side - 100)]), power, mpp)


def attributes(folders: FeatureFolders, slide_id: str) -> dict[str, object]:
    with h5py.File(folders.high_file(slide_id)) as file:
        return dict(file.attrs)


# ---- magnification ---------------------------------------------------------------------------------------------------


def test_a_magnification_is_overruled(tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain) -> None:
    """A 20x objective with pixels of 0.234 microns; the column goes before the option."""
    for name in ("a", "b"):
        section(tmp_path / "slides" / f"{name}.svs", 20, 0.234, side=2200)
    section(tmp_path / "slides" / "fine.svs", 20, 0.5)
    code, said, _ = run_main(call(folders, tmp_path / "slides", clip), SCRIPT)
    assert code == 0
    [note] = [line for line in said.splitlines() if line.startswith("note: ")]
    assert "a, b: level 0 has 20x by objective power 20, although 0.234 microns per pixel say 40x" in note
    assert "fine" not in note and attributes(folders, "a")["patch_size_level0"] == 256
    table = tmp_path / "table.csv"
    table.write_text("slide_id,force_magnification,level0_mag\na,40x,20\nb,,20\n")
    more = ["--dataset-csv", str(table), "--force-magnification", "20x", "--overwrite"]
    code, said, _ = run_main(call(folders, tmp_path / "slides", clip, *more), SCRIPT)
    assert code == 0 and "note: " not in said
    assert "40x by column force_magnification, although objective power 20" in said
    assert (
        attributes(folders, "a")["patch_size_level0"] == 512 and attributes(folders, "a")["level0_magnification"] == 40
    )
    assert attributes(folders, "b")["patch_size_level0"] == 256


def test_a_contradiction_is_told_again_of_finished_slides(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    section(tmp_path / "slides" / "a.svs", 20, 0.37)
    for _ in range(2):
        code, said, _ = run_main(call(folders, tmp_path / "slides", clip), SCRIPT)
        assert (
            code == 0
            and "note: a: level 0 has 20x by objective power 20, although 0.37 microns per pixel say 27x" in said
        )
    assert "0 slides to extract, 1 are there already" in said


@pytest.mark.parametrize("given", ["20x", "20X", "20", "20.0x"])
def test_a_magnification_is_written_with_or_without_x(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain, given: str
) -> None:
    section(tmp_path / "slides" / "a.tif")
    more = ["--level0-mag", given, "--low-mag", "5x", "--high_mag", "20x"]
    assert run_main(call(folders, tmp_path / "slides", clip, *more), SCRIPT)[0] == 0
    assert attributes(folders, "a")["level0_magnification"] == 20


def test_an_unusual_width_of_a_pixel_is_told(tmp_path: Path) -> None:
    file = section(tmp_path / "a.tif", mpp=0.35, side=2200)
    folders = FeatureFolders(tmp_path, "task", "pixels")
    with expect_faults("slide.pixel_size") as faults:
        plan_slide(PlanJob("a", file, None, PLAIN, folders, None))
    check_fault(faults[0], "slide.pixel_size", file, "0.35 microns per pixel", "28.6x", "--level0-mag")
    found = plan_slide(PlanJob("a", file, Magnification(20, "--level0-mag"), PLAIN, folders, None)).magnification
    assert found == Magnification(20, "--level0-mag, although 0.35 microns per pixel say 28.6x", is_doubtful=True)
    found = plan_slide(PlanJob("a", file, Magnification(28, "--level0-mag"), PLAIN, folders, None)).magnification
    assert found == Magnification(28, "--level0-mag")


# ---- tissue ----------------------------------------------------------------------------------------------------------


def test_ink_is_noted_and_left_out(tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain) -> None:
    image = tissue(1100, 1100, [(50, 50, 600, 1000)])
    write_pyramid(tmp_path / "slides" / "clean.svs", image, 20, 0.5)
    image[800:900] = (20, 40, 200)
    write_pyramid(tmp_path / "slides" / "inked.svs", image, 20, 0.5)
    code, said, _ = run_main(call(folders, tmp_path / "slides", clip), SCRIPT)
    assert code == 0
    [note] = [line for line in said.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: inked (") and "clean" not in note and "--tissue-mask" in note
    assert read_h5(folders.high_file("inked"), ("coords",))["coords"][:, 1].max() < 600


def test_masks_in_place_of_the_saturation(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    for name in ("a", "b"):
        section(tmp_path / "slides" / f"{name}.svs", 20, 0.5)
    mask = np.zeros((110, 110), np.uint8)
    mask[:51, :51] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    command = call(folders, tmp_path / "slides", clip, "--tissue-mask", str(tmp_path / "masks"))
    code, _, said = run_main(command, SCRIPT)
    assert code == 2 and "no mask of 'b'" in said
    code, said, _ = run_main([*command, "--skip-errors"], SCRIPT)
    assert code == 0 and "failed: 1 of 2 slides" in said
    coords = read_h5(folders.high_file("a"), ("coords",))["coords"]
    assert sorted(coords.tolist()) == [[0, 0], [0, 256], [256, 0], [256, 256]]
    mask[60:] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    code, _, said = run_main([*command, "--skip-errors"], SCRIPT)
    assert code == 2 and "none of 2 slides" in said


def test_a_threshold_is_part_of_what_was_made(tmp_path: Path) -> None:
    """Files of another threshold are refused; files of earlier versions, which do not say theirs, are Otsu's."""
    file = section(tmp_path / "a.svs", 20, 0.5)
    folders = FeatureFolders(tmp_path / "data", "task", "pixels")

    def look(threshold: int | None) -> FirstLook:
        return plan_slide(PlanJob("a", file, None, replace(PLAIN, tissue_threshold=threshold), folders, None))

    plan = look(None).plan
    assert plan is not None and plan.made["tissue_threshold"] == "otsu"
    earlier = {name: value for name, value in plan.made.items() if not name.startswith("tissue_")}
    for made in (folders.low_file("a"), folders.high_file("a"), folders.hierarchical_file("a")):
        write_h5(made, {"coords": np.zeros((1, 2))}, earlier)
    assert look(None).plan is None
    with expect_faults("features.made_otherwise"):
        look(20)


def test_a_threshold_and_masks_contradict(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    more = ["--tissue-threshold", "20", "--tissue-mask", str(tmp_path)]
    code, _, said = run_main(call(folders, tmp_path, clip, *more), SCRIPT)
    assert code == 2 and "not allowed with" in said


# ---- slides that are missing -----------------------------------------------------------------------------------------


def test_missing_slides_are_listed_and_skipped(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    """Few in the message, many in a file; --skip-errors goes on with the others."""
    section(tmp_path / "slides" / "there.svs", 20, 0.5)
    (tmp_path / "slides" / "turned.vsi").touch()
    (tmp_path / "slides" / ("n" * 244 + ".svs")).touch()
    table = tmp_path / "table.csv"
    names = [f"absent_{number}" for number in range(60)]
    table.write_text("slide_id\nthere\nturned\n" + "\n".join(names[:8]) + "\n")
    command = call(folders, tmp_path / "slides", clip, "--dataset-csv", str(table))
    code, _, said = run_main(command, SCRIPT)
    assert code == 2 and "8 of 10 slides of the table are not there" in said and "--skip-errors" in said
    assert all(repr(name) in said for name in names[:8]) and "turned.vsi" in said
    assert not folders.root.exists()
    code, said, _ = run_main([*command, "--skip-errors"], SCRIPT)
    assert code == 0 and "failed: 9 of 10 slides" in said and folders.high_file("there").exists()
    table.write_text("slide_id\nthere\n" + "\n".join(names) + "\n")
    code, _, said = run_main(command, SCRIPT)
    listed = folders.root / "failed_slides.csv"
    assert code == 2 and "60 of 61 slides" in said and str(listed) in said
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide_id"] for row in rows] == names and {row["code"] for row in rows} == {"slide.missing"}


def test_one_faulty_name_stops_that_slide_alone(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    section(tmp_path / "slides" / "there.svs", 20, 0.5)
    for name in ("n" * 244 + ".svs", "a/twice.svs", "b/twice.svs", "empty.svs"):
        (tmp_path / "slides" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "slides" / name).touch()
    code, said, _ = run_main(call(folders, tmp_path / "slides", clip, "--skip-errors"), SCRIPT)
    assert code == 0 and "failed: 3 of 4 slides" in said
    assert "is longer than 200 bytes" in said and "is an empty file" in said and "twice" in said
    assert folders.high_file("there").exists()


def test_a_dicom_series_becomes_the_features_of_one_slide(
    tmp_path: Path, folders: FeatureFolders, clip: Path, run_main: RunMain
) -> None:
    write_series(tmp_path / "slides" / "CASE-7", tissue(1100, 1100, [(50, 50, 1000, 1000)]), levels=(1, 2, 4))
    code, said, error = run_main(call(folders, tmp_path / "slides", clip), SCRIPT)
    assert code == 0, error
    assert "1 slides to extract" in said and "20x by 0.5 microns per pixel" in said
    section(tmp_path / "tiff" / "CASE-7.svs", 20, 0.5)
    other = FeatureFolders(tmp_path / "other", "task", "tinyclip")
    assert run_main(call(other, tmp_path / "tiff", clip), SCRIPT)[0] == 0
    found, same = (read_h5(one.high_file("CASE-7"), ("features",))["features"] for one in (folders, other))
    np.testing.assert_allclose(found, same, atol=1e-5)
