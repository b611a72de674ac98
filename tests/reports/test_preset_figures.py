"""The paper's figures of made-up results, read back from their panels; and whether they can be read."""

from dataclasses import replace
from math import nan
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from reports.preset_figures import bars_figure, curves_figure, differing_options, grid_figure, scatter_figure
from reports.settings import Column, ResultsTable, Setting
from tests.support.made_settings import with_results
from tests.support.readable import check_readable
from training.metrics import ACC, AUC, F1, HIT_RATIO, Measure

MEASURES: list[Measure] = [ACC, AUC, F1]
PAPER_ROWS = {
    "few": ["HiVE-MIL", "ViLa-MIL", "MSCPT", "FOCUS"],
    "aggregators": ["SAGE", "Attn.", "SAA", "MAA", "MSA (HiVE-MIL)"],
    "long": [f"messages from every patch to every text, form {number}" for number in range(9)],
}


def made(label: str, column: Column, values: list[float], **options: Any) -> Setting:
    """A setting with these values of all measures in its folds."""
    folds = [{f"test_{key}": value for key in ("acc", "auc", "f1", "hit_ratio")} for value in values]
    setting = replace(with_results(label, *folds), task=column[0], shots=column[1])
    runs = [replace(run, record=replace(run.record, options={**run.options, **options})) for run in setting.runs]
    return replace(setting, runs=tuple(runs))


def table(values: dict[tuple[str, Column], list[float]]) -> ResultsTable:
    labels, columns = list(dict.fromkeys(label for label, _ in values)), sorted({column for _, column in values})
    cells = {(label, column): made(label, column, found) for (label, column), found in values.items()}
    return ResultsTable("figure", "plip", labels, columns, cells)


def of_size(labels: list[str], tasks: int, shots: tuple[int, ...]) -> ResultsTable:
    columns = [(f"task_{index}", count) for index in range(tasks) for count in shots]
    return table({(label, column): [0.9, 0.96] for label in labels for column in columns})


def grid_of(lows: list[int], highs: list[int], tasks: int = 1) -> ResultsTable:
    columns = [(f"task_{index}", 16) for index in range(tasks)]
    cells = {}
    for low in lows:
        for high in highs:
            for column in columns:
                label = f"top-k, {low}, {high}"
                cells[label, column] = made(label, column, [low / 100, high / 1000], top_k_low=low, top_k_high=high)
    return ResultsTable("figure8", "plip", list(dict.fromkeys(label for label, _ in cells)), columns, cells)


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def test_curves_are_means_over_shots_with_deviations() -> None:
    found = table({("a", ("t", 4)): [0.2, 0.4], ("a", ("t", 16)): [0.5, 0.5], ("b", ("t", 8)): [0.7]})
    figure = curves_figure(found, [ACC, F1])
    assert [axes.get_ylabel() for axes in figure.axes] == ["ACC (%)", "F1 (%)"]
    for axes in figure.axes:
        first, second = (container.lines for container in axes.containers)  # type: ignore[attr-defined]
        assert first[0].get_ydata() == pytest.approx([30, nan, 50], nan_ok=True)
        assert second[0].get_ydata() == pytest.approx([nan, 70, nan], nan_ok=True)
        low, high = first[1]
        assert (low.get_ydata()[0], high.get_ydata()[0]) == pytest.approx((20, 40))
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["4", "8", "16"]
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["a", "b"]


def test_bars_are_means_in_the_order_of_rows_and_measures() -> None:
    column = ("t", 16)
    found = table({("b", column): [0.2, 0.4], ("a", column): [0.9]})
    found.cells["a", column] = replace(found.cells["a", column], runs=())
    figure = bars_figure(found, [ACC, AUC])
    (axes,) = figure.axes
    heights = [[bar.get_height() for bar in container] for container in axes.containers if len(container) == 2]
    assert heights[0] == pytest.approx([30, 30]) and np.isnan(heights[1]).all()
    deviations = [line.get_segments() for line in axes.collections if isinstance(line, LineCollection)]
    assert [[tuple(end[1] for end in segment) for segment in segments] for segments in deviations[:1]] == [
        [pytest.approx((20, 40))] * 2
    ]
    assert [text.get_text() for text in axes.texts] == ["30.0", "30.0"]
    places = [bar.get_x() for container in axes.containers for bar in container if hasattr(bar, "get_x")]
    assert places[0] < places[2] < places[1] < places[3]  # b, a of ACC; b, a of AUC
    assert axes.get_ylim()[0] == 0


def test_the_grid_has_the_values_of_two_options_along_its_sides() -> None:
    figure = drawn(grid_figure(grid_of([10, 2, 5], [200, 50, 100]), [AUC]))
    (axes,) = figure.axes
    (image,) = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    expected = [[50 * (low / 100 + high / 1000) for high in (50, 100, 200)] for low in (2, 5, 10)]
    assert np.asarray(image.get_array()) == pytest.approx(np.array(expected))
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for row in expected for value in row]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("top_k_low", "top_k_high")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["2", "5", "10"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["50", "100", "200"]


def test_a_grid_has_gaps_where_runs_are_missing() -> None:
    whole = grid_of([2, 5], [50, 100])
    del whole.cells["top-k, 5, 50", ("task_0", 16)]
    figure = drawn(grid_figure(whole, [AUC]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["3.50", "6.00", "-", "7.50"]


def test_what_cannot_be_drawn() -> None:
    assert grid_figure(grid_of([2, 5], [50]), [AUC]) is None
    assert differing_options(grid_of([2, 5], [50])) == ["top_k_low"]
    without = of_size(["a"], 1, (16,))
    column = ("task_0", 16)
    without.cells["a", column] = replace(with_results("a", {"test_hit_ratio": nan}), task="task_0", shots=16)
    assert scatter_figure(without, [HIT_RATIO, F1]) is None


def test_the_scatter_has_the_presets_rows_alone() -> None:
    figure = drawn(scatter_figure(of_size(["No.", "Bi. (HiVE-MIL)"], 2, (16,)), [HIT_RATIO, F1]))
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["No.", "Bi. (HiVE-MIL)"]
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 2


@pytest.mark.parametrize("rows", PAPER_ROWS)
@pytest.mark.parametrize(("tasks", "shots"), [(1, (16,)), (3, (4, 8, 16))])
def test_curves_and_bars_can_be_read(rows: str, tasks: int, shots: tuple[int, ...]) -> None:
    labels = PAPER_ROWS[rows]
    check_readable(curves_figure(of_size(labels, tasks, shots), MEASURES))
    check_readable(bars_figure(of_size(labels, tasks, shots[:1]), MEASURES))


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("measures", [[AUC], MEASURES])
def test_grids_can_be_read(tasks: int, measures: list[Measure]) -> None:
    check_readable(drawn(grid_figure(grid_of([2, 5, 10], [50, 100, 200], tasks), measures)))
