"""An explanation as one HTML file that needs nothing beside it: no server, no network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explanation.explained_slide import ExplainedSlide, Scale
from explanation.figures import contributions_figure, distributions_figure, removal_figure
from explanation.heatmap import Canvas, colour_bar, heat_map, image_uri, limits, scale_bar
from explanation.published_view import published_view, shown_class
from reports.plots import data_uri
from reports.templating import page_template

OVERVIEW_EDGE = 1200  # pixels
PATCH_EDGE = 128  # pixels
PUBLISHED_PATCHES = 4  # positives, and negatives, of an anchor


def render_explanation(explained: ExplainedSlide, run_name: str, top: int, files: Mapping[str, str]) -> str:
    """The page of a slide. top: patches shown for each class and scale. files: {name: what is in it} of those beside
    the page."""
    canvas = Canvas.of(explained.frame, explained.high.size)
    x, y, width, height = explained.frame
    order = sorted(range(len(explained.class_names)), key=lambda k: (k != explained.prediction, k))
    maps = {scale.magnification: _Maps(canvas, scale) for scale in explained.scales}
    removal = explained.removal
    return page_template("explanation.html").render(
        explained=explained,
        run_name=run_name,
        files=files,
        top=top,
        frame={"x": x, "y": y, "width": width, "height": height},
        overview=_overview(explained),
        scale_bar=scale_bar(width, explained.pixel.microns if explained.pixel else None),
        colour_bar=colour_bar(),
        class_maps={scale.magnification: maps[scale.magnification].by_class() for scale in explained.scales},
        graph_maps=_graph_maps(explained, maps),
        classes=[
            {
                "label": k,
                "name": explained.class_names[k],
                "scales": [
                    _class_part(explained, scale, k, maps[scale.magnification], top) for scale in explained.scales
                ],
            }
            for k in order
        ],
        most_added=max(1e-12, *(np.abs(scale.explanation.text_logits).max() for scale in explained.scales)),
        published=_published(explained),
        removal=data_uri(removal_figure(removal, explained.class_names[explained.prediction])) if removal else None,
        removal_means=removal.mean_probabilities() if removal else None,
    )


class _Maps:
    """Heat maps of one scale."""

    def __init__(self, canvas: Canvas, scale: Scale):
        self.scale = scale
        self.places = canvas.place(scale.places, scale.size)

    def draw(self, values: np.ndarray, bounds: tuple[float, float] | None = None) -> dict[str, Any]:
        """values: (M,) of the real patches. bounds: of the colours, the values' own by default."""
        bounds = bounds or limits(values)
        return {"image": image_uri(heat_map(self.places, values, bounds)), "limits": bounds}

    def by_class(self) -> list[dict[str, Any]]:
        """Class scores, in the same colours for all classes."""
        scores = self.scale.class_scores
        return [self.draw(scores[:, k], limits(scores)) for k in range(scores.shape[1])]


def _graph_maps(explained: ExplainedSlide, maps: Mapping[int, _Maps]) -> dict[str, dict[str, Any]]:
    found = {}
    for scale in explained.scales:
        kept = scale.explanation.kept[scale.is_patch].sum(1)
        drawn = maps[scale.magnification].draw(kept, (0.0, max(1.0, float(kept.max(initial=0)))))
        found[f"{scale.magnification}x: texts that the filtering joined with each patch, of {len(scale.texts)}"] = drawn
    for layer in explained.explanation.attention[-1:]:
        title = f"{explained.high.magnification}x: weight that each child gets from its parent, last layer"
        found[title] = maps[explained.high.magnification].draw(layer[explained.high.is_patch])
    return found


def _published(explained: ExplainedSlide) -> dict[str, Any] | None:
    """The slide as the authors show it; None where no patch is in the graph."""
    views = published_view(explained, PUBLISHED_PATCHES)
    if not views:
        return None
    return {
        "class_name": explained.class_names[shown_class(explained)],
        "contributions": data_uri(contributions_figure(explained, views)),
        "distributions": data_uri(distributions_figure(explained, views)),
        "scales": [
            {
                "magnification": view.scale.magnification,
                "groups": {
                    "greatest mean over the class's texts": [_place(explained, view.scale, view.patch)],
                    "anchor": [_place(explained, view.scale, view.anchor)],
                    "positive": [_place(explained, view.scale, *patch) for patch in view.positives],
                    "negative": [_place(explained, view.scale, *patch) for patch in view.negatives],
                },
            }
            for view in views
        ],
    }


def _place(explained: ExplainedSlide, scale: Scale, index: int, distance: float | None = None) -> dict[str, Any]:
    """Where a patch lies, and its picture where the slide's file is given."""
    x, y = scale.places[index].tolist()
    return {"x": x, "y": y, "image": _picture(explained, scale, x, y), "distance": distance}


def _picture(explained: ExplainedSlide, scale: Scale, x: int, y: int) -> str | None:
    edge = min(PATCH_EDGE, scale.size)
    return image_uri(explained.read((x, y), (scale.size,) * 2, (edge, edge)), "JPEG") if explained.read else None


def _overview(explained: ExplainedSlide) -> str | None:
    if explained.read is None:
        return None
    x, y, width, height = explained.frame
    shrink = max(1.0, max(width, height) / OVERVIEW_EDGE)
    image = explained.read((x, y), (width, height), (max(1, round(width / shrink)), max(1, round(height / shrink))))
    return image_uri(image, "JPEG")


def _class_part(explained: ExplainedSlide, scale: Scale, label: int, maps: _Maps, top: int) -> dict[str, Any]:
    """A class at one scale: its texts, and its best patches."""
    own = scale.explanation
    match, kept = own.match[scale.is_patch], own.kept[scale.is_patch].sum(0)
    best = np.argsort(-scale.class_scores[:, label], kind="stable")[:top]
    texts: list[dict[str, Any]] = [
        {
            "name": scale.text_names[t], "text": scale.texts[t], "added": float(own.text_logits[t]),
            "kept": float(kept[t]), "share": float(kept[t] / max(1, len(match))), "map": maps.draw(match[:, t]),
        }
        for t in scale.class_texts(label, len(explained.class_names))
    ]  # fmt: skip
    return {
        "scale": scale,
        "texts": texts,
        "added": float(sum(text["added"] for text in texts)),
        "patches": [_patch(explained, scale, label, index, match[index]) for index in best.tolist()],
    }


def _patch(explained: ExplainedSlide, scale: Scale, label: int, index: int, match: np.ndarray) -> dict[str, Any]:
    x, y = scale.places[index].tolist()
    text = int(match.argmax())
    return {
        "x": x,
        "y": y,
        "image": _picture(explained, scale, x, y),
        "score": float(scale.class_scores[index, label]),
        "added": float(scale.explanation.patch_logits[scale.is_patch][index, label]),
        "name": scale.text_names[text],
        "text": scale.texts[text],
        "match": float(match[text]),
        "children": _children(explained, index) if scale is explained.low else [],
    }


def _children(explained: ExplainedSlide, parent: int) -> Sequence[dict[str, float]]:
    """A parent's children that have a weight in the last layer: place and edge as shares of the parent's edge,
    the weight, and its share of the greatest."""
    found = []
    for layer in explained.explanation.attention[-1:]:
        weights = layer[parent]
        for slot in np.flatnonzero(weights > 0):
            x, y = (explained.high.coords[parent, slot] - explained.low.coords[parent]) / explained.low.size
            shade, weight = float(weights[slot] / np.nanmax(weights)), float(weights[slot])
            found.append(
                {"x": x, "y": y, "edge": explained.high.size / explained.low.size, "shade": shade, "weight": weight}
            )
    return found
