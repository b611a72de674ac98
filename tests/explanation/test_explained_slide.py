"""A made-up slide's tables, GeoJSON and page, held against its arrays one patch and one text after the other."""

import re
from dataclasses import replace

import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from explanation.contributions import Explanation, ScaleExplanation
from explanation.explained_slide import ExplainedSlide, FoldOutcome, Scale, text_names
from explanation.faithfulness import Removal
from explanation.figures import removal_figure
from explanation.qupath import feature_collection
from explanation.score_tables import patch_table, removal_table, text_table
from explanation.slide_page import render_explanation

CLASSES = ["A", "B"]
LOW_NAMES = ["A 1", "A 2", "B 1", "B 2"]
P, C, T = 3, 4, 8  # parents, slots of children, high texts
IS_CHILD = np.array([[True, True, False, True], [False, True, True, True], [True, False, False, True]])
PARENTS = np.array([[1000, 2000], [1400, 2000], [1000, 2400]])
CHILDREN = PARENTS[:, None] + np.array([[0, 0], [200, 0], [0, 200], [200, 200]])
REMOVAL = Removal(
    np.array([0, 1, 2]), np.array([0, 1 / 3, 2 / 3]), np.array([0.9, 0.5, 0.4]),
    np.array([[0.9, 0.8, 0.5], [0.9, 0.6, 0.7]]),
)  # fmt: skip


def scale_explanation(seed: int, is_patch: np.ndarray, num_texts: int) -> ScaleExplanation:
    generator = np.random.default_rng(seed)
    shape = *is_patch.shape, num_texts
    match, similarity = (
        np.where(is_patch[..., None], generator.uniform(-1, 1, shape), np.nan).astype(np.float32) for _ in range(2)
    )
    kept = (generator.random(shape) < 0.5) & is_patch[..., None]
    added = generator.normal(size=(*is_patch.shape, 2)) * is_patch[..., None]
    return ScaleExplanation(match, similarity, kept.astype(np.float32), added, generator.normal(size=num_texts))


def made(prediction: int = 1, label: int = 0) -> ExplainedSlide:
    generator = np.random.default_rng(7)
    is_parent = np.ones(P, dtype=bool)
    low, high = scale_explanation(1, is_parent, 4), scale_explanation(2, IS_CHILD, T)
    attention = np.where(IS_CHILD, generator.random((2, P, C)), np.nan)
    logits = np.array([0.3, -0.2])
    explanation = Explanation(low, high, logits, 0.5, attention, generator.random((2, 4, 2)))
    probabilities = np.array([0.2, 0.8])[:: 1 if prediction else -1]
    names = text_names(CLASSES, 2, 2)
    return ExplainedSlide(
        "slide", CLASSES, label, [FoldOutcome("fold 0", "test", probabilities, 0.5)], explanation,
        Scale(5, PARENTS, 400, is_parent, [f"low {t}" for t in range(4)], names[0], low),
        Scale(20, CHILDREN, 200, IS_CHILD, [f"high {t}" for t in range(T)], names[1], high),
        removal=REMOVAL,
    )  # fmt: skip


EXPLAINED = made()


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_names_and_texts_of_a_class() -> None:
    assert EXPLAINED.low.text_names == LOW_NAMES
    assert EXPLAINED.high.text_names == [f"{name}.{s}" for name in LOW_NAMES for s in (1, 2)]
    assert [list(EXPLAINED.low.class_texts(label, 2)) for label in (0, 1)] == [[0, 1], [2, 3]]
    assert list(EXPLAINED.high.class_texts(1, 2)) == [4, 5, 6, 7]


def test_the_frame_holds_all_patches_with_a_margin_of_one_child() -> None:
    assert EXPLAINED.frame == (800, 1800, 1200, 1200)


def test_the_table_of_low_patches() -> None:
    table, own = patch_table(EXPLAINED, EXPLAINED.low), EXPLAINED.low.explanation
    assert "child" not in table and "attention_1" not in table
    for p, row in enumerate(table.to_dict("records")):
        assert [row[name] for name in ("parent", "x", "y", "size")] == [p, *PARENTS[p], 400]
        scores = own.match[p, :2].mean(), own.match[p, 2:].mean()
        assert [row["score_A"], row["score_B"]] == pytest.approx(scores, abs=1e-6)
        assert [row["added_A"], row["added_B"]] == pytest.approx(own.patch_logits[p], abs=1e-6)
        for kind in ("match", "similarity", "kept"):
            found = [row[f"{kind}_{name}"] for name in LOW_NAMES]
            assert found == pytest.approx(getattr(own, kind)[p], abs=1e-6)


