"""Serves the page and its data: read-only, nothing from elsewhere, no inline script or style."""

import asyncio
from importlib.resources import files
from urllib.parse import parse_qs

from penstock.asgi import Receive, Scope, Send
from penstock.dashboard.one_request import request_view
from penstock.dashboard.views import VIEWS, ViewSource, view
from penstock.wire import jsonio

ROOT = "/dashboard"
EVERY_S = 1.0
STREAMS_AT_MOST = 16
"""Each holds one of the listener's 64 connections; scrapes and commands need some as well."""
_PAGE = files("penstock.dashboard") / "page"
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
"""By name's end; the mimetypes module reads the machine's own tables, which differ."""
_FILES = {
    f"{folder}{each.name}"
    for folder, place in (("", _PAGE), ("vendor/", _PAGE / "vendor"))
    for each in place.iterdir()
    if each.name.rpartition(".")[2] in _KINDS
}


class DashboardApp:
    """Answers below `/dashboard`; an ASGI application that others pass requests on to."""

    def __init__(self, source: ViewSource) -> None:
        """Show what comes from this source."""
        self._source = source
        self._streams = 0
        self._closing = asyncio.Event()
        self._shared: tuple[float, str, bytes] | None = None

    def close(self) -> None:
        """End the streams, so that a listener that stops need not wait for them."""
        self._closing.set()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one GET."""
        name = scope["path"].removeprefix(ROOT).strip("/") or "index.html"
        if scope["method"] not in ("GET", "HEAD"):
            status, kind, body = 405, _TEXT, b"only GET, HEAD\n"
        elif name == "events":
            await self._stream(scope, send)
            return
        else:
            status, kind, body = self._answer(name, _query(scope))
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers + _HEADERS})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _answer(self, name: str, query: dict[str, str]) -> tuple[int, str, bytes]:
        if name == "view":
            wanted = query.get("name", "now")
            if wanted not in VIEWS:
                return 404, _JSON, jsonio.dumps({"error": f"views are {', '.join(VIEWS)}"})
            return 200, _JSON, self._view(wanted)
        if name == "request":
            found = request_view(self._source, query.get("id", ""))
            if found is None:
                return 404, _JSON, jsonio.dumps({"error": "nothing is known of this id"})
            return 200, _JSON, jsonio.dumps(found)
        if name not in _FILES:
            return 404, _TEXT, b"there is no such file\n"
        kind = _KINDS[name.rpartition(".")[2]]
        return 200, f"{kind}; charset=utf-8", _PAGE.joinpath(*name.split("/")).read_bytes()

    def _view(self, name: str) -> bytes:
        """Return a view's JSON; those who look within the same second share it."""
        now = asyncio.get_running_loop().time()
        if self._shared is None or self._shared[1] != name or now - self._shared[0] >= EVERY_S / 2:
            self._shared = (now, name, jsonio.dumps(view(self._source, name)))
        return self._shared[2]

    async def _stream(self, scope: Scope, send: Send) -> None:
        """Send a view each second, as server-sent events, until the reader goes away."""
        name = _query(scope).get("view", "now")
        full = self._streams >= STREAMS_AT_MOST
        if full or name not in VIEWS:
            body = b"too many are looking\n" if full else b"there is no such view\n"
            headers = [(b"content-type", b"text/plain"), *_HEADERS]
            status = 503 if full else 404
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        headers = [(b"content-type", b"text/event-stream"), *_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._streams += 1
        try:
            while not self._closing.is_set():
                event = b"data: " + self._view(name) + b"\n\n"
                await send({"type": "http.response.body", "body": event, "more_body": True})
                try:
                    async with asyncio.timeout(EVERY_S if self._source.live else None):
                        await self._closing.wait()
                except TimeoutError:
                    continue
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams -= 1


def _query(scope: Scope) -> dict[str, str]:
    asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in asked.items()}
