"""Masks of tissue from other tools: where they say tissue is, patches are; what is no mask of the slide is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks.pyramids import tissue, write_pyramid
from datasets.given_masks import Window, draw_mask, find_masks
from datasets.slides import open_slide
from datasets.tissue import TissueRule, lay_grid
from tests.support.faults import check_fault, expect_faults

SIZE = WIDTH, HEIGHT = 2560, 1536
SCANNED = (0.0, 0.0, 2560.0, 1536.0)
SQUARE = (512, 256, 1536, 1280)  # left, top, right, bottom, in level-0 pixels
WHOLE = Window(SCANNED, (160, 96))

RING = [[512, 256], [1536, 256], [1536, 1280], [512, 1280], [512, 256]]
HOLE = [[768, 512], [1280, 512], [1280, 1024], [768, 1024], [768, 512]]


def square(width: int, height: int, value: Any = 255, dtype: Any = np.uint8) -> np.ndarray:
    """The square, at any size of a mask."""
    mask = np.zeros((height, width), dtype)
    left, right = (round(edge * width / WIDTH) for edge in SQUARE[::2])
    top, bottom = (round(edge * height / HEIGHT) for edge in SQUARE[1::2])
    mask[top:bottom, left:right] = value
    return mask


def expected() -> np.ndarray:
    return square(*WHOLE.shape) > 0


def features(*geometries: dict[str, Any]) -> dict[str, Any]:
    """As TRIDENT's contours_geojson (GeoPandas) writes contours: level-0 pixels, with a reference system of no use."""
    made = [
        {"type": "Feature", "properties": {"tissue_id": number}, "geometry": geometry}
        for number, geometry in enumerate(geometries)
    ]
    system = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    return {"type": "FeatureCollection", "name": "slide", "crs": system, "features": made}


