"""A page in headless Chromium. Tests that ask for it are skipped where Chromium is not installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, Request, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def open_page(width: int = 1280, height: int = 900) -> Iterator[tuple[Page, list[str]]]:
    """An empty page (``page.goto(file.as_uri())``), and the list of what went wrong in it so far: messages of errors
    and warnings, uncaught exceptions, and requests for anything but files and data beside the page."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    errors: list[str] = []

    def check(request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            errors.append(f"request for {request.url}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", check)
        page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
        yield page, errors
        browser.close()


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window; 0 where nobody needs to scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
