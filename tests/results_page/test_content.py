"""The page of a run: its numbers, its figures, its links, and what it says of missing folds."""

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from bs4 import Tag

from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.made_page import ODD_CLASSES, ODD_SLIDE, cells, read, write_made_up_run
from training.metrics import RESULT_COLUMNS
from training.run_folder import RunFolder
from utils.config import Config


def test_a_real_run_is_shown_as_its_files_say(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    assert run_main(simulated.options(tmp_path))[0] == 0
    folder = simulated.run_folder(tmp_path)
    code, out, err = run_main([str(folder)], "results_page")
    assert (code, out, err) == (0, f"page of {folder.name}: {folder / 'results.html'}\n", "")
    page = read(folder / "results.html")
    summary = pd.read_csv(folder / "summary.csv")
    results = pd.read_csv(folder / "results.csv", index_col="metric")
    for row, (_, fold) in zip(cells(page, "results"), summary.iterrows(), strict=True):
        wanted = [f"{fold[name]:.4f}" for name in [*RESULT_COLUMNS, "test_hit_ratio"]]
        assert row == [f"{fold['fold']:.0f}", *wanted, f"{fold['best_epoch'] + 1:.0f} of {fold['epochs']:.0f}"]
    for row, name in zip(cells(page, "results", "tfoot"), ["mean", "std"], strict=True):
        assert row == [name, *(f"{results.loc[name, metric]:.4f}" for metric in RESULT_COLUMNS), "", ""]
    assert page.select(".notice") == []
    assert len(page.select("details")) == 3  # a fold each, and the options

    wanted = []
    for fold in (0, 1):
        table = pd.read_csv(folder / f"predictions_{fold}.csv")
        for split in ("test", "val"):
            for row in table[table["split"] == split].to_dict("records"):
                correct = "yes" if row["label"] == row["prediction"] else "no"
                chances = [f"{row[name]:.3f}" for name in table if name.startswith("prob_")]
                wanted.append([str(fold), split, row["slide_id"], row["label"], row["prediction"], correct, *chances])
    assert cells(page, "slides") == wanted
    assert not page.select("#slides a")


def test_the_page_needs_nothing_from_elsewhere(page_of_made_up: Path) -> None:
    page = read(page_of_made_up)
    sources = [str(image["src"]) for image in page.select("img")]
    assert len(sources) == 1 + 3 + 3 * 3 and len(set(sources)) == len(sources)
    for source in sources:
        kind, content = source.split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        ElementTree.fromstring(base64.b64decode(content))
    assert all(image["alt"] for image in page.select("img"))
    assert not page.select("link, script[src], iframe, object")
    assert not re.search(r"url\(|@import", page_of_made_up.read_text())
    assert not page.select("[id]:not(main [id])")


def test_missing_folds_are_named_and_left_out(made_up: RunFolder, page_of_made_up: Path) -> None:
    page = read(page_of_made_up)
    (notice,) = page.select(".notice")
    assert " ".join(notice.get_text().split()).startswith("3 of 4 folds are finished. Missing: fold 2. ")
    assert [row[0] for row in cells(page, "results")] == ["0", "1", "3"]
    aucs = [json.loads(made_up.fold_result(fold).read_text())["test_auc"] for fold in (0, 1, 3)]
    mean, std = cells(page, "results", "tfoot")
    assert mean[1] == f"{sum(aucs) / 3:.4f}"
    assert std[1] == f"{np.sqrt(sum((auc - sum(aucs) / 3) ** 2 for auc in aucs) / 3):.4f}"
    assert [row[8] for row in cells(page, "results")] == ["2 of 4", "3 of 5", "5 of 7"]
    parts = [(fold, split) for fold in "013" for split in ("test", "val") for _ in range(12)]
    assert [(row[0], row[1]) for row in cells(page, "slides")] == parts
    assert [summary.get_text() for summary in page.select("details summary")][:-1] == ["Fold 0", "Fold 1", "Fold 3"]
    assert all(row[7] == "–" for row in cells(page, "results"))  # no hit ratio was measured
    assert "on 12 different slides" in " ".join(page.get_text().split())


@pytest.mark.usefixtures("no_figures")
def test_one_finished_fold_is_shown_once(tmp_path: Path, run_main: RunMain) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 5, [2])
    code, out, _ = run_main([str(run.path)], "results_page")
    assert code == 0 and "run: not finished, so not on the page: fold 0, 1, 3, 4\n" in out
    page = read(run.path / "results.html")
    assert len(page.select("img")) == 1 + 3
    assert "Missing: folds 0, 1, 3, 4." in " ".join(page.get_text().split())
    assert cells(page, "results", "tfoot")[1][1:7] == ["0.0000"] * 6


