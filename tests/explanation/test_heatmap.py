"""Heat maps pixel by pixel, and scale bars."""

import base64
import io

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from explanation.heatmap import COLOUR_MAP, NO_PATCH, Canvas, colour_bar, heat_map, image_uri, limits, scale_bar


def test_a_map_has_two_pixels_a_child_and_no_more_than_it_may() -> None:
    assert Canvas.of((0, 0, 5120, 2560), 256).size == (40, 20)
    assert max(Canvas.of((0, 0, 512 * 5000, 512 * 2000), 512).size) == 1200


@pytest.mark.parametrize("pixel", [64, 100])
def test_every_pixel_shows_the_patch_over_its_centre(pixel: float) -> None:
    generator = np.random.default_rng(0)
    cells = np.unique(generator.integers(0, 8, (30, 2)), axis=0)
    coords, size = 1000 + 256 * cells, 256
    canvas = Canvas((900, 950, 2400, 2300), pixel)
    found = canvas.place(coords, size)
    assert found.shape == canvas.size[::-1]
    for (row, column), index in np.ndenumerate(found):
        centre = np.array([900 + (column + 0.5) * pixel, 950 + (row + 0.5) * pixel])
        distance = np.abs(coords + size / 2 - centre).max(1)  # from the patches' centres
        if index == NO_PATCH:
            assert distance.min() >= size / 2 - pixel / 2
        else:
            assert distance[index] <= size / 2 + pixel / 2


def test_a_patch_smaller_than_a_pixel_is_still_seen() -> None:
    found = Canvas((0, 0, 1000, 1000), 100).place(np.array([[310, 520]]), 10)
    assert np.argwhere(found == 0).tolist() == [[5, 3]]


def test_colours_are_those_of_the_map_and_the_rest_is_clear() -> None:
    places = np.array([[0, 1, 2], [3, NO_PATCH, 4]])
    values = np.array([-1.0, 0.0, 0.5, np.nan, 7.0])
    image = np.asarray(heat_map(places, values, (0.0, 1.0)).convert("RGBA"))
    colours = 255 * matplotlib.colormaps[COLOUR_MAP]([0.0, 0.0, 0.5, 1.0])
    for place, colour in zip([(0, 0), (0, 1), (0, 2), (1, 2)], colours, strict=True):
        np.testing.assert_allclose(image[place], colour, atol=3)
    assert image[1, 0, 3] == image[1, 1, 3] == 0


def test_equal_limits_do_no_harm() -> None:
    assert heat_map(np.array([[0]]), np.array([0.3]), (0.3, 0.3)).size == (1, 1)


def test_limits_pass_over_unknown_values_and_outliers() -> None:
    assert limits(np.array([*np.arange(101.0), np.nan])) == (1, 99)
    assert limits(np.array([np.nan])) == (0, 1)
    assert limits(np.array([])) == (0, 1)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_survives_its_address(form: str) -> None:
    image = Image.new("RGB", (4, 6), (200, 30, 90))
    kind, data = image_uri(image, form).split(";base64,")
    assert kind == f"data:image/{form.lower()}"
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(image), atol=3)


def test_a_transparent_map_survives_its_address() -> None:
    image = heat_map(np.array([[0, NO_PATCH]]), np.array([0.0]), (0, 1))
    again = Image.open(io.BytesIO(base64.b64decode(image_uri(image).split(",")[1]))).convert("RGBA")
    assert np.asarray(again)[0, :, 3].tolist() == [255, 0]


def test_the_colour_bar_runs_as_the_map() -> None:
    assert colour_bar().startswith("linear-gradient(to right, #440154,") and colour_bar().endswith("#fde725)")


@given(st.integers(100, 10**6), st.one_of(st.none(), st.floats(0.1, 2)))
def test_a_scale_bar_is_a_round_length_of_an_eighth_to_a_quarter(width: int, microns: float | None) -> None:
    share, text = scale_bar(width, microns)
    number, unit = text.replace(",", "").split(" ", 1)
    factor = {"µm": 1, "mm": 1000, "level-0 pixels": 1}[unit]
    assert float(number) * factor == pytest.approx(share * width * (microns or 1))
    assert 0.0999 <= share <= 0.2501
    assert float(number) / 10 ** np.floor(np.log10(float(number))) in (1, 2, 5)


def test_scale_bars_in_words() -> None:
    assert scale_bar(8000, 0.25) == (0.25, "500 µm")
    assert scale_bar(40000, 0.25)[1] == "2 mm"
    assert scale_bar(8000, None) == (0.25, "2,000 level-0 pixels")
