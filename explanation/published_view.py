"""One slide as the authors show it: in their notebook a patch of each scale with its texts (paper, section 5 of the
released repository), and in Figure 5 an anchor patch with patches like and unlike it.

Both are made of the similarities *after* the graph, of the patches in the graph. In the notebook each patch's
similarities are scaled by themselves onto [-1, 1] (``row_normalised``): a bar says how a text stands among the texts of
one patch, and not how well the text matches.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from explanation.contributions import row_normalised
from explanation.explained_slide import ExplainedSlide, Scale


@dataclass(frozen=True)
class PublishedScale:
    """One magnification. Patches are numbered as in ``Scale.places``; T texts.

    patch: the one of the greatest mean, over the class's texts, of its scaled similarities; contributions: (T,), that
    patch's. anchor: the patch that is most similar to the class's texts, in the mean. distribution: (T,), the anchor's
    softmax over texts. positives, negatives: the patches whose distributions are most and least like the anchor's
    (Jensen-Shannon distance), nearest and farthest first, with their distances; none is both.
    """

    scale: Scale
    patch: int
    contributions: np.ndarray
    anchor: int
    distribution: np.ndarray
    positives: list[tuple[int, float]]
    negatives: list[tuple[int, float]]


def shown_class(explained: ExplainedSlide) -> int:
    """The slide's class; of a slide without a label the predicted one."""
    return explained.prediction if explained.label < 0 else explained.label


def published_view(explained: ExplainedSlide, count: int) -> list[PublishedScale]:
    """Each scale that has patches in the graph. count: positives, and negatives, at most."""
    views = []
    for scale in explained.scales:
        similarity = scale.explanation.similarity[scale.is_patch]
        in_graph = np.flatnonzero(~np.isnan(similarity).any(1))
        if not len(in_graph):
            continue
        similarity = similarity[in_graph]
        own = list(scale.class_texts(shown_class(explained), len(explained.class_names)))
        scaled = row_normalised(similarity)
        patch = int(scaled[:, own].mean(1).argmax())
        anchor = int(similarity[:, own].mean(1).argmax())
        distributions = softmax(similarity.astype(np.float64), axis=1)
        distances = jensenshannon(distributions, distributions[anchor : anchor + 1], axis=1)
        distances = np.nan_to_num(distances)  # of equal distributions rounding may leave the root of less than 0
        others = [int(index) for index in np.argsort(distances, kind="stable") if index != anchor]
        told = [(int(in_graph[index]), float(distances[index])) for index in others]
        near, far = min(count, (len(told) + 1) // 2), min(count, len(told) // 2)
        views.append(
            PublishedScale(
                scale, int(in_graph[patch]), scaled[patch], int(in_graph[anchor]), distributions[anchor],
                told[:near], told[::-1][:far],
            )
        )  # fmt: skip
    return views
