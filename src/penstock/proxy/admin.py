"""The operator's pages, on a listener of their own: nothing here is reachable by callers."""

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from penstock.asgi import Receive, Scope, Send
from penstock.calls.endpoint import under, without_odd_slashes
from penstock.calls.facts import count_of
from penstock.core.events import PauseLifted, Pinned
from penstock.dashboard.app import ROOT
from penstock.errors import ProtocolError
from penstock.log.explain import NOTHING_KEPT
from penstock.proxy.reload import Reloader
from penstock.proxy.sidecar import Sidecar
from penstock.schema.types import Label, Seconds, Table
from penstock.wire.secret import Secret

if TYPE_CHECKING:
    from starlette import types

_JSON = "application/json"
_LINES = "application/x-ndjson"
OPEN = frozenset(("/healthz", "/readyz"))
"""Pages that load balancers read; they say nothing of the traffic."""
_NO_TOKEN = (
    "nothing can be changed here until admin.token_env (or token_file) names a token; the file is "
    "also read again by a SIGHUP, or by a restart\n"
)

Page = Callable[[Request], Awaitable[Response]]


class _Pin(Table):
    """What is to be held, and for how long."""

    what: Literal["window", "pause", "weight"]
    name: Label
    value: float = 0.0
    for_s: Seconds


