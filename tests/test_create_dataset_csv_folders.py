"""create_dataset_csv.py: tables from a folder of slides for each class."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pyramids import write_pyramid
from datasets.task import read_slides
from tests.conftest import SHARED, FaultsOf, RunMain
from tests.support.dicom_slides import write_series
from tests.support.faults import check_fault
from tests.support.feature_files import some_features, square, write_trident
from tests.support.slide_tables import csv_rows

# ---- from folders ----------------------------------------------------------------------------------------------------


def folder_options(folder: Path, *more: str) -> list[str]:
    return ["--task", "mine", "--slides-dir", str(folder / "slides"), "--output", str(folder / "mine.csv"), *more]


def add_slides(folder: Path, *names: str, power: float | None = 20) -> None:
    for name in names:
        write_pyramid(folder / "slides" / name, np.zeros((64, 64, 3), np.uint8), power, 0.5 if power else None)


def test_a_folder_for_each_class(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "TUMOR/a_1.svs", "TUMOR/deep/down/a_2.tif", power=40)
    add_slides(tmp_path, "NORMAL/b_1.tiff", "NORMAL/TCGA-A1-0001-01Z-00-DX1.UUID.svs")
    add_slides(tmp_path, "NORMAL/b.2.TIFF", power=None)
    add_slides(tmp_path, ".hidden/x.svs", "loose.svs")
    (tmp_path / "slides" / "notes.txt").write_text("")
    (tmp_path / "slides" / "TUMOR" / "notes.txt").write_text("")
    code, output, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert (code, errors) == (0, "")
    assert (tmp_path / "mine.csv").read_text() == (
        "case_id,slide_id,label,level0_mag\n"
        "TCGA-A1-0001,TCGA-A1-0001-01Z-00-DX1.UUID,NORMAL,20\n"
        "b.2,b.2,NORMAL,\n"
        "b_1,b_1,NORMAL,20\n"
        "a_1,a_1,TUMOR,40\n"
        "a_2,a_2,TUMOR,40\n"
    )
    assert read_slides(tmp_path / "mine.csv")[0] == ["NORMAL", "TUMOR"]
    assert "5 slides, 0 feature files" in output
    assert re.search(r"left out: 1 slides of .*/slides, not in the folder of a class", output)
    assert "level0_mag: 1 slides without it" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["NORMAL", "3", "3", "2", "0", "1"] in lines
    assert ["TUMOR", "2", "2", "0", "2", "0"] in lines


def test_contradictions_and_unusual_widths_of_pixels_are_told_by_name(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/fine.svs")
    for name, power, mpp in (("A/s1", 20, 0.234), ("B/s2", 20, 0.234), ("B/s3", 40, 0.33), ("B/odd", None, 0.35)):
        write_pyramid(tmp_path / "slides" / f"{name}.svs", np.zeros((64, 64, 3), np.uint8), power, mpp)
    code, output, _ = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 0
    notes = [line for line in output.splitlines() if line.startswith("note: ")]
    assert [note.split("; ")[0] for note in notes] == [
        "note: s1, s2: level 0 has 20x by objective power 20, although 0.234 microns per pixel say 40x",
        "note: s3: level 0 has 40x by objective power 40, although 0.33 microns per pixel say 30.3x",
        "note: odd: 0.35 microns per pixel would mean 28.6x, which is none of 5x, 10x, 20x, 40x, 60x, 80x",
    ]
    assert {row["slide_id"]: row["level0_mag"] for row in csv_rows(tmp_path / "mine.csv")} == {
        "fine": "20", "s1": "20", "s2": "20", "s3": "40", "odd": "",
    }  # fmt: skip


def test_a_series_in_dicom_is_one_row(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/a.svs", "B/b.svs")
    write_series(tmp_path / "slides" / "B" / "CASE-7", np.zeros((300, 300, 3), np.uint8), levels=(1, 2, 4))
    (tmp_path / "slides" / "B" / "c.vsi").touch()
    code, output, _ = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 0 and "1 .vsi files" in output
    assert [row["slide_id"] for row in csv_rows(tmp_path / "mine.csv")] == ["a", "CASE-7", "b"]


@pytest.mark.parametrize("spelling", ["--case-pattern", "--case_pattern"])
def test_patients_from_names(run_main: RunMain, tmp_path: Path, spelling: str) -> None:
    add_slides(tmp_path, "A/p01_1.svs", "A/p01_2.svs", "B/p02_1.svs", "B/TCGA-A1-0001-01Z-00-DX1.svs")
    code, output, _ = run_main(folder_options(tmp_path, spelling, r"^(p\d+)_"), "create_dataset_csv")
    assert code == 0
    rows = csv_rows(tmp_path / "mine.csv")
    assert [row["case_id"] for row in rows] == ["p01", "p01", "TCGA-A1-0001", "p02"]
    assert ["A", "2", "1", "2"] in [line.split() for line in output.splitlines()]


def test_names_without_the_pattern_are_all_named(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/p01_1.svs", "A/q01_2.svs", "B/r.svs", "B/p_3.svs")
    code, _, errors = run_main(folder_options(tmp_path, "--case-pattern", r"^p(\d*)_"), "create_dataset_csv")
    assert code == 2
    assert errors.startswith("error: 3 faults")
    for name in ("q01_2", "r", "p_3"):
        assert f"  - {name}: --case-pattern '^p(\\\\d*)_' finds no patient" in errors
    assert not (tmp_path / "mine.csv").exists()


def test_feature_files_serve_as_well(run_main: RunMain, tmp_path: Path) -> None:
    for name in ("A/x.1.h5", "A/y.h5", "B/deep/z.h5"):
        file = tmp_path / "slides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    write_pyramid(tmp_path / "wsi" / "y.svs", np.zeros((64, 64, 3), np.uint8), 40, 0.25)
    code, output, _ = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 0
    assert "0 slides, 3 feature files" in output
    rows = [(row["slide_id"], row["label"], row["level0_mag"]) for row in csv_rows(tmp_path / "mine.csv")]
    assert rows == [("x.1", "A", ""), ("y", "A", ""), ("z", "B", "")]
    options = folder_options(tmp_path, "--wsi-dir", str(tmp_path / "wsi"), "--overwrite")
    assert run_main(options, "create_dataset_csv")[0] == 0
    assert [row["level0_mag"] for row in csv_rows(tmp_path / "mine.csv")] == ["", "40", ""]


def test_all_faults_of_a_folder_are_named(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/x.svs", "A/deep/x.tif", "B/y.svs", "C/y.tif", "D/z.svs")
    (tmp_path / "slides" / "E").mkdir()
    for name in ("F/w.h5", "F/deep/w.h5"):
        file = tmp_path / "slides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    slides = tmp_path / "slides"
    assert errors.startswith("error: 4 faults")
    assert f"{slides}/A/x.svs" in errors
    assert f"{slides}/A/deep/x.tif" in errors
    assert f"{slides}/C/y.tif: a slide of this name is in another class too: {slides}/B/y.svs" in errors
    assert f"{slides}/E: no slides in it" in errors
    assert (
        "F/w.h5" in errors
        and "F/deep/w.h5" in errors
        and f"a slide of this name is there already: {slides}/F/deep/w.h5" in errors
    )


def test_damaged_slides_are_all_named(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/x.svs", "B/y.svs", "B/z.svs")
    for name in ("A/x.svs", "B/z.svs"):
        file = tmp_path / "slides" / name
        file.write_bytes(file.read_bytes()[:50])
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    assert errors.startswith("error: 2 faults")
    assert "A/x.svs: not readable" in errors
    assert "B/z.svs: not readable" in errors
    assert not (tmp_path / "mine.csv").exists()


@pytest.mark.parametrize(("names", "number"), [([], 0), (["A/x.svs"], 1)])
def test_two_classes_are_needed(run_main: RunMain, tmp_path: Path, names: list[str], number: int) -> None:
    (tmp_path / "slides").mkdir()
    add_slides(tmp_path, *names)
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    assert f"found {number} folders in it; expected one for each class" in errors


def test_missing_folders(run_main: RunMain, tmp_path: Path) -> None:
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2
    assert f"{tmp_path / 'slides'}: no such folder" in errors
    add_slides(tmp_path, "A/x.svs", "B/y.svs")
    code, _, errors = run_main(folder_options(tmp_path, "--wsi-dir", str(tmp_path / "no")), "create_dataset_csv")
    assert code == 2
    assert f"{tmp_path / 'no'}: no such folder" in errors
    assert not (tmp_path / "mine.csv").exists()


def test_a_class_folder_of_slides_and_features_is_refused(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, "A/x.svs", "B/y.svs")
    (tmp_path / "slides" / "A" / "z.h5").touch()
    code, _, errors = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 2 and "A: found 1 feature files (z.h5) and 1 slides; expected one kind" in errors


# ---- folders that are no classes, and jobs of TRIDENT ----------------------------------------------------------------

UUID = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4{}"


@pytest.mark.parametrize(
    "names",
    [
        [UUID.format(number) for number in range(3)],
        [UUID.format(1)],
        ["LUAD", "LUSC", UUID.format(1).upper()],
        ["TCGA-A1-0001", "TCGA-A1-0002"],
        ["5x_256px_0px_overlap", "20x_256px_0px_overlap"],
    ],
    ids=["gdc-client", "one slide", "among classes", "patients", "TRIDENT"],
)
def test_folders_that_are_no_classes(faults_of: FaultsOf, tmp_path: Path, names: list[str]) -> None:
    add_slides(tmp_path, *(f"{name}/slide_{number}.svs" for number, name in enumerate(names)))
    [fault] = faults_of(folder_options(tmp_path), "create_dataset_csv")
    check_fault(fault, "slide.no_classes", tmp_path / "slides", names[-1], "--gdc", f"--wsi-dir {tmp_path / 'slides'}")


def test_classes_may_be_called_like_projects_and_hold_folders_of_gdc_client(run_main: RunMain, tmp_path: Path) -> None:
    add_slides(tmp_path, f"TCGA-LUAD/{UUID.format(1)}/a.svs", f"TCGA-LUSC/{UUID.format(2)}/b.svs", "x_20x/c.svs")
    assert run_main(folder_options(tmp_path), "create_dataset_csv")[0] == 0
    rows = csv_rows(tmp_path / "mine.csv")
    assert [(row["slide_id"], row["label"]) for row in rows] == [("a", "TCGA-LUAD"), ("b", "TCGA-LUSC"), ("c", "x_20x")]


@pytest.mark.parametrize("magnifications", [(20,), (5, 20)])
@pytest.mark.parametrize("encoders", [("plip",), ("plip", "conch_v1")])
def test_jobs_of_trident_are_slides_with_their_magnification(
    run_main: RunMain, tmp_path: Path, magnifications: tuple[int, ...], encoders: tuple[str, ...]
) -> None:
    """Coordinates are no features, and a slide is one slide at two magnifications and of two encoders."""
    slides = {"A": [("s1", 40), ("s2", 20)], "B": [("s3", 40)]}
    for label, of_class in slides.items():
        for name, level0 in of_class:
            for magnification in magnifications:
                for encoder in encoders:
                    job = tmp_path / "slides" / label
                    write_trident(job, name, some_features(2), square(2, 1, 512), magnification, level0, encoder)
    code, output, _ = run_main(folder_options(tmp_path), "create_dataset_csv")
    assert code == 0 and "0 slides, 3 feature files" in output
    rows = [(row["slide_id"], row["label"], row["level0_mag"]) for row in csv_rows(tmp_path / "mine.csv")]
    assert rows == [("s1", "A", "40"), ("s2", "A", "20"), ("s3", "B", "40")]


def test_coordinates_alone_are_no_slides(faults_of: FaultsOf, tmp_path: Path) -> None:
    for label in "AB":
        folder = write_trident(tmp_path / "slides" / label, "s1", some_features(2), square(2, 1, 512), 20, 40, "plip")
        shutil.rmtree(folder)
    faults = faults_of(folder_options(tmp_path), "create_dataset_csv")
    assert [fault.code for fault in faults] == ["slide.missing", "slide.missing"]


def test_genuine_features_of_trident(run_main: RunMain, tmp_path: Path) -> None:
    job = SHARED / "genuine" / "trident" / "job" / "20x_256px_0px_overlap"
    if not job.is_dir():
        pytest.skip("the files of other tools (../shared/genuine) are not here")
    for label, names in {"A": ["syn40a", "cmu-1-small-region"], "B": ["syn40gen"]}.items():
        for name in names:
            for file in (f"features_plip/{name}.h5", f"patches/{name}_patches.h5"):
                if (job / file).is_file():
                    (tmp_path / "slides" / label / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(job / file, tmp_path / "slides" / label / file)
    assert run_main(folder_options(tmp_path), "create_dataset_csv")[0] == 0
    rows = [(row["slide_id"], row["label"], row["level0_mag"]) for row in csv_rows(tmp_path / "mine.csv")]
    assert rows == [("cmu-1-small-region", "A", "20"), ("syn40a", "A", "40"), ("syn40gen", "B", "40")]