def test_the_table_of_high_patches() -> None:
    table, own = patch_table(EXPLAINED, EXPLAINED.high), EXPLAINED.high.explanation
    places = [(p, c) for p in range(P) for c in range(C) if IS_CHILD[p, c]]
    for (p, c), row in zip(places, table.to_dict("records"), strict=True):
        assert [row[name] for name in ("parent", "child", "x", "y", "size")] == [p, c, *CHILDREN[p, c], 200]
        scores = own.match[p, c, :4].mean(), own.match[p, c, 4:].mean()
        assert [row["score_A"], row["score_B"]] == pytest.approx(scores, abs=1e-6)
        assert [row["added_A"], row["added_B"]] == pytest.approx(own.patch_logits[p, c], abs=1e-6)
        weights = EXPLAINED.explanation.attention[:, p, c]
        assert [row["attention_1"], row["attention_2"]] == pytest.approx(weights, abs=1e-6)


def test_the_table_of_texts() -> None:
    table = text_table(EXPLAINED)
    low, high = table.iloc[:4], table.iloc[4:]
    assert low["name"].tolist() == LOW_NAMES and high["class"].tolist() == ["A"] * 4 + ["B"] * 4
    assert (low["patches"].unique().tolist(), high["patches"].unique().tolist()) == ([3], [8])
    for t, (_, row) in enumerate(high.iterrows()):
        own = EXPLAINED.high.explanation
        assert row["kept"] == sum(own.kept[p, c, t] for p in range(P) for c in range(C))
        assert row["added"] == pytest.approx(own.text_logits[t], abs=1e-6)
        weights = [EXPLAINED.explanation.text_attention[layer, t // 2, t % 2] for layer in (0, 1)]
        assert [row["attention_1"], row["attention_2"]] == pytest.approx(weights, abs=1e-6)


def test_the_table_of_the_removal() -> None:
    table = removal_table(REMOVAL)
    assert table["removed"].tolist() == [0, 1, 2] and table["ranked"].tolist() == [0.9, 0.5, 0.4]
    assert table["random_mean"].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert table["random_std"].tolist() == pytest.approx([0, 0.1, 0.1])
    assert table["random_2"].tolist() == [0.9, 0.6, 0.7]


# ---- GeoJSON ---------------------------------------------------------------------------------------------------------


def test_tiles_tell_their_best_text_and_class() -> None:
    own, colours = EXPLAINED.high.explanation, {}
    places = [(p, c) for p in range(P) for c in range(C) if IS_CHILD[p, c]]
    features = feature_collection(EXPLAINED, EXPLAINED.high)["features"]
    for (p, c), feature in zip(places, features, strict=True):
        match, found = own.match[p, c], feature["properties"]
        best = max(range(T), key=lambda t: match[t])
        assert found["name"] == f"{LOW_NAMES[best // 2]}.{best % 2 + 1}"
        assert found["measurements"]["Best match"] == pytest.approx(match[best], abs=1e-6)
        added = [found["measurements"][f"Added to logit: {name}"] for name in CLASSES]
        assert added == pytest.approx(own.patch_logits[p, c], abs=1e-6)
        colours[found["classification"]["name"]] = found["classification"]["color"]
    assert colours == {"A": [0, 114, 178], "B": [213, 94, 0]}  # blue and vermilion of Okabe and Ito


# ---- page ------------------------------------------------------------------------------------------------------------


def page_of(explained: ExplainedSlide) -> BeautifulSoup:
    return BeautifulSoup(render_explanation(explained, "run", 2, {}), "html.parser")


def text_of(page: BeautifulSoup) -> str:
    return " ".join(page.get_text().split())


def test_the_page_says_whether_the_prediction_is_right() -> None:
    assert "Predicted B with probability 0.800. The slide is labelled A: the prediction is wrong." in text_of(
        page_of(EXPLAINED)
    )
    assert "Predicted B with probability 0.800. The slide is labelled B." in text_of(page_of(made(label=1)))
    assert "The slide has no label." in text_of(page_of(made(label=-1)))


def test_the_page_says_whether_the_scores_are_faithful() -> None:
    words = "The mean probability along the curve is 0.575 by score and 0.725 at random: the scores name patches that"
    assert words in text_of(page_of(EXPLAINED))
    turned = replace(REMOVAL, ranked=REMOVAL.random[0], random=REMOVAL.ranked[None])
    assert "the scores do not name the patches" in text_of(page_of(replace(EXPLAINED, removal=turned)))


def test_the_removal_is_drawn_for_the_predicted_class(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr("explanation.slide_page.removal_figure", lambda _, name: drawn.append(name) or Figure())
    page_of(made(0))
    page_of(made(1))
    assert drawn == ["A", "B"]


@pytest.mark.parametrize("prediction", [0, 1])
def test_the_predicted_class_stands_first_with_its_best_patches(prediction: int) -> None:
    explained = made(prediction)
    page = page_of(explained)
    parts = [part for part in page.select("details") if part.summary and ": logit" in part.summary.get_text()]
    order = [prediction, 1 - prediction]
    titles = [f"{CLASSES[prediction]} (predicted): logit", f"{CLASSES[1 - prediction]}: logit"]
    assert [part.summary.get_text().rsplit(" ", 1)[0] for part in parts if part.summary] == titles
    for label, part in zip(order, parts, strict=True):
        lists = part.select("ol.patches")
        for scale, coords, found in zip(explained.scales, (PARENTS, CHILDREN[IS_CHILD]), lists, strict=True):
            match, patches = scale.explanation.match[scale.is_patch], found.select("li")
            half = match.shape[1] // 2
            scores = match[:, label * half : (label + 1) * half].mean(1)
            best = sorted(range(len(scores)), key=lambda index: -scores[index])[:2]
            for index, patch in zip(best, patches, strict=True):
                t = int(np.argmax(match[index]))
                added = scale.explanation.patch_logits[scale.is_patch][index, label]
                assert " ".join(patch.get_text().split()).endswith(
                    f"at ({coords[index][0]}, {coords[index][1]}), score {scores[index]:.3f}, adds {added:.4f} "
                    f"best match {match[index, t]:.3f}: {scale.text_names[t]} {scale.texts[t]}"
                )


def test_the_page_tells_what_each_text_adds_and_keeps() -> None:
    rows = [[cell.get_text() for cell in row.select("td")] for row in page_of(EXPLAINED).select("details table tr")]
    found = {row[1]: row for row in rows if len(row) == 6}
    for scale in EXPLAINED.scales:
        own = scale.explanation
        for t, name in enumerate(scale.text_names):
            kept = own.kept[scale.is_patch][:, t]
            shown = f"{kept.sum():.0f} ({100 * kept.mean():.0f}%)"
            assert found[name] == [
                f"{scale.magnification}x", name, scale.texts[t], f"{own.text_logits[t]:.4f}", "", shown
            ]  # fmt: skip
    together = [row for row in rows if len(row) == 5]
    sums = [EXPLAINED.low.explanation.text_logits[2:].sum(), EXPLAINED.high.explanation.text_logits[4:].sum()]
    assert [row[2] for row in together[:2]] == [f"{value:.4f}" for value in sums]


def test_squares_in_a_patch_are_its_children_by_their_weight_in_the_last_layer() -> None:
    weights = EXPLAINED.explanation.attention[-1]
    shown = page_of(EXPLAINED).select("ol.patches")[0].select("li")
    corners = PARENTS.tolist()
    for patch in shown:
        place = re.search(r"at \((\d+), (\d+)\)", patch.get_text())
        assert place
        p = corners.index([int(place[1]), int(place[2])])
        slots = [c for c in range(C) if IS_CHILD[p, c]]
        for c, square in zip(slots, patch.select("rect"), strict=True):
            at = [float(str(square[name])) for name in ("x", "y", "width")]
            assert at == [0.5 * (c % 2), 0.5 * (c // 2), 0.5]
            assert square.get_text() == f"{weights[p, c]:.3f}"
            assert square["fill-opacity"] == f"{weights[p, c] / np.nanmax(weights[p]):.3f}"


def test_maps_of_classes_share_their_colours() -> None:
    figures = page_of(EXPLAINED).select("main > div.maps > figure")
    ends = [[span.get_text() for span in figure.select(".colours span")] for figure in figures[:4]]
    assert ends[0] == ends[1] != ends[2] == ends[3]


def test_the_figure_of_the_removal() -> None:
    (axes,) = removal_figure(REMOVAL, "B").axes
    ranked, random = axes.lines
    assert np.ravel(ranked.get_ydata()).tolist() == [0.9, 0.5, 0.4]
    assert np.ravel(random.get_ydata()).tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert np.ravel(ranked.get_xdata()).tolist() == pytest.approx([0, 100 / 3, 200 / 3])
    assert axes.get_ylabel() == "probability of B"
    assert to_hex(ranked.get_color()) != to_hex(random.get_color())