def polygon(*rings: list[list[int]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def in_colours(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask, mask // 2, mask // 3], -1)


def opaque(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full((96, 160), 255, np.uint8)])


POINT = {"type": "Point", "coordinates": [1, 2]}
NO_NUMBERS, FAR = polygon([["a", 2], [1, 2], [3, 4]]), polygon([[0, 0], [9000, 0], [9000, 9000]])  # type: ignore[list-item]


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(160, 96), (640, 384), (80, 48), (2560, 1536), (161, 96)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_a_mask_of_any_size(tmp_path: Path, shape: tuple[int, int], suffix: str) -> None:
    file = tmp_path / f"S1{suffix}"
    Image.fromarray(square(*shape)).save(file)
    found = draw_mask(file, SIZE, SCANNED, WHOLE)
    assert found.shape == (96, 160) and (found != expected()).mean() < 0.02


@pytest.mark.parametrize(
    "make",
    [
        lambda file: Image.fromarray(square(160, 96, 1)).save(file),
        lambda file: Image.fromarray(square(160, 96, 7)).save(file),  # a label
        lambda file: Image.fromarray(square(160, 96) > 0).save(file),  # one bit
        lambda file: Image.fromarray(square(160, 96, 65535, np.uint16)).save(file),
        lambda file: Image.fromarray(in_colours(square(160, 96))).save(file),
        lambda file: Image.fromarray(in_colours(square(160, 96))).convert("P").save(file),
        lambda file: Image.fromarray(opaque(in_colours(square(160, 96)))).save(file),
        lambda file: Image.fromarray(opaque(square(160, 96))).save(file),
        lambda file: Image.fromarray(square(640, 384)).resize((160, 96), 3).save(file),  # blurred
    ],
)  # fmt: skip
def test_forms_of_images(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "S1.png")
    found = draw_mask(tmp_path / "S1.png", SIZE, SCANNED, WHOLE)
    assert (found != expected()).mean() < 0.03


def test_noise_of_compression_is_no_tissue(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noisy = np.abs(square(160, 96, 230).astype(int) + generator.integers(0, 25, (96, 160))).astype(np.uint8)
    tifffile.imwrite(tmp_path / "S1.tif", noisy)
    np.testing.assert_array_equal(draw_mask(tmp_path / "S1.tif", SIZE, SCANNED, WHOLE), expected())


def test_a_pyramid_of_masks(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "S1.tif") as tiff:
        for width in (2560, 640):
            mask = square(width, width * 3 // 5)
            tiff.write(mask, tile=(256, 256), subfiletype=int(width < 2560), compression="lzw", metadata=None)
    np.testing.assert_array_equal(draw_mask(tmp_path / "S1.tif", SIZE, SCANNED, WHOLE), expected())


def test_a_mask_of_the_scanned_area_alone(tmp_path: Path) -> None:
    """The slide is larger; the mask has the scanned area's proportions, and lies there."""
    Image.fromarray(square(160, 96)).save(tmp_path / "S1.png")
    scanned, slide = (1000.0, 500.0, 2560.0, 1536.0), (8000, 8000)
    found = draw_mask(tmp_path / "S1.png", slide, scanned, Window((1000, 500, 2560, 1536), (160, 96)))
    np.testing.assert_array_equal(found, expected())


def test_outside_of_the_mask_is_no_tissue(tmp_path: Path) -> None:
    Image.fromarray(np.full((96, 160), 255, np.uint8)).save(tmp_path / "S1.png")
    found = draw_mask(tmp_path / "S1.png", SIZE, SCANNED, Window((0, 0, 5120, 3072), (160, 96)))
    assert found[:48, :80].all() and not found[48:].any() and not found[:, 80:].any()


# ---- contours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        features(polygon(RING)),
        features({"type": "MultiPolygon", "coordinates": [[RING], [HOLE]]}),  # the second lies in the first
        features(polygon(RING, HOLE), polygon(HOLE)),  # a hole of one does not cut the other
        features({"type": "GeometryCollection", "geometries": [polygon(RING)]}),
        features(polygon(RING))["features"][0],
        features(polygon(RING))["features"],  # a list, as older QuPath writes
        polygon(RING),
        polygon([[*point, 0] for point in RING]),
    ],
)
def test_forms_of_contours(tmp_path: Path, content: Any) -> None:
    (tmp_path / "S1.geojson").write_text(json.dumps(content))
    found = draw_mask(tmp_path / "S1.geojson", SIZE, SCANNED, WHOLE)
    assert (found != expected()).mean() < 0.03


def test_holes_are_no_tissue(tmp_path: Path) -> None:
    (tmp_path / "S1.geojson").write_text(json.dumps(features(polygon(RING, HOLE))))
    found = draw_mask(tmp_path / "S1.geojson", SIZE, SCANNED, WHOLE)
    assert not found[34:62, 50:78].any() and found[18:30, 34:94].all() and found[66:78, 34:94].all()


def test_no_contours_are_no_tissue(tmp_path: Path) -> None:
    (tmp_path / "S1.geojson").write_text(json.dumps(features()))
    assert not draw_mask(tmp_path / "S1.geojson", SIZE, SCANNED, WHOLE).any()


# ---- patches ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["S1.png", "S1.geojson"])
def test_patches_are_where_the_mask_says(tmp_path: Path, name: str) -> None:
    """Not where the colour is, at the right. Of the parents two have a quarter of mask."""
    if name.endswith("png"):
        Image.fromarray(square(320, 192)).save(tmp_path / name)
    else:
        (tmp_path / name).write_text(json.dumps(features(polygon(RING))))
    image = tissue(HEIGHT, WIDTH, [(0, 1700, 1500, 2500)])
    with open_slide(write_pyramid(tmp_path / "S1.tif", image)) as slide:
        grid, overview = lay_grid(slide, 20, (5, 20), TissueRule(0.25, mask=tmp_path / name))
    assert grid.parents.tolist() == [[0, 0], [1024, 0]]
    children = {(x // 256, y // 256) for x, y in grid.child_coords()[grid.is_child].tolist()}
    assert children == {(x, y) for x in range(2, 6) for y in range(1, 4)}
    assert (overview.tissue[: HEIGHT // 32, : WIDTH // 32] != (square(80, 48) > 0)).mean() < 0.03


# ---- what is no mask of the slide ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        ("S1.png", lambda file: Image.fromarray(square(100, 100)).save(file), "mask.proportions"),
        ("S1.png", lambda file: Image.fromarray(square(96, 160)).save(file), "mask.proportions"),
        ("S1.png", lambda file: Image.fromarray(tissue(96, 160, [(0, 0, 90, 100)])).save(file), "mask.form"),
        ("S1.png", lambda file: file.write_bytes(b"nothing"), "mask.unreadable"),
        ("S1.png", lambda file: file.write_bytes(b""), "mask.unreadable"),
        ("S1.tif", lambda file: file.write_bytes(b"II*\0nothing"), "mask.unreadable"),
        ("S1.geojson", lambda file: file.write_text("{"), "mask.unreadable"),
        ("S1.geojson", lambda file: file.write_text('{"slide": 1}'), "mask.form"),
        ("S1.geojson", lambda file: file.write_text("3"), "mask.form"),
        ("S1.geojson", lambda file: file.write_text(json.dumps(features(POINT))), "mask.form"),
        ("S1.geojson", lambda file: file.write_text(json.dumps(NO_NUMBERS)), "mask.form"),
        ("S1.geojson", lambda file: file.write_text(json.dumps(FAR)), "mask.coords"),
    ],
)  # fmt: skip
def test_what_is_no_mask_of_the_slide(tmp_path: Path, name: str, make: Callable[[Path], Any], code: str) -> None:
    make(tmp_path / name)
    with expect_faults(code) as faults:
        draw_mask(tmp_path / name, SIZE, SCANNED, WHOLE)
    check_fault(faults[0], code, tmp_path / name)


def test_masks_are_found_by_the_names_of_slides(tmp_path: Path) -> None:
    for name in ("S1.png", "S2_mask.tif", "deep/S3.svs.png", "contours_geojson/S4.geojson", "contours/S4.jpg", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {name: file.name for name, file in find_masks(tmp_path).items()} == {
        "S1": "S1.png", "S2": "S2_mask.tif", "S3": "S3.svs.png", "S4": "S4.geojson",
    }  # fmt: skip
    (tmp_path / "S1_mask.png").touch()
    with expect_faults("mask.repeated"):
        find_masks(tmp_path)
    with expect_faults("folder.missing"):
        find_masks(tmp_path / "absent")
