"""The page in a real browser: live and from a log, narrow and wide, light and dark, by keyboard."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, HttpCredentials, Page, Request, expect

from penstock.cli.dashboard import serving
from penstock.core.events import Completed
from penstock.dashboard.app import ROOT
from penstock.dashboard.from_log import LogSource
from penstock.dashboard.views import VIEWS, ViewSource, now_view, window_view
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.browsers import barriers, launched
from tests.dashboard.scenes import Scene, answer, busy, scene, settings
from tests.proxy.sidecars import (
    UNPREDICTED,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

WIDTHS = (360, 768, 1280)
HEADINGS = {
    "now": "Upstreams",
    "why": "Seconds of waiting, by cause",
    "window": "Concurrency limits",
    "predictor": "Token estimates",
    "refusals": "Refusals",
    "whatif": "What if",
    "request": "Request run-",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return where screenshots go: `$PENSTOCK_PICTURES` to make the ones in the pages anew."""
    return Path(os.environ.get("PENSTOCK_PICTURES") or tmp_path)


@contextlib.contextmanager
def served(source: ViewSource) -> Iterator[str]:
    """Serve a source from a thread of its own; give the page's address."""
    ready: list[int] = []
    up, end = threading.Event(), threading.Event()

    async def run() -> None:
        async with serving(source, 0) as port:
            ready.append(port)
            up.set()
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert up.wait(20)
    try:
        yield f"http://127.0.0.1:{ready[0]}{ROOT}"
    finally:
        end.set()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


