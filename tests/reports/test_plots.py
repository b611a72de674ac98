"""What the figures show, read from their parts and held against counting by hand."""

import base64
import io
import warnings
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from PIL import Image

from reports.plots import confusion_figure, data_uri, history_figure, reliability_figure, roc_figure, save_png


def random_case(slides: int = 50, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities of two digits, so that some are equal."""
    generator = np.random.default_rng(seed)
    labels = np.arange(slides) % classes
    probabilities = generator.dirichlet(np.ones(classes), slides) + 0.7 * np.eye(classes)[labels]
    probabilities = np.round(probabilities / probabilities.sum(1, keepdims=True), 2)
    return labels, probabilities


def legend_texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


def size(figure: Figure) -> tuple[int, int]:
    """Of the rendered figure, in pixels; anything matplotlib warns of is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = base64.b64decode(data_uri(figure, "png").removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
        return image.size


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_roc_curves_hold_every_threshold(classes: int) -> None:
    labels, probabilities = random_case(classes=classes)
    figure = roc_figure(labels, probabilities, names(classes))
    (axes,) = figure.axes
    _, *curves = axes.lines
    shown = [1] if classes == 2 else list(range(classes))
    assert len(curves) == len(shown)
    for curve, text, k in zip(curves, legend_texts(axes), shown, strict=True):
        drawn = list(zip(*map(np.ravel, curve.get_data()), strict=True))
        positive, negative = probabilities[labels == k, k], probabilities[labels != k, k]
        for threshold in [*np.unique(probabilities[:, k]), 2]:
            rates = (negative >= threshold).mean(), (positive >= threshold).mean()
            assert on_line(rates, drawn), (k, threshold)
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        assert text == f"class {k} (AUC {np.mean(pairs):.3f})"
    diagonal = axes.lines[0]
    assert np.array_equal(diagonal.get_xdata(), [0, 1]) and np.array_equal(diagonal.get_ydata(), [0, 1])


def on_line(point: tuple[float, float], line: list[tuple[float, float]]) -> bool:
    """Whether a point lies on a polygonal line."""
    p = np.array(point)
    for start, end in pairwise(line):
        a, b = np.array(start), np.array(end)
        share = np.clip((p - a) @ (b - a) / max((b - a) @ (b - a), 1e-12), 0, 1)
        if np.linalg.norm(a + share * (b - a) - p) < 1e-9:
            return True
    return False


def test_a_class_without_slides_gets_no_roc_curve() -> None:
    labels, probabilities = random_case()
    keep = labels != 2
    figure = roc_figure(labels[keep], probabilities[keep], names(3))
    assert legend_texts(figure.axes[0])[2] == f"class 2 (no AUC, 0 of {keep.sum()} slides)"
    assert len(np.ravel(figure.axes[0].lines[3].get_xdata())) == 0
    one = roc_figure(labels[labels == 1], probabilities[labels == 1][:, :2], names(2))
    assert legend_texts(one.axes[0]) == [f"class 1 (no AUC, {(labels == 1).sum()} of {(labels == 1).sum()} slides)"]
    size(figure)


def test_any_class_name_is_shown_as_it_is() -> None:
    odd = ["_hidden", "$\\unknown$ & %", '<b>"50%"']
    labels, probabilities = random_case()
    figure = roc_figure(labels, probabilities, odd)
    size(figure)
    assert [text.rsplit(" (AUC", 1)[0] for text in legend_texts(figure.axes[0])] == odd
    matrix = confusion_figure(labels, probabilities.argmax(1), odd)
    size(matrix)
    assert [text.get_text() for text in matrix.axes[0].get_xticklabels()] == odd


def test_the_confusion_matrix_counts_and_has_percentages_of_the_label() -> None:
    labels, predictions = np.array([0] * 8 + [1] * 3), np.array([0] * 5 + [1] * 2 + [2] + [1] * 3)
    figure = confusion_figure(labels, predictions, ["A", "B", "C"])
    size(figure)
    (axes,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {
        (0, 0): "5\n62.5%", (1, 0): "2\n25.0%", (2, 0): "1\n12.5%",
        (0, 1): "0\n0.0%", (1, 1): "3\n100.0%", (2, 1): "0\n0.0%",
        (0, 2): "0\nno slide", (1, 2): "0\nno slide", (2, 2): "0\nno slide",
    }  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "label")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A", "B", "C"]
    (image,) = axes.images
    shares = image.get_array()
    assert shares is not None and shares.tolist() == [[0.625, 0.25, 0.125], [0, 1, 0], [0, 0, 0]]
    assert axes.yaxis_inverted()  # row 0 is on top, where the first label is
    colours = {text.get_position(): text.get_color() for text in axes.texts}
    assert colours[1, 1] == "white" and colours[0, 1] == "black"


def test_the_reliability_diagram_shows_accuracy_confidence_and_counts() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.92, 0.08], [0.6, 0.4], [0.35, 0.65]])
    figure = reliability_figure(np.array([0, 0, 1, 0, 0]), probabilities)
    size(figure)
    above, below = figure.axes
    bars, counts = (panel.containers[0] for panel in (above, below))
    assert isinstance(bars, BarContainer) and isinstance(counts, BarContainer)
    # 0.6 is the upper edge of the ninth of 15 bins; 0.65 is in the tenth; 0.9 and 0.92 are in the fourteenth
    expected = [(8 / 15, 1.0, 1), (9 / 15, 0.0, 1), (13 / 15, 2 / 3, 3)]
    assert [bar.get_x() for bar in bars] == pytest.approx([left for left, _, _ in expected])
    assert [bar.get_height() for bar in bars] == pytest.approx([height for _, height, _ in expected])
    assert [bar.get_height() for bar in counts] == [count for _, _, count in expected]
    assert {round(bar.get_width(), 9) for bar in [*bars, *counts]} == {round(1 / 15, 9)}
    points = above.lines[-1]
    assert np.ravel(points.get_xdata()) == pytest.approx([0.6, 0.65, 2.72 / 3])
    assert np.ravel(points.get_ydata()) == pytest.approx([1, 0, 2 / 3])
    error = (0.4 + 0.65 + 3 * abs(2 / 3 - 2.72 / 3)) / 5
    brier = 2 * (0.1**2 + 0.1**2 + 0.92**2 + 0.4**2 + 0.65**2) / 5
    assert above.get_title() == f"ECE {error:.3f}, Brier score {brier:.3f}"


