"""Slides read by their tiles: against OpenSlide's own pixels, over layouts, ways to store tiles, borders and damage."""

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.pyramids import write_pyramid
from datasets import tile_reader
from datasets.slides import open_slide, read_area
from datasets.tile_decoding import TileError, UnsuitedSlideError
from datasets.tile_reader import TileReader, put_reduced
from tests.support.real_slides import real_slide

WIDTH, HEIGHT = 1104, 1296  # whole multiples of 16, not of a tile
STORED = [
    None, "jpeg", "jpeg rgb", "jpeg 2000", "lzw", "deflate", "lzw, differences", "deflate, differences",
]  # fmt: skip
AREAS = [  # corner, size, out
    ((0, 0), 512, 256),
    ((512, 512), 512, 256),
    ((832, 1024), 512, 256),  # over the right and lower border
    ((1088, 0), 512, 256),  # nearly all outside
    ((2000, 2000), 512, 256),  # all outside
    ((16, 48), 1024, 256),
    ((592, 784), 1024, 256),
    ((7, 13), 256, 256),
    ((1001, 1133), 256, 256),
    ((8, 16), 600, 200),  # by 3
    ((16, 32), 700, 256),  # by no whole number
    ((480, 720), 1280, 80),
]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    smooth: np.ndarray = gaussian_filter(noise.astype(float), (2, 2, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def both(file: Path, corner: tuple[int, int], size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """An area by tiles and through OpenSlide."""
    with open_slide(file) as slide:
        ours = TileReader(file, slide).read(corner, (size, size), (out, out))
        return ours, np.asarray(read_area(slide, corner, (size, size), (out, out)))


# ---- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(1, 4, 16), (1, 2, 4)], ids=str)
@pytest.mark.parametrize(
    ("stored", "tile"),
    [
        (stored, tile) for stored in STORED for tile in (256, 240) if (stored, tile) != (None, 240)
    ],  # tifffile pads these
)
def test_pixels_are_openslides(
    tmp_path: Path, image: np.ndarray, stored: str | None, tile: int, levels: tuple[int, ...]
) -> None:
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, levels, stored, tile)
    for corner, size, out in AREAS:
        ours, theirs = both(file, corner, size, out)
        assert ours.shape == (out, out, 3)
        np.testing.assert_array_equal(ours, theirs, err_msg=f"{corner}, {size} -> {out}")
    assert both(file, *AREAS[0])[0].std() > 5
    assert (both(file, *AREAS[4])[0] == 255).all()


def test_one_reader_reads_areas_in_any_order(tmp_path: Path, image: np.ndarray) -> None:
    """What is kept of one area never gets into another one."""
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, (1, 4), "jpeg", 240)
    generator = np.random.default_rng(1)
    with open_slide(file) as slide:
        reader = TileReader(file, slide, cache_bytes=2_000_000)
        for _ in range(60):
            size = int(generator.choice([256, 512, 1024]))
            corner = int(generator.integers(0, WIDTH // 8) * 8), int(generator.integers(0, HEIGHT // 8) * 8)
            ours = reader.read(corner, (size, size), (256, 256))
            np.testing.assert_array_equal(ours, np.asarray(read_area(slide, corner, (size, size), (256, 256))))


@pytest.mark.parametrize(("name", "compression"), [("cmu-1-small-region.svs", 7), ("tcga-cr-7395.svs", 33005)])
def test_real_slides(name: str, compression: int) -> None:
    file = real_slide(name)
    with tifffile.TiffFile(file) as tiff:
        assert tiff.pages[0].compression == compression  # type: ignore[union-attr]
    with open_slide(file) as slide:
        reader = TileReader(file, slide)
        width, height = slide.dimensions
        for corner in ((0, 0), (1024, 512), (width - 700, height - 900), (333, 777)):
            for out in (256, 512, 1024):
                area = corner, (1024, 1024), (out, out)
                if slide.level_count > 1 and out < 1024:  # its second level is not 2 times smaller, but 2.0005 times
                    area = corner, (out, out), (out, out)
                np.testing.assert_array_equal(reader.read(*area), np.asarray(read_area(slide, *area)))


@pytest.mark.parametrize("power", [40, None], ids=["aperio", "generic"])
def test_tiles_that_were_left_out_are_white(tmp_path: Path, image: np.ndarray, power: float | None) -> None:
    missing = [(0, 1), (0, 8)]
    file = write_pyramid(tmp_path / "slide.svs", image, power, 0.25, (1, 4), "jpeg", missing=missing)
    for corner, size, out in AREAS:
        if size // out < 4:
            ours, theirs = both(file, corner, size, out)
            np.testing.assert_array_equal(ours, theirs)
    assert (both(file, (256, 0), 256, 256)[0] == 255).all()
    assert both(file, (0, 0), 256, 256)[0].std() > 5


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_means_are_rounded_as_pillow_rounds_them(factor: int) -> None:
    generator = np.random.default_rng(factor)
    for most in (2, 256):
        pixels = generator.integers(0, most, (24 * factor, 36 * factor, 3), dtype=np.uint8)
        place = np.zeros((24, 36, 3), np.uint8)
        put_reduced(pixels, factor, place)
        np.testing.assert_array_equal(place, np.asarray(Image.fromarray(pixels).reduce(factor)))


# ---- each tile once --------------------------------------------------------------------------------------------------


def read_grid(file: Path, monkeypatch: pytest.MonkeyPatch, cache_bytes: int) -> tuple[list[int], int]:
    """Reads a slide's level 0 in areas of 512 pixels, row by row. (number of each tile that was decoded, the most bytes
    that were kept)."""
    decoded: list[int] = []
    most = 0
    original = TileReader._decoded

    def decode(self: TileReader, level: Any, number: int) -> np.ndarray:
        decoded.append(number)
        return original(self, level, number)

    monkeypatch.setattr(TileReader, "_decoded", decode)
    with open_slide(file) as slide:
        reader = TileReader(file, slide, cache_bytes=cache_bytes)
        for top in range(0, HEIGHT, 512):
            for left in range(0, WIDTH, 512):
                reader.read((left, top), (512, 512), (256, 256))
                most = max(most, sum(pixels.nbytes for pixels in reader._kept.values()))
                assert reader._kept_bytes == sum(pixels.nbytes for pixels in reader._kept.values())
    return decoded, most


@pytest.mark.parametrize("tile", [256, 240, 192, 512, 1024])
def test_each_tile_is_decoded_once(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, (1, 4), "jpeg", tile)
    decoded, most = read_grid(file, monkeypatch, 2**25)
    assert sorted(decoded) == list(range(-(-WIDTH // tile) * -(-HEIGHT // tile)))
    assert (most == 0) == (512 % tile == 0)


def test_what_is_kept_is_bounded(tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, (1, 4), "jpeg", 240)
    budget = 3 * 240 * 240 * 3
    decoded, most = read_grid(file, monkeypatch, budget)
    assert most == budget
    assert len(set(decoded)) == 30 < len(decoded)


# ---- damage ----------------------------------------------------------------------------------------------------------


def damage(file: Path, kind: str, tile: int = 1) -> None:
    """Of one tile of level 0."""
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        start, count = page.dataoffsets[tile], page.databytecounts[tile]
        tags = {name: page.tags[name] for name in ("TileOffsets", "TileByteCounts")}
        places = {name: tag.valueoffset + tile * tag.valuebytecount // tag.count for name, tag in tags.items()}
        width = {name: tag.valuebytecount // tag.count for name, tag in tags.items()}
    content = bytearray(file.read_bytes())

    def put(name: str, value: int) -> None:
        content[places[name] : places[name] + width[name]] = value.to_bytes(width[name], "little")

    if kind == "zeros":
        content[start + count // 2 : start + count // 2 + 400] = bytes(400)
    elif kind == "all zeros":
        content[start : start + count] = bytes(count)
    elif kind == "cut off":
        put("TileByteCounts", count // 2)
    elif kind == "outside":
        put("TileOffsets", len(content) - count // 2)
    file.write_bytes(content)


@pytest.mark.parametrize("kind", ["zeros", "all zeros", "cut off", "outside"])
@pytest.mark.parametrize("stored", ["jpeg", "jpeg rgb", "jpeg 2000", "lzw", "deflate", None], ids=str)
def test_a_damaged_tile_is_refused(tmp_path: Path, image: np.ndarray, stored: str | None, kind: str) -> None:
    if (stored, kind) in ((None, "zeros"), (None, "all zeros"), ("jpeg 2000", "zeros")):
        pytest.skip("nothing in such a tile tells")
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, (1, 4), stored)
    with open_slide(file) as slide:
        whole = TileReader(file, slide).read((512, 512), (256, 256), (256, 256))
        damage(file, kind)
        reader = TileReader(file, slide)
        with pytest.raises(TileError, match="tile 1 of the level of 1104 x 1296 pixels"):
            reader.read((0, 0), (512, 512), (256, 256))
        np.testing.assert_array_equal(reader.read((512, 512), (256, 256), (256, 256)), whole)


def test_openslide_does_not_notice_damage_that_tiles_do(tmp_path: Path, image: np.ndarray) -> None:
    """The reason why deflate tiles are held against their checksum."""
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, (1, 4), "deflate")
    damage(file, "zeros")
    with open_slide(file) as slide:
        slide.read_region((256, 0), 0, (256, 256))
        with pytest.raises(TileError):
            TileReader(file, slide).read((256, 0), (256, 256), (256, 256))


# ---- slides that are left to OpenSlide -------------------------------------------------------------------------------


def write_otherwise(file: Path, image: np.ndarray, **how: Any) -> None:
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(image, **{"photometric": "rgb", "tile": (256, 256), "metadata": None, **how})


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"planarconfig": "separate"}, "RGB of 8 bits"),
        ({"compression": "packbits"}, "PACKBITS"),
    ],
)
def test_what_is_stored_otherwise(tmp_path: Path, image: np.ndarray, how: dict[str, Any], reason: str) -> None:
    pixels = np.moveaxis(image, 2, 0) if "planarconfig" in how else image
    write_otherwise(tmp_path / "slide.tif", pixels, **how)
    with open_slide(tmp_path / "slide.tif") as slide, pytest.raises(UnsuitedSlideError, match=reason):
        TileReader(tmp_path / "slide.tif", slide).read((0, 0), (256, 256), (256, 256))


def test_places_between_pixels_of_a_level(tmp_path: Path, image: np.ndarray) -> None:
    """There OpenSlide interpolates: the second level is 2.0018 times smaller."""
    file = write_pyramid(tmp_path / "slide.svs", image[:1295, :1103], 40, 0.25, (1, 2), "jpeg")
    with open_slide(file) as slide:
        reader = TileReader(file, slide)
        area = (512, 512), (256, 256)
        reader.check(np.array([[0, 0]]), *area)
        reader.check(np.array([[333, 1]]), (512, 512), (512, 512))
        with pytest.raises(UnsuitedSlideError, match="between two pixels of its level 1"):
            reader.check(np.array([[0, 0], [512, 512]]), *area)


def test_openslide_draws_left_out_tiles_of_aperio_from_the_level_before(tmp_path: Path, image: np.ndarray) -> None:
    corners, area = np.array([[0, 0]]), ((1280, 1280), (320, 320))
    for power in (40, None):
        file = write_pyramid(tmp_path / "slide.svs", image, power, 0.25, (1, 4), "jpeg", missing=[(1, 1)])
        with open_slide(file) as slide:
            assert slide.properties[openslide.PROPERTY_NAME_VENDOR] == ("aperio" if power else "generic-tiff")
            reader = TileReader(file, slide)
            if power:
                with pytest.raises(UnsuitedSlideError, match="level 1 were left out"):
                    reader.check(corners, *area)
            else:
                reader.check(corners, *area)
                np.testing.assert_array_equal(*both(file, (0, 0), 1280, 320))


def test_an_index_that_tifffile_cannot_read(tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25)

    def fail(*_: Any) -> None:
        raise KeyError("tag")

    monkeypatch.setattr(tile_reader.tifffile, "TiffFile", fail)
    with open_slide(file) as slide, pytest.raises(UnsuitedSlideError, match="index cannot be read"):
        TileReader(file, slide)


# ---- half size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "differs"), [("jpeg", True), ("jpeg rgb", True), ("jpeg 2000", False)])
@pytest.mark.parametrize("tile", [256, 240])
def test_half_decoding(tmp_path: Path, image: np.ndarray, stored: str, differs: bool, tile: int) -> None:
    """JPEG tiles alone, of areas that are reduced, are other pixels, and not far from the mean."""
    file = write_pyramid(tmp_path / "slide.svs", image, 40, 0.25, (1, 16), stored, tile)
    with open_slide(file) as slide:
        reader = TileReader(file, slide, half_decode=True)
        for corner, size, out in AREAS:
            ours = reader.read(corner, (size, size), (out, out))
            theirs = np.asarray(read_area(slide, corner, (size, size), (out, out)))
            apart = np.abs(ours.astype(int) - theirs)
            assert apart.mean() < 6 and (apart.any() == 0 or differs)
            if size // out == 2 and corner == (0, 0):
                assert apart.any() == differs
            if size == out:
                assert not apart.any()
