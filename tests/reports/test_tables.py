"""Tables as Markdown and LaTeX, read back by a Markdown parser and by counting braces and columns."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports.comparison import Comparison
from reports.settings import ResultsTable
from reports.significance import CorrectedT, Interval, McNemar
from reports.tables import (
    Cell,
    Table,
    comparison_frame,
    comparison_table,
    escape_latex,
    mean_and_std,
    paper_table,
    results_frame,
    table_of,
)
from tests.support.made_settings import accuracies, setting, with_results
from training.metrics import AUC, ECE, FILTERED_LOW, HIT_RATIO

NASTY = "a_b & 50 % $x$ #1 {y} ~ ^ \\z | <b>*c*</b> [d](e) `f` _g_"


def markdown_cells(text: str) -> list[str]:
    """The texts of all cells of a table as a reader sees them."""
    tokens = MarkdownIt().enable("table").parse(text)
    assert tokens[0].type == "table_open"
    return [
        "".join(child.content for child in token.children or [] if child.type in ("text", "code_inline"))
        for token in tokens
        if token.type == "inline"
    ]


def balanced(latex: str) -> bool:
    """Every brace closed, every row with as many columns as the tabular."""
    bare = re.sub(r"\\[{}&]", "", latex)
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex)[1])  # type: ignore[index]
    for line in bare.splitlines():
        if line.endswith(r"\\"):
            wide = [int(number) - 1 for number in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            if line.count("&") + 1 + sum(wide) != columns:
                return False
    return depth == 0


def test_nasty_names_are_shown_as_they_are() -> None:
    table = table_of(["model", NASTY], [[NASTY, "1"], ["b", NASTY]], text_columns=1)
    shown = [" ".join(NASTY.split())]
    assert markdown_cells(table.markdown()) == ["model", *shown, *shown, "1", "b", *shown]
    latex = table.latex()
    assert balanced(latex)
    assert (
        r"a\_b \& 50 \% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z \textbar{} "
        r"\textless{}b\textgreater{}*c*\textless{}/b\textgreater{} [d](e) `f` \_g\_"
    ) in latex


@given(st.lists(st.text(alphabet="ab_&%$#{}~^\\|<>*[]()` 1-", max_size=6), min_size=2, max_size=2))
@settings(max_examples=60, deadline=None)
def test_any_name_keeps_the_table_in_shape(names: list[str]) -> None:
    table = Table([(f"x{names[0]}", "a"), ("y", "b")], [[Cell(f"x{names[1]}", 1), Cell("1", 2)]])
    assert balanced(table.latex())
    cells = markdown_cells(table.markdown())
    assert len(cells) == 4
    assert cells[2] == " ".join(f"x{names[1]}".split())


def test_minus_signs() -> None:
    assert escape_latex("50.00 ± 10.00") == r"50.00 $\pm$ 10.00"
    assert escape_latex("-0.5 (-1.2 to +0.3), GPT-4 a-b - 2") == "$-$0.5 ($-$1.2 to +0.3), GPT-4 a-b - 2"


def test_mean_and_std() -> None:
    assert mean_and_std(np.array([0.5, 0.7]), AUC) == "60.00 ± 10.00"
    assert mean_and_std(np.array([0.5, 0.7]), ECE) == "0.6000 ± 0.1000"
    assert mean_and_std(np.array([0.5]), AUC) == "50.00"
    assert mean_and_std(np.array([]), AUC) == mean_and_std(np.array([0.5, np.nan]), AUC) == "-"


def results_of(means: dict[str, float | None]) -> ResultsTable:
    """A table of one column, where all metrics of a label are its mean; None for a cell that is not there, negative for
    one that lacks a fold."""
    column = ("task", 4)
    cells = {}
    for label, mean in means.items():
        if mean is None:
            continue
        found = setting(label, accuracies({1: [5]}))
        run, one = found.runs[0], found.runs[0].folds[0]
        result = replace(one.result, test_acc=abs(mean), test_auc=abs(mean), test_f1=abs(mean))
        record = replace(run.record, options={**run.options, "k": 2 if mean < 0 else 1})
        cells[label, column] = replace(
            found, runs=(replace(run, record=record, folds={0: replace(one, result=result)}),)
        )
    return ResultsTable(None, "plip", list(means), [column], cells)


@pytest.mark.parametrize(
    ("means", "ranks", "gap"),
    [
        ({"a": 0.7, "b": 0.9, "c": 0.8}, [0, 1, 2], "10.00"),
        ({"a": 0.9, "b": 0.9, "c": 0.8}, [1, 1, 0], "0.00"),
        ({"a": 0.9, "b": 0.8, "c": 0.8}, [1, 2, 2], "10.00"),
        ({"a": 0.90001, "b": 0.90002, "c": 0.8}, [1, 1, 0], "0.00"),  # the same as printed
        ({"a": 0.7, "b": -0.9, "c": 0.8}, [2, 0, 1], "10.00"),  # b lacks a fold
        ({"a": 0.7, "b": None, "c": 0.8}, [2, 0, 1], "10.00"),
        ({"a": 0.7, "b": None, "c": -0.8}, [0, 0, 0], "-"),
        ({"a": 0.7, "b": np.nan, "c": 0.8}, [2, 0, 1], "10.00"),
    ],
)
def test_ranks(means: dict[str, float | None], ranks: list[int], gap: str) -> None:
    table = paper_table(results_of(means), [])
    assert [[cell.rank for cell in row[1:]] for row in table.rows[:-1]] == [[rank] * 3 for rank in ranks]
    assert [cell.text for cell in table.rows[-1][1:]] == [gap] * 3
    assert balanced(table.latex())
    assert table.latex().count("midrule") == 2
    assert table.latex().splitlines()[-4].startswith(r"\midrule")


def test_what_is_not_ranked() -> None:
    table = paper_table(results_of({"a": 0.7, "b": 0.9}), [("task", 4)])
    assert {cell.rank for row in table.rows for cell in row} == {0}
    assert len(paper_table(results_of({"a": 0.7}), []).rows) == 1, "no difference of one row"


def test_other_measures_in_their_order_and_shares_of_filtered_pairs_without_a_rank() -> None:
    column = ("task", 4)
    made = {
        label: with_results(label, {"test_filtered_low": share, "test_hit_ratio": share})
        for label, share in (("a", 0.7), ("b", 0.9))
    }
    found = ResultsTable("table15", "plip", ["a", "b"], [column], {(label, column): one for label, one in made.items()})
    table = paper_table(found, [], [HIT_RATIO, FILTERED_LOW])
    assert table.columns[1:] == [("task", "4 shots", "Hit Ratio@2"), ("task", "4 shots", FILTERED_LOW.title)]
    assert [[(cell.text, cell.rank) for cell in row[1:]] for row in table.rows] == [
        [("70.00", 2), ("70.00", 0)], [("90.00", 1), ("90.00", 0)], [("20.00", 0), ("-", 0)],
    ]  # fmt: skip


def test_marks_in_both_forms() -> None:
    table = paper_table(results_of({"a": 0.7, "b": 0.9}), [])
    assert "| a | <ins>70.00</ins> |" in table.markdown()
    assert "| b | **90.00** |" in table.markdown()
    assert table.markdown().splitlines()[0].startswith("| model | task, 4 shots, ACC |")
    assert r"a & \underline{70.00} &" in table.latex()
    assert r"b & \textbf{90.00} &" in table.latex()
    assert r"\multicolumn{3}{c}{task}" in table.latex()


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_of_the_results() -> None:
    columns = [("s", 16), ("s", 4), ("t", 4)]
    cells = {("b", column): with_results("b", {"test_acc": 0.5}, {"test_acc": 0.7}) for column in columns}
    cells |= {("a", column): with_results("a") for column in columns[1:]}
    frame = results_frame(ResultsTable(None, "plip", ["b", "a"], columns, cells))
    places = list(zip(frame["task"], frame["shots"], frame["label"], strict=True))
    assert places == [("s", 4, "b"), ("s", 4, "a"), ("s", 16, "b"), ("t", 4, "b"), ("t", 4, "a")]
    first = frame.iloc[0]
    assert (first["test_acc_mean"], first["test_acc_std"]) == pytest.approx((0.6, 0.1))
    assert frame[frame["label"] == "a"]["test_acc_mean"].isna().all()


COMPARISON = Comparison(
    setting("ours", {1: {}}), setting("base", {1: {}}), 5, 70, 60, {"auc": 0.012, "f1": -0.03, "acc": np.nan},
    {
        "auc": Interval(0.002, 0.022, 0.03, 99), "f1": Interval(-0.05, 0.01, 0.2, 99),
        "acc": Interval(np.nan, np.nan, np.nan, 0),
    },
    {name: CorrectedT(1.5, p, 5) for name, p in (("auc", 0.11), ("f1", 0.12), ("acc", np.nan))},
    2.0, McNemar(3, 1, 0.62),
)  # fmt: skip
CORRECTED = {
    **{"auc_bootstrap": 0.06, "f1_bootstrap": 0.4, "acc_bootstrap": np.nan, "mcnemar": 1.0},
    **{"auc_corrected_t": 0.22, "f1_corrected_t": 0.24, "acc_corrected_t": np.nan},
}


def test_a_comparison_is_shown_in_points_with_both_p_values() -> None:
    (row,) = comparison_table([COMPARISON], [CORRECTED]).rows
    assert [cell.text for cell in row] == [
        "base", "task", "4", "5", "+1.20 (+0.20 to +2.20)", "-3.00 (-5.00 to +1.00)", "-",
        "0.03, 0.06", "0.11, 0.22", "3, 1", "0.62, 1",
    ]  # fmt: skip


def test_all_numbers_of_a_comparison_are_kept() -> None:
    (found,) = comparison_frame([COMPARISON], [CORRECTED]).to_dict("records")
    expected = {
        "first": "ours", "second": "base", "shots": 4, "folds": 5, "test_slides": 70, "test_patients": 60,
        "f1_difference": -0.03, "f1_low": -0.05, "f1_high": 0.01, "f1_resamples": 99, "f1_t": 1.5,
        "right_first_only": 3, "right_second_only": 1, "p_mcnemar": 0.62, "p_holm_mcnemar": 1,
        "p_f1_bootstrap": 0.2, "p_holm_f1_bootstrap": 0.4, "p_f1_corrected_t": 0.12, "p_holm_f1_corrected_t": 0.24,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
