"""Files that OpenSlide refuses: each kind has its code, and what makes a slide of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from benchmarks.pyramids import tissue, write_pyramid
from datasets.slides import open_slide, read_scale_tags, reading
from tests.support.dicom_slides import write_series
from tests.support.faults import check_fault, expect_faults
from tests.support.planned_slides import plan
from tests.support.real_slides import real_slide

IMAGE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
Writer = Callable[[Path], Any]


def tiff(image: np.ndarray = IMAGE, **options: Any) -> Writer:
    return lambda file: tifffile.imwrite(file, image, **{"photometric": "rgb", **options})


def data(content: bytes) -> Writer:
    return lambda file: file.write_bytes(content)


def with_folder(file: Path) -> None:
    file.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    file.with_suffix("").mkdir()


@pytest.mark.parametrize(
    ("name", "write", "code", "words"),
    [
        ("striped.tif", tiff(), "slide.striped", ["vips tiffsave", "--tile --pyramid"]),
        ("one_strip.svs", tiff(rowsperstrip=300), "slide.striped", ["--tile --pyramid"]),
        ("big.tiff", tiff(bigtiff=True), "slide.striped", ["--tile --pyramid"]),
        ("plain.ome.tif", tiff(ome=True), "slide.ome_tiff", ["vips tiffsave", "--tile --pyramid"]),
        ("webp.tif", tiff(tile=(256, 256), compression="webp"), "slide.pixel_format", ["WEBP", "--tile --pyramid"]),
        ("empty.svs", data(b""), "slide.empty", ["again"]),
        ("empty.ndpi", data(b""), "slide.empty", ["again"]),
        ("page.svs", data(b"<!DOCTYPE html><html>log in</html>"), "slide.web_page", ["log"]),
        ("page.tif", data(b"\n <HTML><body>403</body>"), "slide.web_page", ["again"]),
        ("answer.svs", data(b'{"message": "no such file"}'), "slide.web_page", ["no such file"]),
        ("answer.mrxs", data(b'<?xml version="1.0"?><Error>'), "slide.web_page", ["again"]),
        ("lfs.svs", data(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "slide.pointer", ["lfs pull"]),
        ("notes.svs", data(b"see the other disk"), "slide.text", ["see the other disk"]),
        ("alone.mrxs", data(b"\xff\xd8\xff\xe0" + bytes(100)), "slide.incomplete", ["folder alone"]),
        ("bare.mrxs", data(b""), "slide.incomplete", ["folder bare"]),
        ("long.svs", data(b"<html>" + "é".encode() * 5000), "slide.web_page", ["again"]),
        ("long_odd.svs", data(b"<html> " + "é".encode() * 5000), "slide.web_page", ["again"]),
        ("poor.mrxs", with_folder, "slide.incomplete", ["Slidedat.ini"]),
        ("alone.vms", data(b"[Virtual Microscope Specimen]\nImageFile=a.jpg\n"), "slide.incomplete", []),
        ("zeros.svs", data(bytes(10_000)), "slide.unfinished", ["again"]),
        ("picture.svs", data(b"\x89PNG\r\n\x1a\n" + bytes(50)), "slide.foreign_format", ["PNG", "vips tiffsave"]),
        ("photo.tif", data(b"\xff\xd8\xff\xe0" + bytes(50)), "slide.foreign_format", ["JPEG", "vips tiffsave"]),
        ("packed.svs", data(b"PK\x03\x04" + bytes(50)), "slide.archive", ["unpack"]),
        ("noise.svs", data(bytes(range(1, 256))), "slide.unreadable", ["cut off"]),
        ("cut.svs", data(b"II*\0" + bytes(100)), "slide.unreadable", ["cut off"]),
        ("cut.czi", data(b"ZISRAWFILE" + bytes(1000)), "slide.unreadable", ["cut off"]),
    ],
)
def test_each_kind_has_its_code(tmp_path: Path, name: str, write: Writer, code: str, words: list[str]) -> None:
    file = tmp_path / name
    write(file)
    with expect_faults(code) as faults:
        open_slide(file)
    check_fault(faults[0], code, file, *words)


def test_a_cut_slide_may_be_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "cut.svs"
    file.write_bytes(real_slide("cmu-1-small-region.svs").read_bytes()[:500_000])
    with expect_faults("slide.unreadable"):
        open_slide(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with expect_faults("slide.missing"):
        read_scale_tags(tmp_path / "absent.svs")


@pytest.mark.parametrize(("dtype", "code"), [(np.float32, "slide.pixel_format"), (np.uint32, "slide.pixel_format")])
def test_pixels_that_openslide_cannot_decode(tmp_path: Path, dtype: Any, code: str) -> None:
    """OpenSlide opens them, and fails at the first read."""
    file = tmp_path / "deep.tif"
    tifffile.imwrite(file, IMAGE.astype(dtype), photometric="rgb", tile=(256, 256))
    with expect_faults(code), reading(file) as slide:
        slide.read_region((0, 0), 0, (64, 64))


def test_channels_apart_are_no_stained_section(tmp_path: Path) -> None:
    """OpenSlide shows the first channel of a fluorescence image in grey, in which no tissue is found."""
    channels = np.random.default_rng(0).integers(0, 256, (3, 1500, 1500), dtype=np.uint8)
    file = tmp_path / "fluorescent.ome.tif"
    tifffile.imwrite(file, channels, photometric="minisblack", ome=True, tile=(256, 256), metadata={"axes": "CYX"})
    with expect_faults("slide.one_channel") as faults:
        plan(tmp_path, file)
    assert faults[0].where == str(file)


@pytest.mark.parametrize("suffix", [".tif", ".svs", ".ndpi"])
def test_slides_that_can_be_read_are_no_fault(tmp_path: Path, suffix: str) -> None:
    file = write_pyramid(tmp_path / f"slide{suffix}", tissue(600, 600, [(0, 0, 500, 500)]))
    with open_slide(file) as slide:
        assert slide.dimensions == (600, 600)


def test_a_dicom_series_that_lost_its_pixels(tmp_path: Path) -> None:
    [file] = write_series(tmp_path / "slide", IMAGE, levels=(1,))
    file.write_bytes(file.read_bytes()[:600])
    with expect_faults("slide.unreadable"):
        open_slide(file)