@contextlib.contextmanager
def opened(
    browser: Browser, width: int = 1280, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    """Give a fresh page; whatever goes wrong inside fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, timezone_id="UTC"
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def hear(told: ConsoleMessage) -> None:
        unknown_request = "/dashboard/request" in told.location["url"] and "404" in told.text
        if told.type == "error" and not unknown_request:
            wrong.append(told.text)

    def see(asked: Request) -> None:
        if not asked.url.startswith(("http://127.0.0.1:", "about:")):
            wrong.append(f"the page asks {asked.url}")

    page.on("console", hear)
    page.on("request", see)
    try:
        yield page
        assert wrong == []
    finally:
        context.close()


@pytest.mark.slow  # 36 pages in a browser, with axe's hundred rules on each
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_fits_and_has_no_barrier(
    browser: Browser, pictures: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    source = busy()
    source.report = answer()
    waits = now_view(source)["longest_waiting"][0]["id"]
    with served(source) as url, opened(browser, width, scheme) as page:
        for view, heading in HEADINGS.items():
            page.goto(f"{url}#{view}" + (f"/{waits}" if view == "request" else ""))
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
            assert barriers(page) == [], view
            picture = page.screenshot(path=pictures / f"{view}-{width}-{scheme}.png")
            assert picture.startswith(b"\x89PNG")
            assert len(picture) > 5_000, "an empty page"


def test_on_a_phone_a_row_is_at_most_four_lines_high(browser: Browser) -> None:
    """Tables scroll to the side there; a column squeezed to a word a line is read by nobody."""
    tallest = "Math.max(...[...document.querySelectorAll('td')].map(td => td.clientHeight))"
    with served(busy()) as url, opened(browser, 360) as page:
        for view in ("why", "window"):
            page.goto(f"{url}#{view}")
            expect(page.get_by_role("heading", name=HEADINGS[view])).to_be_visible()
            page.wait_for_selector("td")
            assert page.evaluate(tallest) < 5 * 24, view


def test_on_a_phone_why_a_request_was_slow_is_read_without_scrolling(browser: Browser) -> None:
    with served(busy()) as url, opened(browser, 360) as page:
        for view, heading in (("now", "Slowest of the last 15 minutes"), ("why", "The slowest")):
            page.goto(f"{url}#{view}")
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
            for cell in page.locator(".cause").all():
                box = cell.bounding_box()
                assert box is not None
                assert box["x"] + box["width"] <= 360, view
            assert page.locator(".cause").count() > 3, view


def test_charts_are_drawn(page: Page) -> None:
    """Not only is there a canvas: there is ink on it."""
    with served(busy()) as url:
        for view in ("why", "window"):
            page.goto(f"{url}#{view}")
            canvas = page.locator("canvas")
            expect(canvas).to_be_visible()
            page.wait_for_function(
                "() => { const c = document.querySelector('canvas');"
                " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                " const seen = new Set(); for (let i = 0; i < d.length; i += 4)"
                " if (d[i + 3] > 200) seen.add(`${d[i]},${d[i + 1]},${d[i + 2]}`);"
                " return seen.size > 2; }"
            )


def test_the_line_of_a_window_begins_at_what_held_before_its_first_move(page: Page) -> None:
    page.add_init_script(
        "let chart; Object.defineProperty(window, 'uPlot', { get: () => chart, set: (real) => {"
        " chart = function (options, data, place) {"
        " window.drawn = data; return new real(options, data, place); };"
        " Object.assign(chart, real); } });"
    )
    source = busy()
    first = window_view(source)["moves"][-1]
    with served(source) as url:
        page.goto(f"{url}#window")
        expect(page.locator("canvas")).to_be_visible()
        line: list[float] = page.evaluate("window.drawn[1]")
    assert first["before"] != first["after"]
    assert line[:2] == [first["before"], first["after"]]


def test_a_sure_change_of_an_untrusted_twin_is_a_hint(page: Page) -> None:
    source = scene()
    for trusted, word in ((True, "yes"), (False, "a hint")):
        source.report = {**answer(), "trusted": trusted, "because": ["it is off"] * (not trusted)}
        with served(source) as url:
            page.goto(f"{url}#whatif")
            certain = page.locator("td:last-child")
            expect(certain.first).to_be_visible()
            assert set(certain.all_text_contents()) == {word, "may be none"}


def test_a_newcomer_finds_out_why_a_call_is_slow(page: Page) -> None:
    """Open the page, enter the id of the answer's header, read the first lines."""
    with served(scene()) as url:
        page.goto(url)
        page.get_by_label("Request").fill("run-5")
        page.get_by_role("button", name="Show").click()

        told = page.locator(".answer")
        expect(told).to_contain_text("9.5 s because there was no room upstream")
        expect(told).to_contain_text("It is number 3 of its class")
        expect(told).to_contain_text("its turn may come in about 12.0 s")


def test_everything_is_reached_by_keyboard_alone(page: Page) -> None:
    with served(scene()) as url:
        page.goto(url)
        expect(page.get_by_role("link", name="run-3")).to_be_visible()
        visited = []
        for _ in range(60):
            page.keyboard.press("Tab")
            text: str = page.evaluate("document.activeElement.textContent")
            visited.append(text)
            if text == "run-3":
                break
        page.keyboard.press("Enter")

        views = ["Now", "Why", "Window", "Predictor", "Refusals", "What if", "One request"]
        assert visited[: len(views)] == views
        expect(page.get_by_role("heading", name="Request run-3")).to_be_visible()


def test_what_callers_named_is_shown_as_text_not_run(page: Page) -> None:
    evil = "<img src=x onerror=document.title='owned'>"
    source = Scene(settings(window=1.0))
    for number in range(3):
        source.arrive(number, tenant=evil)
    with served(source) as url:
        page.goto(url)
        expect(page.get_by_text(evil).first).to_be_visible()
        page.goto(f"{url}#request/run-2")
        expect(page.get_by_text(f"tenant {evil}").first).to_be_visible()
        expect(page.locator("img")).to_have_count(0)
        assert page.title() != "owned"
        page.goto(f"{url}#request/{evil}")
        expect(page.get_by_role("alert")).to_contain_text("Nothing is known of")
        assert page.title() != "owned"


def test_with_ten_thousand_waiting_the_page_is_small_and_shows_them(page: Page) -> None:
    source = Scene(settings(window=1.0))
    for number in range(10_000):
        source.arrive(number, tenant=f"t{number % 500}")
    with served(source) as url:
        page.goto(url)
        expect(page.get_by_text("9,999 waiting, 1 in flight")).to_be_visible()
        assert page.locator("tr").count() < 60
        page.goto(f"{url}#request/run-9999")
        expect(page.locator(".answer")).to_contain_text("20")


def test_it_is_live(page: Page) -> None:
    source = scene()
    with served(source) as url:
        page.goto(url)
        expect(page.get_by_text("6 waiting, 1 in flight")).to_be_visible()
        source.tell(Completed(2, 40))
        expect(page.get_by_text("5 waiting, 1 in flight")).to_be_visible()
        page.goto(f"{url}#request/run-4")
        expect(page.locator(".answer")).to_contain_text("It waits")
        source.tell(Completed(3, 40))
        expect(page.locator(".answer")).to_contain_text("It has not ended, after")
        source.tell(Completed(4, 40))
        expect(page.locator(".answer")).to_contain_text("It took")


def _held(proxy: SidecarThread) -> Any:
    line = connect(proxy.port)
    line.sendall(raw_request(headers={"x-mock-output-tokens": "1000"}))
    return line


def test_the_sidecar_shows_it_on_the_admin_port_and_its_log_later(
    page: Page, tmp_path: Path
) -> None:
    slow = {"model": "slots", "slots": 16, "tokens_per_s": 10.0, "ttft_s": 0.01}
    log = f'[log]\ndecisions_path = "{tmp_path / "log.jsonl"}"\n'
    with MockServer(MockSettings(provider=slow)) as mock:
        toml = in_front_of(mock.url, window=1, more=UNPREDICTED + log)
        with sidecar(toml) as proxy:
            with _held(proxy), _held(proxy):
                eventually(lambda: proxy.snapshot().waiting == 1)
                page.goto(f"http://127.0.0.1:{proxy.admin_port}{ROOT}")
                expect(page.get_by_text("1 waiting, 1 in flight")).to_be_visible()
            few = {"x-mock-output-tokens": "2"}
            id_ = call(proxy.port, headers=few).headers["x-penstock-id"]
            page.goto("about:blank")
    with served(LogSource(tmp_path / "log.jsonl")) as url:
        page.goto(url)
        expect(page.get_by_text("The log as at its end")).to_be_visible()
        page.get_by_role("link", name=id_).click()
        expect(page.locator(".answer")).to_contain_text("It took")


def test_with_a_token_the_page_asks_for_it_and_may_end_a_pause(browser: Browser) -> None:
    token = {"TOKEN": "a-token-of-some-length-3f9c"}
    with (
        MockServer(MockSettings()) as mock,
        sidecar(in_front_of(mock.url, more='token_env = "TOKEN"'), token) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.admin_port}{ROOT}"
        assert call(proxy.admin_port, f"{ROOT}/view", method="GET", body=None).status == 401
        call(proxy.port, headers={"x-mock-fault": "quota"})
        eventually(lambda: proxy.snapshot().upstreams["open"].pauses)
        known = HttpCredentials(username="any", password=token["TOKEN"])
        context = browser.new_context(http_credentials=known)
        page = context.new_page()
        page.goto(url)
        page.get_by_role("button", name="End the pause of open").click()
        eventually(lambda: not proxy.snapshot().upstreams["open"].pauses)
        expect(page.get_by_role("button", name="End the pause of open")).to_be_hidden()
        bearer = {"authorization": f"Bearer {token['TOKEN']}"}
        pin = {"what": "window", "name": "open", "value": 3, "for_s": 600}
        assert call(proxy.admin_port, "/admin/pins", body=pin, headers=bearer).status == 200
        expect(page.get_by_role("row", name="window open 3")).to_be_visible()
        context.close()


def test_an_open_page_does_not_hold_up_the_sidecars_end(page: Page) -> None:
    with MockServer(MockSettings()) as mock, sidecar(in_front_of(mock.url)) as proxy:
        with connect(proxy.admin_port) as stream:
            stream.sendall(b"GET /dashboard/events?view=now HTTP/1.1\r\nhost: localhost\r\n\r\n")
            told = b""
            while b"data: " not in told:
                told += stream.recv(65536)
            proxy.begin_stop()
            while stream.recv(65536):
                pass
            assert proxy.finished()


@pytest.mark.parametrize("name", VIEWS)
def test_nothing_but_what_is_there_is_served(name: str) -> None:
    with served(scene()) as url:
        port = int(url.split(":")[2].partition("/")[0])
        get: Any = {"method": "GET", "body": None}
        assert call(port, f"{ROOT}/view?name={name}", **get).json()["view"] == name
        for path in ("/../app.py", "/vendor/../../app.py", "/__init__.py", "/vendor/LICENSE.htm"):
            assert call(port, ROOT + path, **get).status == 404
        assert call(port, f"{ROOT}/view?name=nothing", **get).status == 404
        assert call(port, f"{ROOT}/view", method="POST").status == 405
        foreign = {"host": f"evil.example:{port}"}
        assert call(port, f"{ROOT}/view", headers=foreign, **get).status == 421
        policy = call(port, ROOT, **get).headers["content-security-policy"]
        assert policy.startswith("default-src 'self'")


def test_what_penstock_gained_is_told_with_its_interval_if_it_can_be_trusted(page: Page) -> None:
    source = busy()
    with served(source) as url:
        page.goto(f"{url}#whatif")
        expect(page.get_by_text("Nobody has asked yet")).to_be_visible()
        source.report = {"soon": "No answer yet: the first is asked for"}
        expect(page.get_by_text("No answer yet")).to_be_visible()
        source.report = answer()
        expect(page.get_by_text("Not to be trusted here, because latency P95")).to_be_visible()
        expect(page.get_by_text("there is no 'urgent' in the log")).to_be_visible()
        expect(page.get_by_text("penstock gained")).to_have_count(0)
        source.report = {**answer(), "trusted": True, "because": []}
        expect(page.get_by_text("penstock gained +39.0 points")).to_be_visible()
        expect(page.get_by_text("(between +30.0 and +50.0, 95 %)")).to_be_visible()
        expect(page.get_by_text("+0.00 s to +5.00 s")).to_be_visible()  # from -0.001


def test_what_went_on_to_another_model_is_told_with_its_reason(page: Page) -> None:
    source = scene()
    source.gone_on = {("large", "small", "late"): 1234.0, ("", "other", "quota"): 2.0}
    with served(source) as url:
        page.goto(url)
        first = page.get_by_role("row", name="1,234 large small late")
        expect(first).to_contain_text("late: its deadline would have been missed")
        expect(page.get_by_role("row", name="2 (any) other quota")).to_be_visible()


def test_a_newcomer_whose_calls_are_turned_away_sees_that_they_are(page: Page) -> None:
    """Who forgets the key has no request that was scheduled, and no id to enter."""
    source = Scene(settings(window=1.0))
    source.refused_unscheduled = {("/v1/chat/completions", "401"): 51.0}
    with served(source) as url:
        page.goto(url)
        expect(page.get_by_role("row", name="51 401 /v1/chat/completions")).to_be_visible()
