"""The page of a run: its numbers, what it says of missing folds, what it refuses, and how it works in a browser."""

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Page
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tests.conftest import SimulatedTask
from tests.support.browser import open_page, overflow
from training.run_folder import METRICS, FoldResult, RunFolder
from utils.config import Config

Run = Callable[..., tuple[int, str, str]]
ODD_CLASSES = ["A", '<b>&"']
ODD_SLIDE = "<i>&\"'%41 #0?x"


def scores(table: pd.DataFrame, class_names: list[str]) -> dict[str, float]:
    second = table[f"prob_{class_names[1]}"]
    return {
        "auc": float(roc_auc_score(table["label"] == class_names[1], second)),
        "f1": float(f1_score(table["label"], table["prediction"], average="macro")),
        "acc": float(accuracy_score(table["label"], table["prediction"])),
    }


def predictions(class_names: list[str], fold: int, slides: int = 12) -> pd.DataFrame:
    """Of two classes; about a third are wrong."""
    generator = np.random.default_rng(fold)
    label = np.arange(2 * slides) % 2
    second = np.clip(generator.normal(0.3 + 0.4 * label, 0.4), 0.01, 0.99)
    return pd.DataFrame(
        {
            "split": ["val"] * slides + ["test"] * slides,
            "slide_id": [ODD_SLIDE, *(f"S-{n}" for n in range(1, 2 * slides))],
            "label": np.array(class_names)[label],
            "prediction": np.array(class_names)[(second > 0.5).astype(int)],
            f"prob_{class_names[0]}": 1 - second,
            f"prob_{class_names[1]}": second,
        }
    )


def write_run(path: Path, class_names: list[str], folds: int, finished: list[int], **options: Any) -> RunFolder:
    """What main.py leaves of a run, made up."""
    run = RunFolder(path)
    path.mkdir(parents=True)
    settings = Config(task="made up", k=folds, **options).to_dict()
    record = {"options": settings, "class_names": class_names, "inputs": {}, "versions": {"torch": "9.9"}}
    run.config.write_text(json.dumps(record))
    for fold in finished:
        table = predictions(class_names, fold)
        table.to_csv(run.predictions(fold), index=False)
        epochs = fold + 4
        curve = np.linspace(0.5, 1, epochs)
        columns = dict.fromkeys(("train_loss", "val_loss", "val_auc", "val_acc"), curve)
        pd.DataFrame({"epoch": range(epochs), **columns}).to_csv(run.training(fold).history, index=False)
        test, val = (scores(table[table["split"] == split], class_names) for split in ("test", "val"))
        metrics = {f"test_{name}": value for name, value in test.items()}
        metrics |= {f"val_{name}": value for name, value in val.items()}
        run.finish(FoldResult(fold, **metrics, test_hit_ratio=float("nan"), best_epoch=fold + 1, epochs=epochs))
    return run


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three of four folds are finished. Read only."""
    path = tmp_path_factory.mktemp("results") / "made up & odd"
    return write_run(path, ODD_CLASSES, 4, [0, 1, 3], lr=0.01)


@pytest.fixture(scope="module")
def page_of_made_up(made_up: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page, beside a folder of explanations of two slides."""
    import results_page

    folder = tmp_path_factory.mktemp("page")
    explanations = folder / "why: so?"
    explanations.mkdir()
    for slide_id in (ODD_SLIDE, "S-5"):
        (explanations / f"{slide_id}.html").write_text("<title>explained</title>")
    (explanations / "S-55.html").touch()
    page = folder / "results.html"
    results_page.main([str(made_up.path), "--output", str(page), "--explanations", str(explanations)])
    return page


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a page's time: tests that do not look at them go without."""
    monkeypatch.setattr("reports.run_page.data_uri", lambda figure: "data:,")


def read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def cells(page: BeautifulSoup, table: str, part: str = "tbody") -> list[list[str]]:
    found = page.select(f"#{table} {part} tr")
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in found]