@pytest.mark.usefixtures("no_figures")
def test_figures_are_of_the_test_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import results_page

    run = write_made_up_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    drawn: dict[str, list[tuple[Any, ...]]] = {}
    for name in ("roc_figure", "confusion_figure", "reliability_figure", "history_figure"):
        calls = drawn.setdefault(name, [])
        monkeypatch.setattr(f"reports.run_page.{name}", lambda *given, calls=calls: calls.append(given))
    results_page.main([str(run.path)])
    tables = [pd.read_csv(run.predictions(fold)).query("split == 'test'") for fold in (0, 1)]
    for place, table in enumerate([pd.concat(tables), *tables]):
        labels = [["A", "B"].index(label) for label in table["label"]]
        predicted = [["A", "B"].index(label) for label in table["prediction"]]
        probabilities = table[["prob_A", "prob_B"]].to_numpy()
        for name in ("roc_figure", "reliability_figure"):
            assert drawn[name][place][0].tolist() == labels
            assert drawn[name][place][1] == pytest.approx(probabilities)
        assert [column.tolist() for column in drawn["confusion_figure"][place][:2]] == [labels, predicted]
    ((histories, best_epochs),) = drawn["history_figure"]
    assert best_epochs == {0: 1, 1: 2}
    assert {fold: len(history) for fold, history in histories.items()} == {0: 4, 1: 5}


def test_options_that_differ_from_the_default_are_bold(page_of_made_up: Path) -> None:
    page = read(page_of_made_up)
    rows = {row.th.get_text(): row.td for row in page.select("details:last-of-type tr") if row.th and row.td}
    options = Config(task="made up", k=4, lr=0.01).to_dict()
    assert set(rows) == {*options, "version of torch"}
    assert {name for name, cell in rows.items() if cell.strong} == {"task", "k", "lr"}
    texts = {name: cell.get_text() for name, cell in rows.items()}
    assert (texts["lr"], texts["resume"], texts["device"], texts["version of torch"]) == (
        "0.01", "no", "not given", "9.9",
    )  # fmt: skip


def test_names_are_never_taken_for_markup(page_of_made_up: Path) -> None:
    page = read(page_of_made_up)
    assert not page.select("b, i")
    assert ODD_SLIDE in [row[2] for row in cells(page, "slides")]
    assert {row[3] for row in cells(page, "slides")} == set(ODD_CLASSES)
    assert [button.get_text() for button in page.select("#slides th button")][-1] == f"probability of {ODD_CLASSES[1]}"
    title, heading = page.title, page.h1
    assert title and heading and (title.get_text(), heading.get_text()) == ("Results of made up & odd", "made up & odd")


def test_slides_link_to_their_explanations(page_of_made_up: Path) -> None:
    links = read(page_of_made_up).select("#slides a")
    assert {link.get_text() for link in links} == {ODD_SLIDE, "S-5"}
    assert len(links) == 6  # of three folds
    for link in links:
        address = str(link["href"])
        assert not set(address) & set(" #?&<>\"':")
        assert (page_of_made_up.parent / unquote(address)).is_file()


@pytest.mark.usefixtures("no_figures")
def test_a_metric_that_a_fold_has_not_got_is_said(tmp_path: Path, run_main: RunMain) -> None:
    run = write_made_up_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    table = pd.read_csv(run.predictions(1))
    gone = (table["split"] == "test") & (table["label"] == "A")
    table[~gone].to_csv(run.predictions(1), index=False)
    result = run.finished(1)
    assert result
    right = (table[~gone & (table["split"] == "test")]["prediction"] == "B").mean()
    share = 2 * right / (1 + right)  # F1 of class B: no slide is of class A
    run.finish(replace(result, test_auc=float("nan"), test_acc=right, test_f1=share))
    assert run_main([str(run.path)], "results_page")[0] == 0
    page = read(run.path / "results.html")
    assert cells(page, "results")[1][1] == "–"
    assert cells(page, "results", "tfoot")[0][1] == cells(page, "results")[0][1]
    undefined, missing = (" ".join(notice.get_text().split()) for notice in page.select(".notice"))
    assert "where a class has no slide: test AUC. Its mean" in undefined
    assert missing.startswith("fold 1, test: no labelled slide of 1 of 2 classes ('A')")


@pytest.mark.usefixtures("no_figures")
def test_several_runs_get_a_page_each(tmp_path: Path, run_main: RunMain, faults_of: FaultsOf) -> None:
    runs = [write_made_up_run(tmp_path / name, ["A", "B"], 1, [0]) for name in ("one", "two")]
    folders = [str(run.path) for run in runs]
    code, _, err = run_main([*folders, folders[0] + "/", "--output", str(tmp_path / "pages")], "results_page")
    assert (code, err) == (0, "")
    assert sorted(page.name for page in (tmp_path / "pages").iterdir()) == ["one.html", "two.html"]
    heading = read(tmp_path / "pages" / "two.html").h1
    assert heading and heading.get_text() == "two"
    (fault,) = faults_of([*folders, "--output", tmp_path / "all.html"], "results_page")
    assert (fault.code, fault.where) == ("output.same_file", str(tmp_path / "all.html"))
    assert all(folder in fault.found for folder in folders)
    again = tmp_path / "other" / "one"
    shutil.copytree(runs[0].path, again)
    (fault,) = faults_of([folders[0], again, "--output", tmp_path / "same"], "results_page")
    assert (fault.code, fault.where) == ("output.same_file", str(tmp_path / "same" / "one.html"))
    assert not (tmp_path / "same").exists()


def test_without_scripts_the_tables_are_there(page_of_made_up: Path) -> None:
    page = read(page_of_made_up)
    form = page.select_one("#filter")
    assert isinstance(form, Tag) and form.has_attr("hidden")
    assert len(cells(page, "slides")) == 72
