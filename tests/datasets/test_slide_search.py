"""Finding slides: what is one, what it is called, and what is told of files that are none."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openslide_bin
import pytest

from datasets.slide_names import FORMATS, SUFFIXES, slide_name
from datasets.slide_search import find_slides, search_slides
from datasets.slides import open_slide
from tests.support.dicom_slides import RADIOGRAPH, write_series
from tests.support.faults import check_fault, expect_faults
from utils.errors import Fault

BARCODE = "TCGA-AA-0001-01Z-00-DX1"
UNIQUE = "0F3C1A2B-1111-2222-3333-444455556666"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def codes(faults: Sequence[Fault]) -> list[str]:
    return sorted(fault.code for fault in faults)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_slides_are_found_in_subfolders_and_named_without_extension(tmp_path: Path) -> None:
    names = ["a/TCGA-AA-0001.0F3C.svs", "b/deep/two.TIFF", "three.ndpi", "c/four.czi", "five.avs"]
    touch(tmp_path, *names, "notes.txt", "._three.ndpi", "b/features.h5")
    found = find_slides(tmp_path)
    assert found == {Path(name).stem: tmp_path / name for name in names}
    assert list(found) == ["TCGA-AA-0001.0F3C", "five", "four", "three", "two"]


def test_links_are_followed_and_hidden_folders_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/deep/one.svs", "slides/.snapshot/one.svs", "slides/.two.svs")
    (tmp_path / "slides" / "folder.tif").mkdir()
    (tmp_path / "slides" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "slides")
    assert find_slides(tmp_path / "slides") == {"one": tmp_path / "slides" / "link" / "deep" / "one.svs"}


def test_the_formats_are_those_that_the_pinned_library_knows() -> None:
    """Each vendor's name stands in the library, and the library has a function that opens each format."""
    [library] = Path(openslide_bin.__file__).parent.glob("libopenslide*")
    content = library.read_bytes()
    assert [vendor for vendor in FORMATS if vendor.encode() not in content] == []
    opened = {name.decode() for name in re.findall(rb"\0([a-z_]+)_open\0", content)}
    known = {"hamamatsu_vms_vmu", "synthetic", "philips_tiff"} | {vendor.replace("-", "_") for vendor in FORMATS}
    assert {name for name in opened if not name.startswith(("openslide", "iconv"))} <= known
    assert ".zvi" not in SUFFIXES


def test_faults_of_a_folder(tmp_path: Path) -> None:
    with expect_faults("folder.missing"):
        find_slides(tmp_path / "absent")
    (tmp_path / "file").touch()
    with expect_faults("folder.missing"):
        find_slides(tmp_path / "file")
    with expect_faults("slide.missing"):
        find_slides(tmp_path)


def test_slides_of_one_name_are_a_fault_of_that_name_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.svs", "b/one.tif", "c/one.svs", "d/two.svs")
    found = search_slides(tmp_path)
    assert list(found.files) == ["two"] and list(found.faults) == ["one"]
    check_fault(found.faults["one"], "slide.repeated", tmp_path / "b/one.tif", "a/one.svs", "c/one.svs")
    assert list(search_slides(tmp_path, ["two"]).files) == ["two"]
    with expect_faults("slide.repeated"):
        find_slides(tmp_path)


@pytest.mark.parametrize("name", ["n" * 244 + ".svs", "é" * 101 + ".svs", " blank.svs"])
def test_a_name_that_features_cannot_have_is_a_fault_of_that_slide_alone(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "good.svs")
    found = search_slides(tmp_path)
    assert list(found.files) == ["good"]
    [fault] = found.faults.values()
    check_fault(fault, "name.unusable", tmp_path / name)
    with expect_faults("name.unusable"):
        find_slides(tmp_path)


# ---- the slides of a table -------------------------------------------------------------------------------------------


def test_wanted_slides_alone_are_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.svs", "b/one.svs", "a/two.svs")
    assert list(find_slides(tmp_path, ["two"])) == ["two"]
    with expect_faults("slide.missing") as faults:
        find_slides(tmp_path, ["two", "three", "four"])
    check_fault(faults[0], "slide.missing", tmp_path, "2 of 3", "'three'", "'four'")


@pytest.mark.parametrize("text", ["S1.svs", "S1.SVS", "S1.czi", "S1.dcm", "S1.vsi", "S1.qptiff", "S1.isyntax", "S1.h5"])
def test_an_id_with_an_extension_is_the_slide(text: str) -> None:
    assert slide_name(text) == "S1"


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (f"{BARCODE}.{UNIQUE}.svs", BARCODE),
        (f"{BARCODE}.svs", f"{BARCODE}.{UNIQUE}"),
    ],
)
def test_a_bare_barcode_is_matched(tmp_path: Path, file: str, wanted: str) -> None:
    touch(tmp_path, file, "TCGA-AA-0002-01Z-00-DX1.svs")
    found = search_slides(tmp_path, [wanted])
    assert found.files == {wanted: tmp_path / file} and found.faults == {}
    assert codes(found.notes) == ["slide.barcode_matched"] and file in str(found.notes[0])


@pytest.mark.parametrize(
    ("files", "wanted", "near"),
    [
        ([f"{BARCODE}.A.svs", f"{BARCODE}.B.svs"], BARCODE, f"{BARCODE}.A"),  # two fit
        ([f"{BARCODE}.{UNIQUE}.svs"], "TCGA-AA-0001", BARCODE),  # a patient
        (["S01.svs"], "s01", "S01"),
        (["S-01.svs"], "S_01", "S-01"),
        (["S01_HE.svs"], "S01", "S01_HE"),
        (["slide_0123.svs"], "slide_0132", "slide_0123"),
    ],
)
def test_a_near_name_is_shown(tmp_path: Path, files: list[str], wanted: str, near: str) -> None:
    found = search_slides(touch(tmp_path, *files), [wanted])
    assert found.files == {}
    check_fault(found.faults[wanted], "slide.missing", tmp_path, repr(wanted), near)


