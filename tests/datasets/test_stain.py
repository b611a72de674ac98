"""Macenko's normalisation against torchstain's."""

import numpy as np
import pytest
from torchstain.numpy.normalizers.macenko import NumpyMacenkoNormalizer

from benchmarks.pyramids import tissue
from datasets.stain import REFERENCE_STAINS, Macenko
from tests.support.faults import expect_faults
from tests.support.real_slides import real_slide


def stained(seed: int, stains: np.ndarray = REFERENCE_STAINS) -> np.ndarray:
    """(200, 200, 3) uint8: mixtures of two stains, by Beer's law."""
    concentrations = np.random.default_rng(seed).gamma(1.2, 0.5, (200, 200, 2))
    return (240 * np.exp(-concentrations @ stains)).clip(0, 255).astype(np.uint8)


OTHER_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stains", [REFERENCE_STAINS, OTHER_STAINS])
def test_as_torchstain(seed: int, stains: np.ndarray) -> None:
    image = stained(seed, stains)
    expected, *_ = NumpyMacenkoNormalizer().normalize(image, stains=False)
    found = Macenko.fit(image.reshape(-1, 3)).apply(image)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_as_torchstain_on_a_real_slide() -> None:
    import openslide

    with openslide.OpenSlide(real_slide("cmu-1-small-region.svs")) as slide:
        image = np.asarray(slide.read_region((800, 1800), 0, (600, 600)))[..., :3]
    expected, *_ = NumpyMacenkoNormalizer().normalize(image, stains=False)
    found = Macenko.fit(image.reshape(-1, 3)).apply(image)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_stains_are_found_and_exchanged() -> None:
    image = stained(0, OTHER_STAINS)
    fitted = Macenko.fit(image.reshape(-1, 3))
    cosines = (fitted.stains * OTHER_STAINS).sum(1) / np.linalg.norm(OTHER_STAINS, axis=1)
    assert cosines.min() > 0.98
    again = Macenko.fit(fitted.apply(image).reshape(-1, 3))
    assert ((again.stains * REFERENCE_STAINS).sum(1) / np.linalg.norm(REFERENCE_STAINS, axis=1)).min() > 0.98


def test_one_estimate_serves_all_patches() -> None:
    """A patch's colours do not depend on what else is on it."""
    image = tissue(400, 400, [(0, 0, 400, 400)])
    fitted = Macenko.fit(image.reshape(-1, 3))
    np.testing.assert_array_equal(fitted.apply(image)[100:200, 50:90], fitted.apply(image[100:200, 50:90]))


def test_what_is_white_stays_white() -> None:
    """Also where a pale slide's stains are made stronger: values beyond 255 are not taken round to black."""
    pale = (240 * (stained(0) / 240.0) ** 0.5).astype(np.uint8)
    white = np.full((4, 4, 3), 255, dtype=np.uint8)
    assert Macenko.fit(pale.reshape(-1, 3)).apply(white).min() >= 240


@pytest.mark.parametrize("stain", [*REFERENCE_STAINS, OTHER_STAINS[0]])
def test_a_slide_of_one_stain_is_refused(stain: np.ndarray) -> None:
    """Its noise looks like a second one."""
    generator = np.random.default_rng(0)
    pixels = 240 * np.exp(-generator.gamma(3, 0.25, (100_000, 1)) * stain) + generator.integers(-2, 3, (100_000, 3))
    with expect_faults("slide.stains"):
        Macenko.fit(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((500, 3), 240, np.uint8),
        np.full((500, 3), [150, 60, 160], np.uint8),
        stained(0).reshape(-1, 3)[:50],
        np.concatenate([stained(0).reshape(-1, 3)[:500], np.full((100_000, 3), 255, np.uint8)]),  # nearly all glass
    ],
)
def test_stains_that_cannot_be_told(pixels: np.ndarray) -> None:
    with expect_faults("slide.stains"):
        Macenko.fit(pixels)
