"""The numbers behind an explanation, as tables."""

import numpy as np
import pandas as pd

from explanation.explained_slide import ExplainedSlide, Scale
from explanation.faithfulness import Removal

DIGITS = 6


def patch_table(explained: ExplainedSlide, scale: Scale) -> pd.DataFrame:
    """A row a patch: parent, child (of the high scale), x, y, size; score_<class>, added_<class> (to its logit); then
    for each text match, similarity (empty outside the graph) and kept (share of the folds); attention_<layer>, what its
    parent gives to a child."""
    patches, own = scale.is_patch, scale.explanation
    columns = {"parent": scale.parents}
    if patches.ndim == 2:
        columns["child"] = patches.nonzero()[1]
    columns |= {"x": scale.places[:, 0], "y": scale.places[:, 1], "size": np.full(len(scale.places), scale.size)}
    for k, name in enumerate(explained.class_names):
        columns[f"score_{name}"] = scale.class_scores[:, k]
        columns[f"added_{name}"] = own.patch_logits[patches][:, k]
    for kind in ("match", "similarity", "kept"):
        values = getattr(own, kind)[patches]
        columns |= {f"{kind}_{name}": values[:, t] for t, name in enumerate(scale.text_names)}
    if patches.ndim == 2:
        for number, layer in enumerate(explained.explanation.attention, 1):
            columns[f"attention_{number}"] = layer[patches]
    return pd.DataFrame(columns).round(DIGITS)


def text_table(explained: ExplainedSlide) -> pd.DataFrame:
    """A row a text: magnification, class, name, description; added (to its class's logit); patches and kept, how many
    the filtering joined with it (mean of the folds); attention_<layer> of a high text, what its low text gives it."""
    rows = []
    for scale in explained.scales:
        own, number = scale.explanation, len(scale.texts) // len(explained.class_names)
        kept = own.kept[scale.is_patch].sum(0)
        for t, (name, text) in enumerate(zip(scale.text_names, scale.texts, strict=True)):
            row = {"magnification": scale.magnification, "class": explained.class_names[t // number], "name": name}
            row |= {"description": text, "added": own.text_logits[t], "patches": len(scale.places), "kept": kept[t]}
            if scale is explained.high:
                layers = explained.explanation.text_attention
                row |= {f"attention_{index}": layer.ravel()[t] for index, layer in enumerate(layers, 1)}
            rows.append(row)
    return pd.DataFrame(rows).round(DIGITS)


def removal_table(removal: Removal) -> pd.DataFrame:
    """A row a step: removed (parents), share, ranked, random_mean, random_std, random_1..."""
    draws = {f"random_{number}": curve for number, curve in enumerate(removal.random, 1)}
    return pd.DataFrame(
        {
            "removed": removal.numbers,
            "share": removal.shares,
            "ranked": removal.ranked,
            "random_mean": removal.random.mean(0),
            "random_std": removal.random.std(0),
            **draws,
        }
    ).round(DIGITS)