def test_a_name_that_is_not_near_is_not_shown(tmp_path: Path) -> None:
    found = search_slides(touch(tmp_path, "other.svs"), ["S01"])
    assert found.faults["S01"].expected == ""


# ---- what OpenSlide does not read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("S1.vsi", "bfconvert"), ("S1.qptiff", "vips tiffsave"), ("S1.isyntax", "wsidicomizer"), ("S1.kfb", "K-Viewer"),
        ("S1.sdpc", "Sqray"), ("S1.btf", "vips tiffsave"), ("S1.tmap", "UNIC"), ("S1.png", "vips tiffsave"),
        ("S1.JPG", "vips tiffsave"), ("S1.zvi", "bfconvert"), ("S1.mdsx", "Motic"), ("S1.nd2", "bfconvert"),
    ],
)  # fmt: skip
def test_other_formats_are_counted_and_named(tmp_path: Path, name: str, command: str) -> None:
    touch(tmp_path, "good.svs", name, f"more/S2{Path(name).suffix}")
    found = search_slides(tmp_path)
    assert list(found.files) == ["good"]
    [note] = found.notes
    check_fault(note, "slide.foreign_format", tmp_path, "2 ", name, command)
    assert list(search_slides(tmp_path, ["S1", "good"]).faults) == ["S1"]
    check_fault(search_slides(tmp_path, ["S1"]).faults["S1"], "slide.foreign_format", tmp_path, "1 ", name, command)


def test_a_folder_of_other_formats_alone(tmp_path: Path) -> None:
    with expect_faults("slide.foreign_format", "slide.foreign_format"):
        find_slides(touch(tmp_path, "a.vsi", "b.png"))


@pytest.mark.parametrize("name", ["S1.svs.partial", "S1.svs.part", "S1.ndpi.crdownload", "S1.vsi.partial"])
def test_a_download_that_has_not_ended(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "good.svs", name)
    assert codes(search_slides(tmp_path).notes) == ["slide.unfinished"]
    check_fault(search_slides(tmp_path, ["S1"]).faults["S1"], "slide.unfinished", tmp_path, name)


def test_files_beside_slides_are_no_slides(tmp_path: Path) -> None:
    """A thumbnail of a slide's name, what has been converted, and the images that a Hamamatsu slide is made of."""
    touch(tmp_path, "S1.svs", "S1.jpg", "S2.tif", "S2.vsi", "vms/S3.vms", "vms/S3-000.jpg", "S4.svs", "S4.svs.partial")
    found = search_slides(tmp_path)
    assert sorted(found.files) == ["S1", "S2", "S3", "S4"] and found.notes == []


def test_the_notes_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    find_slides(touch(tmp_path, "good.svs", "S1.vsi"))
    assert capsys.readouterr().out.startswith("note: ")


# ---- DICOM -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", [".dcm", ".DCM", ""])
def test_a_series_is_one_slide_named_by_its_folder(tmp_path: Path, image: np.ndarray, ending: str) -> None:
    files = write_series(tmp_path / "CASE-7", image, levels=(1, 2, 4), container="box", ending=ending)
    found = search_slides(tmp_path)
    assert found.files == {"CASE-7": files[0]} and found.faults == {} and found.notes == []
    with open_slide(found.files["CASE-7"]) as slide:
        assert slide.dimensions == (900, 700) and slide.level_count == 3
        np.testing.assert_array_equal(
            np.asarray(slide.read_region((9, 8), 0, (600, 600)))[..., :3], image[8:608, 9:609]
        )


def test_several_series_in_a_folder_are_named_by_their_containers(tmp_path: Path, image: np.ndarray) -> None:
    for container in ("C1", "C2"):
        write_series(tmp_path / "study", image, container=container)
    write_series(tmp_path, image, container="C3")
    assert list(search_slides(tmp_path).files) == ["C1", "C2", "C3"]


def test_folders_of_one_name_leave_it_to_the_containers(tmp_path: Path, image: np.ndarray) -> None:
    for container in ("C1", "C2"):
        write_series(tmp_path / container.lower() / "DICOM", image, container=container)
    assert list(search_slides(tmp_path).files) == ["C1", "C2"]


def test_a_series_without_a_name_has_its_identifier(tmp_path: Path, image: np.ndarray) -> None:
    write_series(tmp_path, image)
    [name] = search_slides(tmp_path).files
    assert re.fullmatch(r"[\d.]+", name)


@pytest.mark.parametrize("wanted", ["CASE-7", "box"])
def test_a_table_may_name_the_folder_or_the_container(tmp_path: Path, image: np.ndarray, wanted: str) -> None:
    files = write_series(tmp_path / "CASE-7", image, container="box")
    write_series(tmp_path / "CASE-8", image, container="other")
    assert search_slides(tmp_path, [wanted]).files == {wanted: files[0]}


def test_dicom_of_no_slide_is_told_of(tmp_path: Path, image: np.ndarray) -> None:
    write_series(tmp_path / "slide", image)
    write_series(tmp_path / "chest", image[:256, :256], levels=(1,), kind=RADIOGRAPH)
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    found = search_slides(tmp_path)
    assert list(found.files) == ["slide"]
    [note] = found.notes
    check_fault(note, "slide.other_dicom", tmp_path, "2 ", "cut.dcm")


def test_a_file_without_extension_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "good.svs", "LICENSE")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert list(search_slides(tmp_path).files) == ["good"]