class AdminApp:
    """Shows what the sidecar does, and lets an operator change it with a token."""

    def __init__(self, sidecar: Sidecar, token: Secret | None, reloader: Reloader) -> None:
        """Look at this sidecar."""
        self._sidecar = sidecar
        self._reloader = reloader
        self._metrics: Any = None
        self.token = token
        self._turn = asyncio.Lock()
        pages: dict[str, Page] = {
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": self._metrics_page,
            "/snapshot": self._snapshot,
            "/decisions": self._decisions,
            "/shadow": self._shadow,
        }
        actions: dict[str, Page] = {
            "/admin/upstreams/{name}/lift": self._lift,
            "/admin/pins": self._pin,
            "/admin/reload": self._reload,
        }
        self._served = " ".join((*pages, ROOT))
        routes = [
            Route(path, page if path in OPEN else self._in_turn(page))
            for path, page in pages.items()
        ]
        routes += [
            Route(path, self._changing(action), methods=["POST"])
            for path, action in actions.items()
        ]
        self._starlette = Starlette(
            routes=routes, exception_handlers={404: self._nothing_here, 405: _not_so}
        )
        self._starlette.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"ASGI scope {scope['type']!r} is not served: only http is")
        path = without_odd_slashes(scope["path"])
        page = under(path, ROOT)
        if not page:  # whose own addresses hang on the slash
            scope = {**scope, "path": path}
        refusal = self._refusal(Request(scope))
        served = self._sidecar.dashboard if page else self._starlette
        await (refusal or served)(scope, receive, cast("types.Send", send))

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to who may not; None to who may.

        Without a token everybody who reaches the port may read: the configuration's check keeps
        such a port on loopback.
        """
        if self.token is None or request.scope["path"] in OPEN:
            return None
        presented = _presented(request.headers.get("authorization", ""))
        if presented is not None and hmac.compare_digest(presented, self.token.reveal().encode()):
            return None
        return PlainTextResponse(
            "this page needs the admin token: Authorization: Bearer TOKEN\n",
            401,
            # Basic with its realm first: Chromium asks for no password after a bare `Bearer,`.
            {"www-authenticate": 'Basic realm="penstock", Bearer realm="penstock"'},
        )

    def _in_turn(self, page: Page) -> Page:
        """Make one page at a time: the relay has the loop before the next is made.

        A call beside 100 askers of /metrics took 376 ms where it takes 1 alone, and 9 so.
        """

        async def made(request: Request) -> Response:
            await self._turn.acquire()
            try:
                return await page(request)
            finally:
                asyncio.get_running_loop().call_soon(self._turn.release)

        return made

    def _changing(self, action: Page) -> Page:
        """Let an action through only where a token is asked for."""

        async def checked(request: Request) -> Response:
            if self.token is None:
                return PlainTextResponse(_NO_TOKEN, 403)
            return await action(request)

        return checked

    async def _nothing_here(self, _request: Request, error: Exception) -> Response:
        detail = error.detail if isinstance(error, HTTPException) else ""
        text = f"there are {self._served}\n" if detail in ("", "Not Found") else f"{detail}\n"
        return PlainTextResponse(text, 404)

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _request: Request) -> Response:
        if self._sidecar.draining:
            return PlainTextResponse("draining\n", 503)
        return PlainTextResponse("ready\n")

    async def _metrics_page(self, _request: Request) -> Response:
        if self._metrics is None:
            # Imported at the first scrape: it is 20 ms that a start need not wait for.
            from penstock.proxy.observe.exposition import Exposition

            sidecar = self._sidecar
            self._metrics = Exposition(sidecar.metrics, sidecar.snapshot, sidecar.gauges)
        kind = self._metrics.content_type.decode()
        return Response(self._metrics.render(), headers={"content-type": kind})

    async def _snapshot(self, _request: Request) -> Response:
        return Response(dumps(self._sidecar.snapshot()), media_type=_JSON)

    async def _shadow(self, _request: Request) -> Response:
        return Response(dumps(self._sidecar.shadow.latest), media_type=_JSON)

    async def _decisions(self, request: Request) -> Response:
        asked, recent = request.query_params, self._sidecar.recent
        if id_ := asked.get("id"):
            lines = recent.of(id_)
            if lines is None:
                raise HTTPException(404, NOTHING_KEPT)
            return Response(lines, media_type=_LINES)
        if "window" in asked:
            return Response(recent.window_moves(), media_type=_LINES)
        limit = count_of(asked.get("limit", "100"))
        if limit is None:
            return PlainTextResponse("limit must be a whole number\n", 400)
        return Response(recent.latest(min(limit, 10_000)), media_type=_LINES)

    async def _lift(self, request: Request) -> Response:
        name = request.path_params["name"]
        driver, snapshot = self._sidecar.driver, self._sidecar.snapshot()
        upstream = snapshot.upstreams.get(name)
        pins = [pin for pin in snapshot.pins if pin.name == name]
        if upstream is None and not pins:
            known = ", ".join(self._sidecar.links)
            raise HTTPException(404, f"there is no such upstream: there are {known}")
        pauses = () if upstream is None else upstream.pauses
        for pause in pauses:
            driver.tell(PauseLifted(name, pause.account))
        for pin in pins:
            driver.tell(replace(pin, until=snapshot.now))
        lifted = {"upstream": name, "lifted": pauses, "pins": pins}
        return Response(dumps(lifted), media_type=_JSON)

    async def _pin(self, request: Request) -> Response:
        try:
            asked = _Pin.model_validate_json(await request.body())
            driver = self._sidecar.driver
            pin = Pinned(asked.what, asked.name, asked.value, driver.now() + asked.for_s)
            driver.tell(pin)
        except ValidationError as wrong:
            first = wrong.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise HTTPException(400, f"{where}: {first['msg']}") from None
        except ProtocolError as wrong:
            raise HTTPException(400, f"{wrong}") from None
        return Response(dumps({"pins": self._sidecar.snapshot().pins}), media_type=_JSON)

    async def _reload(self, _request: Request) -> Response:
        outcome = await self._reloader.reload()
        return Response(dumps(outcome), 409 if outcome.refused else 200, media_type=_JSON)


def dumps(value: Any) -> bytes:
    """Return JSON; infinities and NaN become null."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def _presented(authorization: str) -> bytes | None:
    """Return the token of a bearer's header, or the password that a browser was given."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:
            return None
    return None


async def _not_so(_request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    allowed = ", ".join(sorted((headers or {}).get("Allow", "").split(", ")))
    return PlainTextResponse(f"only {allowed}\n", 405, {"allow": allowed})