def test_a_real_run_is_shown_as_its_files_say(simulated: SimulatedTask, tmp_path: Path, run_main: Run) -> None:
    assert run_main(simulated.options(tmp_path))[0] == 0
    folder = simulated.run_folder(tmp_path)
    code, out, err = run_main([str(folder)], "results_page")
    assert (code, out, err) == (0, f"page of {folder.name}: {folder / 'results.html'}\n", "")
    page = read(folder / "results.html")
    summary = pd.read_csv(folder / "summary.csv")
    results = pd.read_csv(folder / "results.csv", index_col="metric")
    for row, (_, fold) in zip(cells(page, "results"), summary.iterrows(), strict=True):
        wanted = [f"{fold[name]:.4f}" for name in [*METRICS, "test_hit_ratio"]]
        assert row == [f"{fold['fold']:.0f}", *wanted, f"{fold['best_epoch'] + 1:.0f} of {fold['epochs']:.0f}"]
    for row, name in zip(cells(page, "results", "tfoot"), ["mean", "std"], strict=True):
        assert row == [name, *(f"{results.loc[name, metric]:.4f}" for metric in METRICS), "", ""]
    assert page.select(".notice") == []
    assert len(page.select("details")) == 3  # a fold each, and the options

    wanted = []
    for fold in (0, 1):
        table = pd.read_csv(folder / f"predictions_{fold}.csv")
        for split in ("test", "val"):
            for row in table[table["split"] == split].to_dict("records"):
                correct = "yes" if row["label"] == row["prediction"] else "no"
                chances = [f"{row[name]:.3f}" for name in table.columns[4:]]
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
def test_one_finished_fold_is_shown_once(tmp_path: Path, run_main: Run) -> None:
    run = write_run(tmp_path / "run", ["A", "B"], 5, [2])
    code, out, _ = run_main([str(run.path)], "results_page")
    assert code == 0 and "run: not finished, so not on the page: fold 0, 1, 3, 4\n" in out
    page = read(run.path / "results.html")
    assert len(page.select("img")) == 1 + 3
    assert "Missing: folds 0, 1, 3, 4." in " ".join(page.get_text().split())
    assert cells(page, "results", "tfoot")[1][1:7] == ["0.0000"] * 6


@pytest.mark.usefixtures("no_figures")
def test_figures_are_of_the_test_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import results_page

    run = write_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
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
def test_a_metric_that_a_fold_has_not_got_is_said(tmp_path: Path, run_main: Run) -> None:
    run = write_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    table = pd.read_csv(run.predictions(1))
    gone = (table["split"] == "test") & (table["label"] == "A")
    table[~gone].to_csv(run.predictions(1), index=False)
    result = json.loads(run.fold_result(1).read_text())
    right = (table[~gone & (table["split"] == "test")]["prediction"] == "B").mean()
    share = 2 * right / (1 + right) / 2  # F1 of class B, halved: that of class A is 0
    result |= {"test_auc": float("nan"), "test_acc": right, "test_f1": share}
    run.fold_result(1).write_text(json.dumps(result))
    assert run_main([str(run.path)], "results_page")[0] == 0
    page = read(run.path / "results.html")
    assert cells(page, "results")[1][1] == "–"
    assert cells(page, "results", "tfoot")[0][1] == cells(page, "results")[0][1]
    (notice,) = page.select(".notice")
    assert "where a class has no slide: test AUC. Its mean" in " ".join(notice.get_text().split())


@pytest.mark.usefixtures("no_figures")
def test_several_runs_get_a_page_each(tmp_path: Path, run_main: Run) -> None:
    runs = [write_run(tmp_path / name, ["A", "B"], 1, [0]) for name in ("one", "two")]
    folders = [str(run.path) for run in runs]
    code, _, err = run_main([*folders, folders[0] + "/", "--output", str(tmp_path / "pages")], "results_page")
    assert (code, err) == (0, "")
    assert sorted(page.name for page in (tmp_path / "pages").iterdir()) == ["one.html", "two.html"]
    heading = read(tmp_path / "pages" / "two.html").h1
    assert heading and heading.get_text() == "two"
    code, _, err = run_main([*folders, "--output", str(tmp_path / "all.html")], "results_page")
    assert code == 2 and "all.html: would be the page of" in err and all(folder in err for folder in folders)
    again = tmp_path / "other" / "one"
    shutil.copytree(runs[0].path, again)
    code, _, err = run_main([folders[0], str(again), "--output", str(tmp_path / "same")], "results_page")
    assert code == 2 and "one.html: would be the page of" in err and not (tmp_path / "same").exists()


