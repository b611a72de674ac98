"""Patches and their scores for QuPath: a GeoJSON FeatureCollection (RFC 7946) in level-0 pixels.

QuPath reads ``objectType``, ``classification``, ``name`` and ``measurements`` from a feature's properties.
"""

from typing import Any
from uuid import NAMESPACE_URL, uuid5

from explanation.explained_slide import ExplainedSlide, Scale
from reports.plots import COLOURS


def feature_collection(explained: ExplainedSlide, scale: Scale) -> dict[str, Any]:
    """One tile for each patch of a scale: a square, its best-matching description as its name, the class of its highest
    score as its classification; as measurements the class scores, and what it adds to each class's logit."""
    patches = scale.is_patch
    match, patch_logits = scale.explanation.match[patches], scale.explanation.patch_logits[patches]
    best_text, best_class = match.argmax(1), scale.class_scores.argmax(1)
    features = []
    for index, (x, y) in enumerate(scale.places.tolist()):
        measurements: dict[str, float] = {}
        for k, name in enumerate(explained.class_names):
            measurements[f"Score: {name}"] = float(scale.class_scores[index, k])
            measurements[f"Added to logit: {name}"] = float(patch_logits[index, k])
        measurements["Best match"] = float(match[index].max())
        key = f"{explained.slide_id}/{scale.magnification}x/{x}/{y}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid5(NAMESPACE_URL, key)),
                "geometry": {"type": "Polygon", "coordinates": [square(x, y, scale.size)]},
                "properties": {
                    "objectType": "tile",
                    "name": scale.text_names[best_text[index]],
                    "classification": {
                        "name": explained.class_names[best_class[index]],
                        "color": colour(int(best_class[index])),
                    },
                    "measurements": {name: round(value, 6) for name, value in measurements.items()},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def square(x: int, y: int, size: int) -> list[list[int]]:
    """A closed ring, counterclockwise in the plane of x and y as RFC 7946 asks for."""
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


def colour(label: int) -> list[int]:
    """[red, green, blue] of a class, of 255."""
    return list(bytes.fromhex(COLOURS[label % len(COLOURS)][1:]))
