"""A real browser: Debian's Chromium, driven by Playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.programs import needed

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """Give a browser, started with these flags of Chromium's too.

    While it is open its thread counts as one with a running event loop, so nothing there may use
    `asyncio.run`: close it before the next module's tests.
    """
    chromium = shutil.which("chromium-browser") or needed("chromium", "chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])


def barriers(page: Page) -> list[tuple[str, str]]:
    """Return what axe-core finds against the page: the rule and the first element."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found]


def assert_readable(file: Path) -> None:
    """A report fits a telephone and a desk, by day and by night, and has no barrier."""
    with launched() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            for width in (360, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                page.goto(file.resolve().as_uri())
                widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
                assert widths[0] <= widths[1] == width, scheme
                charts = page.evaluate(
                    "[...document.querySelectorAll('svg')].map(s => s.clientWidth)"
                )
                assert min(charts, default=500) >= 500, "too small to read on a telephone"
            assert barriers(page) == [], scheme
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
