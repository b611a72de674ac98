"""Macenko stain normalisation (Macenko et al., ISBI 2009), one estimate a slide.

Optical density OD = -log((I + 1) / 240) is a mixture of haematoxylin and eosin: OD = concentrations @ stains. The
slide's stains and the strength of each are estimated from its tissue, and exchanged for those of a reference.
"""

from dataclasses import dataclass

import numpy as np

from utils.errors import Fault, UserError

LIGHT = 240.0  # intensity without tissue
TRANSPARENT = 0.15  # optical density below which a pixel says nothing about stains
PERCENTILE = 1.0
STRENGTH_PERCENTILE = 99.0
FEWEST_PIXELS = 100
MOST_ALIKE = 15.0  # condition number of the stains: the reference has 5, a slide of one stain 30
# of the published reference slide: rows haematoxylin, eosin; columns red, green, blue
REFERENCE_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
REFERENCE_STRENGTH = np.array([1.9705, 1.0308])


@dataclass(frozen=True)
class Macenko:
    """A slide's stains: (2, 3) unit vectors, haematoxylin first; strength: (2,) largest concentrations."""

    stains: np.ndarray
    strength: np.ndarray

    @classmethod
    def fit(cls, pixels: np.ndarray) -> "Macenko":
        """pixels: (N, 3) uint8 of tissue. Raises UserError where they do not show two stains."""
        density = _optical_density(pixels)
        stained = density[(density >= TRANSPARENT).all(1)]
        if len(stained) < FEWEST_PIXELS:
            expected = f"at least {FEWEST_PIXELS} to tell the stains"
            raise UserError(Fault("slide.stains", "", f"{len(stained)} stained pixels", expected))
        plane = np.linalg.eigh(np.cov(stained.T))[1][:, [1, 2]]
        across, along = (stained @ plane).T
        angles = np.percentile(np.arctan2(along, across), [PERCENTILE, 100 - PERCENTILE])
        stains = np.stack([np.cos(angles), np.sin(angles)], -1) @ plane.T
        stains = stains[np.argsort(-stains[:, 0])]  # haematoxylin takes more of the red
        if np.linalg.cond(stains) > MOST_ALIKE:
            angle = np.degrees(np.arccos(min(stains[0] @ stains[1], 1.0)))
            found = f"its two stains are {angle:.1f} degrees apart, as of a single stain"
            raise UserError(Fault("slide.stains", "", found, expected="two"))
        strength = np.percentile(_concentrations(density, stains), STRENGTH_PERCENTILE, axis=0)
        if not (strength > 0).all():
            raise UserError(Fault("slide.stains", "", "one of its stains takes part in no pixel", expected="two"))
        return cls(stains, strength)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The same image with the reference's stains: (..., 3) uint8."""
        concentrations = _concentrations(_optical_density(image.reshape(-1, 3)), self.stains)
        concentrations *= REFERENCE_STRENGTH / self.strength
        normalised = LIGHT * np.exp(-concentrations @ REFERENCE_STAINS)
        pixels: np.ndarray = normalised.clip(0, 255).astype(np.uint8)
        return pixels.reshape(image.shape)


def _optical_density(pixels: np.ndarray) -> np.ndarray:
    return -np.log((pixels.astype(np.float64) + 1) / LIGHT)


def _concentrations(density: np.ndarray, stains: np.ndarray) -> np.ndarray:
    """Least squares: (N, 3) -> (N, 2)"""
    return density @ np.linalg.pinv(stains)
