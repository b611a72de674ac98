"""The page of a run in a browser: sorting, filtering, links, print."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page

from tests.support.browser import open_page, overflow
from tests.support.made_page import ODD_SLIDE
from training.run_folder import RunFolder


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
