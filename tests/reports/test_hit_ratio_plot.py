"""The figure of Hit Ratio@2 against macro F1, read back from its panels."""

from dataclasses import replace

import pytest

from reports.hit_ratio_plot import hit_ratio_figure, with_hit_ratio
from reports.settings import Setting
from tests.support.made_settings import with_results


def made(label: str, shots: int, hits: list[float], f1: list[float]) -> Setting:
    """A setting with these figures in its folds."""
    results = [{"test_hit_ratio": hit, "test_f1": score} for hit, score in zip(hits, f1, strict=True)]
    return replace(with_results(label, *results), shots=shots)


@pytest.mark.parametrize("shots", [(4,), (4, 8), (2, 4, 8, 16)])
def test_each_panel_has_its_settings(shots: tuple[int, ...]) -> None:
    settings = [made(label, n, [0.2, 0.4], [n / 100, 0.5]) for n in shots for label in ("_a", "$b$")]
    figure = hit_ratio_figure(settings)
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == [f"task, plip, {n} shots" for n in shots]
    for n in shots:
        points = [line.get_xydata().tolist() for line in panels[f"task, plip, {n} shots"].lines]
        assert points == [[pytest.approx([30, (n + 50) / 2])]] * 2
    first = figure.axes[0]
    assert (first.get_xlabel(), first.get_ylabel()) == ("Hit Ratio@2 (%)", "macro F1 (%)")
    (legend,) = figure.legends
    assert [entry.get_text() for entry in legend.get_texts()] == ["_a", "$b$"]


def test_a_label_looks_the_same_in_all_panels_and_unlike_the_others() -> None:
    settings = [made(f"label {index}", n, [0.1], [0.1]) for n in (4, 8) for index in range(20)]
    figure = hit_ratio_figure(settings)
    looks = [[(line.get_marker(), line.get_color()) for line in axes.lines] for axes in figure.axes]
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == 20


def test_settings_without_a_hit_ratio_are_left_out() -> None:
    with_one, without = made("a", 4, [0.2], [0.5]), made("b", 4, [0.2, float("nan")], [0.5, 0.5])
    assert with_hit_ratio([with_one, without, replace(with_one, runs=())]) == [with_one]