def without(column: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = [line.split(",") for line in text.splitlines()]
        place = lines[0].index(column)
        return "\n".join(",".join(line[:place] + line[place + 1 :]) for line in lines)

    return change


DAMAGES: list[tuple[str, Callable[[str], str | None], str]] = [
    ("config.json", lambda text: None, "no run found; expected a folder with a config.json"),
    ("config.json", lambda text: text[:-9], "config.json: not valid JSON"),
    ("config.json", lambda text: "[]", "config.json: not a config.json of main.py"),
    ("fold_0.json", lambda text: text[:-9], "fold_0.json: not valid JSON"),
    ("fold_0.json", lambda text: '{"fold": 0}', "fold_0.json: not the result of a fold"),
    ("predictions_0.csv", lambda text: None, "predictions_0.csv: file not found, though the fold is finished; remove"),
    ("predictions_0.csv", lambda text: "", "predictions_0.csv: not a readable table"),
    ("predictions_0.csv", lambda text: text[:-30], "no numbers (could not convert string to float: '')"),
    ("predictions_0.csv", lambda text: text[: text.rindex("S-2")] + "S-99", "found label ; expected A, B"),
    ("predictions_0.csv", lambda text: text[: text.index("test,")], "found a part without slides"),
    ("predictions_0.csv", lambda text: text[: text.rindex("test,")], "as in fold_0.json"),
    ("predictions_0.csv", lambda text: text.replace("S-2,", "S-1,"), "slides that are there twice"),
    ("predictions_0.csv", lambda text: text.replace("test,", "train,"), "found split train; expected val, test"),
    ("predictions_0.csv", lambda text: text.replace(",A,B,", ",A,C,", 1), "found prediction C; expected A, B"),
    ("predictions_0.csv", lambda text: text.replace(",0.", ",x0.", 1), "found probabilities that are no numbers"),
    ("predictions_0.csv", lambda text: text.replace(",0.", ",1.", 1), "found probabilities that do not add up to 1"),
    ("predictions_0.csv", without("prob_B"), "found the columns split, slide_id, label, prediction, prob_A; expected"),
    ("history_0.csv", lambda text: None, "history_0.csv: file not found"),
    ("history_0.csv", lambda text: text.replace("0.5", "half"), "no column of numbers train_loss, val_loss"),
    ("history_0.csv", without("val_auc"), "no column of numbers val_auc; found epoch, train_loss"),
    ("history_0.csv", lambda text: text[: text.rindex("\n3")], "found 3 epochs, expected 4"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_damaged_files_are_named(
    name: str, damage: Callable[[str], str | None], message: str, tmp_path: Path, run_main: Run
) -> None:
    run = write_run(tmp_path / "run", ["A", "B"], 2, [0, 1])
    file = run.path / name
    text = damage(file.read_text())
    file.unlink() if text is None else file.write_text(text)
    code, _, err = run_main([str(run.path), "--output", str(tmp_path / "page.html")], "results_page")
    assert code == 2 and message in err and str(run.path) in err, err
    assert "1 faults" not in err and "Traceback" not in err
    if "fold" not in name and "config" not in name:
        assert "remove fold_0.json and train the fold again with --resume" in err
    assert not (tmp_path / "page.html").exists()


def test_all_faults_are_listed_at_once(tmp_path: Path, run_main: Run) -> None:
    run = write_run(tmp_path / "run", ["A", "B"], 3, [0, 1, 2])
    run.predictions(0).unlink()
    run.training(0).history.unlink()
    run.fold_result(1).write_text("{")
    run.predictions(2).write_text("x")
    code, _, err = run_main([str(run.path), str(tmp_path / "none")], "results_page")
    assert code == 2 and err.startswith("error: 5 faults\n")
    for part in ("predictions_0.csv", "history_0.csv", "fold_1.json", "predictions_2.csv", "none: no run found"):
        assert part in err


def test_a_run_without_a_finished_fold_is_refused(tmp_path: Path, run_main: Run) -> None:
    run = write_run(tmp_path / "run", ["A", "B"], 2, [])
    code, _, err = run_main([str(run.path)], "results_page")
    assert code == 2 and "no fold is finished, found none of fold_0.json, fold_1.json" in err and "--resume" in err


@pytest.mark.usefixtures("no_figures")
def test_places_that_cannot_be_are_refused(tmp_path: Path, run_main: Run) -> None:
    path = str(write_run(tmp_path / "run", ["A", "B"], 1, [0]).path)
    code, _, err = run_main([path, "--explanations", str(tmp_path / "none")], "results_page")
    assert code == 2 and f"--explanations {tmp_path / 'none'}: no such folder" in err
    (tmp_path / "file").touch()
    code, _, err = run_main([path, "--output", str(tmp_path / "file")], "results_page")
    assert code == 2 and f"--output {tmp_path / 'file'}: is a file" in err
    code, out, _ = run_main(
        [path, "--output", str(tmp_path / "x.htm"), "--explanations", str(tmp_path)], "results_page"
    )
    assert code == 0 and f"note: {tmp_path} has no page of a slide of run" in out
    (tmp_path / "folder.html").mkdir()
    assert run_main([path, "--output", str(tmp_path / "folder.html")], "results_page")[0] == 0
    assert (tmp_path / "folder.html" / "run.html").is_file()


@pytest.fixture(scope="module")
def browser(page_of_made_up: Path) -> Iterator[tuple[Page, list[str]]]:
    with open_page() as (page, errors):
        yield page, errors


@pytest.fixture
def loaded(browser: tuple[Page, list[str]], page_of_made_up: Path) -> Iterator[Page]:
    """The page, just loaded; anything it complains of fails the test."""
    page, errors = browser
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(page_of_made_up.as_uri())
    yield page
    assert errors == []


def column(page: Page, number: int) -> list[str]:
    """Of the rows shown."""
    return page.locator(f"#slides tbody tr:visible td:nth-child({number + 1})").all_inner_texts()


def test_every_image_loads_and_nothing_runs_off_the_page(loaded: Page) -> None:
    loaded.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    loaded.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert overflow(loaded) == 0
    loaded.set_viewport_size({"width": 390, "height": 844})
    assert overflow(loaded) == 0


def test_the_table_sorts_by_numbers_and_by_names(loaded: Page) -> None:
    header = loaded.locator("#slides th")
    before = column(loaded, 2)
    assert header.locator("xpath=self::*[@aria-sort]").count() == 0
    header.nth(7).get_by_role("button").click()
    assert header.nth(7).get_attribute("aria-sort") == "ascending"
    ascending = [float(text) for text in column(loaded, 7)]
    assert ascending == sorted(ascending) and len(set(ascending)) > 40
    header.nth(7).get_by_role("button").click()
    assert header.nth(7).get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(loaded, 7)] == ascending[::-1]
    header.nth(2).get_by_role("button").focus()
    loaded.keyboard.press("Enter")
    assert [header.nth(n).get_attribute("aria-sort") for n in (2, 7)] == ["ascending", None]
    names = list(dict.fromkeys(column(loaded, 2)))
    assert names == [ODD_SLIDE, *(f"S-{number}" for number in range(1, 24))]  # S-2 before S-10
    header.nth(0).get_by_role("button").click()
    assert column(loaded, 0) == ["0"] * 24 + ["1"] * 24 + ["3"] * 24
    assert sorted(column(loaded, 2)) == sorted(before)


def test_numbers_sort_by_what_they_are_not_by_how_they_are_shown(loaded: Page) -> None:
    cell = loaded.locator("#slides tbody td[data-value]")
    cell.nth(0).evaluate("cell => { cell.dataset.value = '1e-9'; }")
    first = loaded.locator("#slides tbody tr").nth(0).inner_text()
    loaded.locator("#slides th").nth(6).get_by_role("button").click()
    assert loaded.locator("#slides tbody tr").nth(0).inner_text() == first


def test_the_table_is_filtered_by_fold_split_and_errors(loaded: Page, made_up: RunFolder) -> None:
    status = loaded.get_by_role("status")
    assert status.inner_text() == "72 of 72 predictions"
    loaded.get_by_label("Fold", exact=True).select_option("3")
    assert set(column(loaded, 0)) == {"3"} and status.inner_text() == "24 of 72 predictions"
    loaded.get_by_label("Split", exact=True).select_option("test")
    assert set(column(loaded, 1)) == {"test"} and status.inner_text() == "12 of 72 predictions"
    loaded.get_by_label("only errors").check()
    table = pd.read_csv(made_up.predictions(3))
    wrong = table[(table["split"] == "test") & (table["label"] != table["prediction"])]
    assert 0 < len(wrong) < 12
    assert column(loaded, 2) == wrong["slide_id"].tolist() and set(column(loaded, 5)) == {"no"}
    loaded.locator("#slides th").nth(6).get_by_role("button").click()
    assert sorted(column(loaded, 2)) == sorted(wrong["slide_id"])  # hidden rows stay hidden
    loaded.get_by_label("Split", exact=True).select_option("all")
    loaded.get_by_label("Fold", exact=True).select_option("all")
    loaded.get_by_label("only errors").uncheck()
    assert len(column(loaded, 0)) == 72


def test_a_link_opens_the_explanation(loaded: Page) -> None:
    loaded.locator("#slides a", has_text=ODD_SLIDE).first.click()
    assert loaded.title() == "explained"


def test_in_print_everything_is_shown_and_nothing_is_cut(loaded: Page) -> None:
    loaded.emulate_media(media="print")
    loaded.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert loaded.locator("details:not([open])").count() == 0
    assert not loaded.locator("#filter").is_visible()
    region = loaded.get_by_role("region", name="Slides")
    assert region.evaluate("part => part.scrollHeight <= part.clientHeight")
    head, row = (loaded.locator(f"#slides {part} tr").first.bounding_box() for part in ("thead", "tbody"))
    assert head and row and head["y"] + head["height"] <= row["y"] + 1
    loaded.emulate_media(media="screen")


def test_without_scripts_the_tables_are_there(page_of_made_up: Path) -> None:
    page = read(page_of_made_up)
    form = page.select_one("#filter")
    assert isinstance(form, Tag) and form.has_attr("hidden")
    assert len(cells(page, "slides")) == 72
