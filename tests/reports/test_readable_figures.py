"""Figures stay readable, whatever the number and names of classes: no text overlaps another or leaves the figure."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from PIL import Image

import reports.lettering
from explanation.faithfulness import Removal
from explanation.figures import patches_figure, removal_figure, similarity_figure, text_figure
from reports.hit_ratio_plot import hit_ratio_figure
from reports.lettering import columns, figure_style, wrapped
from reports.plots import confusion_figure, data_uri, history_figure, reliability_figure, roc_figure
from tests.support.made_settings import with_results
from tests.support.readable import check_readable

LONG = [f"INVASIVE_LOBULAR_CARCINOMA of mixed type no.{k:02}" for k in range(30)]
CJK = [f"肺腺癌乳腺浸润性小叶癌混合型扁平上皮癌第{k:02}号" for k in range(30)]
NAMES = {
    "two": ["LUAD", "LUSC"],
    "two long": LONG[:2],
    "three": ["A", "B", "C"],
    "nine long": LONG[:9],
    "thirty": [f"C{k}" for k in range(30)],
    "twenty long": LONG[:20],
    "twenty in Chinese": CJK[:20],
    "one word": ["x" * 45, "y" * 45, "W" * 45],
}


def predictions(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    generator, number = np.random.default_rng(0), len(names)
    labels = np.arange(12 * number) % number
    probabilities = generator.dirichlet(np.ones(number), len(labels)) + 0.3 * np.eye(number)[labels]
    return labels, probabilities / probabilities.sum(1, keepdims=True)


FIGURES: dict[str, Callable[[Sequence[str], np.ndarray, np.ndarray], Figure]] = {
    "roc": lambda names, labels, scores: roc_figure(labels, scores, names),
    "confusion": lambda names, labels, scores: confusion_figure(labels, scores.argmax(1), names),
    "calibration": lambda names, labels, scores: reliability_figure(labels, scores),
}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("names", NAMES)
def test_figures_of_classes(figure: str, names: str) -> None:
    check_readable(FIGURES[figure](NAMES[names], *predictions(NAMES[names])))


@pytest.mark.parametrize("names", ["two long", "twenty long", "twenty in Chinese"])
def test_the_whole_name_is_shown(names: str) -> None:
    labels, scores = predictions(NAMES[names])
    matrix = confusion_figure(labels, scores.argmax(1), NAMES[names])
    shown = [text.get_text() for text in matrix.axes[0].get_yticklabels()]
    assert ["".join(text.split()) for text in shown] == ["".join(name.split()) for name in NAMES[names]]


@pytest.mark.parametrize("folds", [1, 2, 30])
def test_histories(folds: int) -> None:
    curves = {name: np.linspace(0.9, 0.1, 40) for name in ("train_loss", "val_loss", "val_auc", "val_acc")}
    check_readable(history_figure({fold: pd.DataFrame({"epoch": range(40), **curves}) for fold in range(folds)}))


@pytest.mark.parametrize("labels", [["ours", "theirs"], LONG, CJK[:7]])
def test_hit_ratios(labels: list[str]) -> None:
    values = {"test_hit_ratio": 0.4, "test_f1": 0.6}
    check_readable(hit_ratio_figure([with_results(label, values) for label in labels]))


# ---- explanations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LUAD", LONG[0], CJK[0]])
def test_the_removal_curve(name: str) -> None:
    shares = np.array([0, 0.1, 0.5, 0.9])
    removal = Removal(np.array([0, 1, 5, 9]), shares, 1 - shares, np.tile(1 - shares / 2, (3, 1)))
    check_readable(removal_figure(removal, name))


@pytest.mark.parametrize("names", ["two", "nine long", "twenty in Chinese"])
def test_what_texts_add(names: str) -> None:
    def scale(magnification: int, texts: int) -> SimpleNamespace:
        own = [f"{name} {number}" for name in NAMES[names] for number in range(texts)]
        logits = SimpleNamespace(text_logits=np.linspace(-1, 1, len(own)))
        return SimpleNamespace(magnification=magnification, texts=own, text_names=own, explanation=logits)

    explained: Any = SimpleNamespace(scales=(scale(5, 2), scale(20, 4)), class_names=NAMES[names])
    check_readable(text_figure(explained))


@pytest.mark.parametrize("names", [["A 1", "B 1"], LONG, CJK])
def test_similarities_and_patches(names: list[str]) -> None:
    rows = [f"patch {number}" for number in range(8)]
    check_readable(similarity_figure(np.zeros((8, len(names))), rows, names, f"slide of {names[0]}"))
    image = Image.new("RGB", (8, 8))
    check_readable(patches_figure([image] * 4, [f"{name} 0.123" for name in (names * 4)[:4]], names[0]))


# ---- letters ---------------------------------------------------------------------------------------------------------


def test_lines_of_a_name() -> None:
    assert wrapped("lung") == "lung" and wrapped("") == ""
    for name in (LONG[0], CJK[0], "x" * 45, "a b " * 12):
        lines = wrapped(name, 10).split("\n")
        assert max(map(columns, lines)) <= 10 and "".join("".join(lines).split()) == "".join(name.split())
    assert wrapped("INVASIVE_LOBULAR_CARCINOMA", 18) == "INVASIVE_LOBULAR_\nCARCINOMA"
    assert columns("肺癌 a") == 6


def test_a_font_that_has_the_signs_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the installed ones; here another font of matplotlib's own, for a sign that the usual one lacks."""
    usual = get_font(findfont("DejaVu Sans")).get_charmap()
    others = [entry for entry in fontManager.ttflist if set(get_font(entry.fname).get_charmap()) - set(usual)]
    sign = chr(max(set(get_font(others[0].fname).get_charmap()) - set(usual)))
    families, absent = reports.lettering._families.__wrapped__(f"A{sign}")
    (family,) = families[1:]
    assert families[0] == "DejaVu Sans" and absent == ""
    assert ord(sign) in get_font(findfont(family)).get_charmap()
    with figure_style([sign]):
        assert matplotlib.rcParams["font.family"] == list(families)


def test_where_no_font_has_a_sign_a_note_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    sign = "\U000e0fff"
    monkeypatch.setattr(reports.lettering, "_families", lambda signs: (("DejaVu Sans",), sign if sign in signs else ""))
    labels, scores = predictions(["A", sign])
    for _ in range(2):
        data_uri(confusion_figure(labels, scores.argmax(1), ["A", sign]))
        data_uri(roc_figure(labels, scores, ["A", sign]))
    out = capsys.readouterr().out
    assert out.count("note: no installed font has") == 1 and "apt-get install" in out
    assert [warning for warning in recwarn if "Glyph" in str(warning.message)] == []
