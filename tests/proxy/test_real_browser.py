"""A page of any site in a real browser: it reads nothing of either listener and starts no call."""

import asyncio
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from penstock.sim.mock.server import MockServer
from tests.browsers import launched
from tests.listening import listening_apart
from tests.proxy.sidecars import CHAT, SidecarThread

REBOUND = "attacker.example"
READ = """async ([url, method, type]) => {
    const body = method === "POST" ? '{"model":"m","messages":[]}' : undefined
    const options = {method, body, headers: body ? {"content-type": type} : {}}
    try {
        const reply = await fetch(url, options)
        return [reply.type, reply.status, (await reply.text()).slice(0, 200)]
    } catch (error) { return ["refused", 0, String(error)] }
}"""
FORM = """url => {
    document.body.innerHTML = `<form method=post enctype=text/plain action="${url}">
        <input name='{"model":"m","messages":[],"x":"' value='"}'></form>`
    document.forms[0].submit()
}"""
SOCKET = """url => new Promise(done => {
    const socket = new WebSocket(url)
    socket.onopen = () => done("open")
    socket.onerror = () => done("refused")
})"""
FRAME = """url => new Promise(done => {
    const frame = document.createElement("iframe")
    frame.onload = () => {
        try { done(frame.contentDocument?.body?.innerText ?? "closed") }
        catch (error) { done("closed") }
    }
    frame.src = url
    document.body.append(frame)
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Resolve the attacker's name to this machine, as a rebinding name server does."""
    with launched(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """Serve an empty page of another origin."""
    page = b"<!doctype html><title>a page</title><body>"
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(page)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer + page)
        await writer.drain()

    with listening_apart(serve) as port:
        yield port


@pytest.mark.parametrize("where", ["another page", "a name that was rebound"])
def test_a_page_reads_nothing_and_starts_no_call(
    browser: Browser, site: int, shared: SidecarThread, mock: MockServer, where: str
) -> None:
    page = browser.new_page()
    rebound = where == "a name that was rebound"
    before = _calls(mock)
    for port, paths in (
        (shared.port, (CHAT, "/v1/models", "/health")),
        (shared.admin_port, ("/snapshot", "/metrics", "/decisions", "/dashboard", "/admin/pins")),
    ):
        # The page of a name that moved here came from the attacker's server at the same port.
        page.goto(f"http://{REBOUND}:{port if rebound else site}/")
        base = "" if rebound else f"http://127.0.0.1:{port}"
        for path in paths:
            for method, kind in (
                ("GET", ""), ("POST", "text/plain"), ("POST", "application/json"),
            ):  # fmt: skip
                read = page.evaluate(READ, [base + path, method, kind])
                assert read[0] == "refused" or read[1] == 421, (path, read)
            assert page.evaluate(SOCKET, f"ws://{REBOUND}:{port}{path}") == "refused"
            assert page.evaluate(SOCKET, f"ws://127.0.0.1:{port}{path}") == "refused"
        page.goto(f"http://{REBOUND}:{site}/")
        assert "penstock" not in page.evaluate(FRAME, f"http://127.0.0.1:{port}{paths[0]}")
        page.evaluate(FORM, f"http://127.0.0.1:{port}{paths[0]}")
        page.wait_for_url(f"http://127.0.0.1:{port}/**")
        assert "unknown_origin" in page.content() or "405" in page.content()
    assert _calls(mock) == before
    page.close()


def _calls(mock: MockServer) -> dict[str, int]:
    return {path: n for path, n in mock.stats()["requests"].items() if path != "/mock/stats"}
