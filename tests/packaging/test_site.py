"""The pages as a site: links are checked, search works, and nothing comes from elsewhere."""

import re
import subprocess
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browsers import launched
from tests.listening import serving_http

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Build it as a reader does, and serve it on loopback."""
    made = subprocess.run(["make", "site"], cwd=root, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    folder = str(root / "build" / "site")
    with serving_http(SimpleHTTPRequestHandler, directory=folder) as port:
        yield f"http://127.0.0.1:{port}"


def test_every_page_fits_a_telephone_and_its_search_asks_nobody_else(site: str) -> None:
    foreign: list[str] = []
    with launched() as browser:
        page: Page = browser.new_page(viewport={"width": 360, "height": 800})
        page.on("request", lambda r: None if r.url.startswith(site) else foreign.append(r.url))
        page.goto(f"{site}/docs/how-to/deploy.html")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("button", name="Search").first.click()
        page.get_by_role("combobox").first.fill("posterior")
        found = page.get_by_role("option", name=re.compile("median of a posterior"))
        expect(found.first).to_be_visible(timeout=20_000)
    assert [url for url in foreign if not url.startswith(("data:", "blob:"))] == []


def test_the_index_for_programs_leads_to_markdown_that_is_there(site: str, root: Path) -> None:
    built = root / "build" / "site"
    index = (built / "llms.txt").read_text()
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", index)]

    assert index.startswith("# penstock")
    assert "\n## How-to\n" in index
    assert len(targets) > 40
    assert [target for target in targets if not (built / target).is_file()] == []