def history(epochs: int, shift: float = 0) -> pd.DataFrame:
    columns = ["train_loss", "val_loss", "val_auc", "val_acc"]
    return pd.DataFrame(
        {"epoch": range(epochs), **{c: np.arange(epochs) / 9 + i + shift for i, c in enumerate(columns)}}
    )


def test_training_curves_of_each_fold_with_its_best_epoch() -> None:
    histories = {0: history(4), 3: history(6, shift=0.5)}
    figure = history_figure(histories, {0: 2, 3: 5})
    size(figure)
    assert [panel.get_title() for panel in figure.axes] == [
        "training loss", "validation loss", "validation AUC", "validation accuracy",
    ]  # fmt: skip
    for panel, column in zip(figure.axes, ["train_loss", "val_loss", "val_auc", "val_acc"], strict=True):
        first, second, first_best, second_best = panel.lines
        for line, best, fold, epoch in ((first, first_best, 0, 2), (second, second_best, 3, 5)):
            assert np.ravel(line.get_xdata()).tolist() == [row + 1 for row in range(len(histories[fold]))]
            assert np.ravel(line.get_ydata()).tolist() == histories[fold][column].tolist()
            assert np.ravel(best.get_xdata()).tolist() == [epoch + 1]
            assert np.ravel(best.get_ydata()).tolist() == [histories[fold][column][epoch]]
            assert best.get_color() == line.get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["fold 0", "fold 3"]


def test_training_curves_of_chosen_columns() -> None:
    figure = history_figure({1: history(1)}, columns={"val_auc": "AUC", "val_acc": "accuracy", "val_loss": "loss"})
    size(figure)
    assert [panel.get_title() for panel in figure.axes if panel.get_visible()] == ["AUC", "accuracy", "loss"]
    assert [panel.get_xlabel() for panel in figure.axes] == ["", "epoch", "epoch", ""]


def test_many_curves_all_look_different() -> None:
    labels, probabilities = random_case(60, 20)
    figure = roc_figure(labels, probabilities, names(20))
    looks = [(to_hex(line.get_color()), line.get_linestyle()) for line in figure.axes[0].lines[1:]]
    assert len(set(looks)) == 20


def test_colours_differ_for_readers_without_one_kind_of_cone() -> None:
    # what a reader without M cones sees, after Viénot, Brettel and Mollon 1999
    deuteranope = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    labels, probabilities = random_case(60, 7)
    colours = [line.get_color() for line in roc_figure(labels, probabilities, names(7)).axes[0].lines[1:]]
    rgb = np.array([[int(to_hex(c)[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    seen = np.clip((rgb**2.2) @ deuteranope.T, 0, 1) ** (1 / 2.2)
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.12


def test_a_png_is_written_whole_in_print_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = random_case()
    figure = roc_figure(labels, probabilities, names(3))
    file = tmp_path / "new" / "roc.png"
    save_png(figure, file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.size == (1200, 1200) and image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    before = file.read_bytes()
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_png(figure, file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_a_data_uri_holds_the_figure_and_nothing_of_the_moment() -> None:
    labels, probabilities = random_case()
    uris = [data_uri(roc_figure(labels, probabilities, names(3))) for _ in range(2)]
    assert uris[0] == uris[1]
    kind, content = uris[0].split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    svg = base64.b64decode(content)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<text" not in svg  # letters are drawn: no font is needed where it is read
    assert data_uri(reliability_figure(labels, probabilities), "png").startswith("data:image/png;base64,")


def test_matplotlibs_settings_stay_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    labels, probabilities = random_case()
    data_uri(confusion_figure(labels, probabilities.argmax(1), names(3)))
    assert dict(matplotlib.rcParams) == before


def test_settings_of_the_reader_do_not_change_the_figures() -> None:
    labels, probabilities = random_case()
    expected = data_uri(roc_figure(labels, probabilities, names(3)))
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "none", "axes.spines.top": True}):
        assert data_uri(roc_figure(labels, probabilities, names(3))) == expected
