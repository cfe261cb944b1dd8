"""The operator's pages, on a listener of their own: nothing here is reachable by callers."""

from typing import Any
from urllib.parse import parse_qs

import orjson

from penstock.listener import Receive, Scope
from penstock.proxy.headers import Header
from penstock.proxy.observe.recent import Recent
from penstock.proxy.reply import Send, send_whole
from penstock.proxy.sidecar import Sidecar

_JSON = b"application/json"
_LINES = b"application/x-ndjson"
_TEXT = b"text/plain; charset=utf-8"
_PAGES = "/healthz /readyz /metrics /snapshot /decisions"


class AdminApp:
    """Answers GET on a handful of pages."""

    def __init__(self, sidecar: Sidecar, recent: Recent) -> None:
        """Look at this sidecar."""
        self._sidecar = sidecar
        self._recent = recent
        self._metrics: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"ASGI scope {scope['type']!r} is not served: only http is")
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, _TEXT, b"only GET\n", (b"allow", b"GET, HEAD"))
            return
        page = {
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": self._metrics_page,
            "/snapshot": self._snapshot,
            "/decisions": self._decisions,
        }.get(scope["path"])
        if page is None:
            await _send(send, 404, _TEXT, f"there are {_PAGES}\n".encode())
            return
        status, kind, body = page(scope["query_string"])
        await _send(send, status, kind, body)

    def _health(self, _query: bytes) -> tuple[int, bytes, bytes]:
        return 200, _TEXT, b"ok\n"

    def _ready(self, _query: bytes) -> tuple[int, bytes, bytes]:
        if self._sidecar.draining:
            return 503, _TEXT, b"draining\n"
        return 200, _TEXT, b"ready\n"

    def _metrics_page(self, _query: bytes) -> tuple[int, bytes, bytes]:
        if self._metrics is None:
            # Imported at the first scrape: it is 20 ms that a start need not wait for.
            from penstock.proxy.observe.exposition import Exposition

            sidecar = self._sidecar
            self._metrics = Exposition(sidecar.metrics, sidecar.snapshot, sidecar.gauges)
        return 200, self._metrics.content_type, self._metrics.render()

    def _snapshot(self, _query: bytes) -> tuple[int, bytes, bytes]:
        return 200, _JSON, dumps(self._sidecar.snapshot())

    def _decisions(self, query: bytes) -> tuple[int, bytes, bytes]:
        asked = parse_qs(query.decode("latin-1"), keep_blank_values=True)
        id_ = asked.get("id", [""])[-1]
        if id_:
            lines = self._recent.of(id_)
            if lines is None:
                return 404, _TEXT, b"nothing is kept about this id\n"
            return 200, _LINES, lines
        if "window" in asked:
            return 200, _LINES, self._recent.window_moves()
        limit = asked.get("limit", ["100"])[-1]
        if not limit.isascii() or not limit.isdigit():
            return 400, _TEXT, b"limit must be a whole number\n"
        return 200, _LINES, self._recent.latest(min(int(limit), 10_000))


def dumps(value: Any) -> bytes:
    """Return JSON; infinities and NaN become null."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


async def _send(send: Send, status: int, kind: bytes, body: bytes, *more: Header) -> None:
    headers: list[Header] = [(b"content-type", kind), *more]
    await send_whole(send, status, headers, body)
